"""The plugin's side of go-plugin's gRPC protocol, on grpcio.

What a plugin owes its host, in order: check the cookie, choose a version, listen on a socket
in the directory that the host names, announce it in one line on standard output, serve until
Shutdown is called. With PLUGIN_CLIENT_CERT set the channel is mutual TLS (AutoMTLS).

Not offered: the broker, by which host and plugin call each other back.
"""

import base64
import datetime
import io
import json
import logging
import os
import queue
import signal
import sys
import tempfile
import threading
from concurrent import futures

import grpc
from google.protobuf import empty_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

import wire

log = logging.getLogger("goplugin")

# Messages and services of the package `plugin`; names and numbers are the wire.
_PLUGIN = wire.File("plugin", "grpc_plugin.proto", depends=["google/protobuf/empty.proto"])
_PLUGIN.message("Empty")
# The channel is an enum there: 1 standard output, 2 standard error. The bytes are the same.
_PLUGIN.message("StdioData", channel="int32", data="bytes")
_PLUGIN.service("GRPCController", Shutdown=("plugin.Empty", "plugin.Empty"))
_PLUGIN.service("GRPCStdio", StreamStdio=("google.protobuf.Empty", "plugin.StdioData", "stream"))
_Empty, _StdioData = _PLUGIN.build("Empty", "StdioData")

_STDOUT = 1
# Chunks of standard output kept for a host that reads slowly or not at all. Beyond it the
# oldest are dropped: a plugin must never block on its own output.
_KEPT_CHUNKS = 1024
# Calls in flight get this long after Shutdown.
_LAST_CALLS_SECONDS = 1.0


def serve(cookie, versions, register):
    """Serves until the host calls Shutdown, and returns the process's exit code.

    cookie: (key, value) that the host sets in the environment.
    versions: the interface versions served, as a set of ints.
    register: function(server, version) that adds the plugin's own services and returns
        their full names.
    """
    log_to_stderr()
    key, value = cookie
    if os.environ.get(key) != value:
        print(
            "This program is a plugin and has to be started by its host.\n"
            f"The magic cookie {key} is not set, or not to the expected value.",
            file=sys.stderr,
        )
        return 1
    version = choose_version(versions, os.environ.get("PLUGIN_PROTOCOL_VERSIONS", ""))
    stopping = threading.Event()
    stdio = Stdio()

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=32))
    names = register(server, version)
    _add_own_services(server, names, stopping, stdio)
    path = os.path.join(
        os.environ.get("PLUGIN_UNIX_SOCKET_DIR") or tempfile.gettempdir(),
        f"plugin-{os.getpid()}.sock",
    )
    certificate = b""
    client_certificate = os.environ.get("PLUGIN_CLIENT_CERT", "")
    if client_certificate:
        key_pem, certificate_pem, certificate = own_certificate()
        server.add_secure_port(
            f"unix:{path}",
            grpc.ssl_server_credentials(
                [(key_pem, certificate_pem)],
                root_certificates=client_certificate.encode(),
                require_client_auth=True,
            ),
        )
    else:
        server.add_insecure_port(f"unix:{path}")
    server.start()

    field = base64.b64encode(certificate).decode().rstrip("=")
    print(f"1|{version}|unix|{path}|grpc|{field}", flush=True)
    # From here on the real standard output is of no use to the host; print() goes to the
    # stream that it reads instead.
    sys.stdout = stdio.writer()
    log.info("serving", extra={"fields": {"address": path, "version": version}})

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    # Waiting here, and not in the handler of Shutdown, lets its reply leave first.
    stopping.wait()
    stdio.close()
    server.stop(_LAST_CALLS_SECONDS).wait()
    if os.path.exists(path):
        os.unlink(path)
    return 0


def choose_version(own, offered):
    """The highest version of ours that the host lists, else our lowest: then the host
    refuses, because only it can say what it would have taken."""
    listed = {int(item) for item in offered.split(",") if item.isascii() and item.isdigit()}
    common = listed & set(own)
    return max(common) if common else min(own)


def own_certificate():
    """A fresh key and self-signed certificate: (key PEM, certificate PEM, certificate DER)."""
    # Imported here, so that a plugin without AutoMTLS does without this library.
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=3650))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    return (
        key.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        certificate.public_bytes(pem),
        certificate.public_bytes(serialization.Encoding.DER),
    )


class Stdio:
    """What the plugin prints, kept for the host's StreamStdio call."""

    def __init__(self):
        self._chunks = queue.Queue(_KEPT_CHUNKS)
        self._closed = threading.Event()

    def put(self, data):
        while not self._closed.is_set():
            try:
                self._chunks.put_nowait(data)
                return
            except queue.Full:
                try:
                    self._chunks.get_nowait()
                except queue.Empty:
                    pass

    def close(self):
        """Ends the stream once what is kept was sent."""
        self._closed.set()

    def stream(self, _request, context):
        while context.is_active():
            try:
                data = self._chunks.get(timeout=0.1)
            except queue.Empty:
                if self._closed.is_set():
                    return
                continue
            for start in range(0, len(data), 1024):
                yield _StdioData(channel=_STDOUT, data=data[start : start + 1024])

    def writer(self):
        stdio = self

        class Raw(io.RawIOBase):
            def writable(self):
                return True

            def write(self, data):
                stdio.put(bytes(data))
                return len(data)

        return io.TextIOWrapper(
            io.BufferedWriter(Raw()), encoding="utf-8", errors="replace", line_buffering=True
        )


class HclogFormatter(logging.Formatter):
    """JSON lines whose keys a go-plugin host knows."""

    LEVELS = {"WARNING": "warn", "CRITICAL": "error"}

    def format(self, record):
        time = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        entry = {
            "@level": self.LEVELS.get(record.levelname, record.levelname.lower()),
            "@message": record.getMessage(),
            "@module": record.name,
            "@timestamp": time.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def log_to_stderr():
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HclogFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _add_own_services(server, names, stopping, stdio):
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    # The service name that go-plugin hosts ask about.
    checks.set("plugin", health_pb2.HealthCheckResponse.SERVING)

    def shutdown(_request, _context):
        stopping.set()
        return _Empty()

    handlers = {
        "plugin.GRPCController": {
            "Shutdown": grpc.unary_unary_rpc_method_handler(
                shutdown, _Empty.FromString, _Empty.SerializeToString
            )
        },
        "plugin.GRPCStdio": {
            "StreamStdio": grpc.unary_stream_rpc_method_handler(
                stdio.stream, empty_pb2.Empty.FromString, _StdioData.SerializeToString
            )
        },
    }
    for service, methods in handlers.items():
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service, methods),)
        )
    reflection.enable_server_reflection(
        [*names, *handlers, health.SERVICE_NAME, reflection.SERVICE_NAME], server
    )
