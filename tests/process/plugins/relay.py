"""A plugin for tests: runs a real one and announces it in another way.

usage: relay.py PROGRAM [ARGUMENT...]

RELAY_LINE    what to print, with Python's escapes; {version}, {path}, {port}, {cert}, {padded}
              stand for what the real plugin announced, or for where the relay listens
RELAY_PAUSE   seconds between two bytes of it
RELAY_LISTEN  tcp: listen on a port of 127.0.0.1 and pass bytes on to the real plugin
              tls: end TLS here, at most version 1.2, as AutoMTLS has it; the real plugin is plain
RELAY_PEM     with tls: file with the certificate and its key
"""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time


def main():
    listen = os.environ.get("RELAY_LISTEN")
    child, version, path, cert = start(listen == "tls")
    values = {"version": version, "path": path, "cert": cert, "port": 0}
    values["padded"] = cert + "=" * (-len(cert) % 4)
    if listen == "tcp":
        server = socket.create_server(("127.0.0.1", 0))
        values["port"] = server.getsockname()[1]
        serve(server, path, None)
    elif listen == "tls":
        values["path"] = os.path.join(os.environ["PLUGIN_UNIX_SOCKET_DIR"], "relay.sock")
        server = socket.socket(socket.AF_UNIX)
        server.bind(values["path"])
        server.listen()
        serve(server, path, tls12())
    text = os.environ["RELAY_LINE"].encode().decode("unicode_escape").format(**values)
    pause = float(os.environ.get("RELAY_PAUSE", "0"))
    for byte in text.encode("latin-1"):
        os.write(1, bytes([byte]))
        if pause:
            time.sleep(pause)
    code = child.wait()
    os._exit(code if code >= 0 else 128 - code)


def start(is_plain):
    """Starts the real plugin; again, until its certificate has a length that padding shows in."""
    environment = dict(os.environ)
    if is_plain:
        environment.pop("PLUGIN_CLIENT_CERT", None)
    while True:
        child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, env=environment)
        fields = child.stdout.readline().decode().rstrip("\n").split("|")
        if len(fields) < 5:
            sys.exit(f"the real plugin announced {fields}")
        cert = fields[5] if len(fields) > 5 else ""
        if "{padded}" in os.environ["RELAY_LINE"] and len(cert) % 4 == 0:
            child.kill()
            child.wait()
            continue
        return child, fields[1], fields[3], cert


def tls12():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(os.environ["RELAY_PEM"])
    context.load_verify_locations(cadata=os.environ["PLUGIN_CLIENT_CERT"])
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    return context


def serve(server, path, context):
    def accept():
        while True:
            client, _ = server.accept()
            threading.Thread(target=connect, args=(client, path, context), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def connect(client, path, context):
    upstream = socket.socket(socket.AF_UNIX)
    upstream.connect(path)
    if context is None:
        threading.Thread(target=copy, args=(upstream, client), daemon=True).start()
        copy(client, upstream)
        return
    # One thread must not read a TLS connection while another writes it, so one does both.
    try:
        client = context.wrap_socket(client, server_side=True)
    except (OSError, ssl.SSLError) as error:
        print("relay: TLS:", error, file=sys.stderr)
        return
    shuttle(client, upstream)


def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for end in (source, target):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def shuttle(client, upstream):
    client.settimeout(0.005)
    upstream.settimeout(0.005)
    try:
        while True:
            for source, target in ((client, upstream), (upstream, client)):
                try:
                    data = source.recv(65536)
                except TimeoutError:
                    continue
                if not data:
                    return
                target.settimeout(None)
                target.sendall(data)
                target.settimeout(0.005)
    except OSError:
        pass
    finally:
        client.close()
        upstream.close()


main()
