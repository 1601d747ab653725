"""A small stand-in for the sidecar's side of the jobs socket, with faults on order.

It does what plugins rely on: jobs in ascending StartTime, each to one request, the same job
again for the same request id, rows counted once per row id.
"""

import collections
import http.server
import json
import os
import shutil
import socketserver
import tempfile
import threading
import time
import urllib.parse

# What a fault does to one call.
DROP = "drop"            # the connection closes, nothing was done
LOSE = "lose"            # done, but the connection closes before the answer
CUT = "cut"              # done, and the connection closes in the middle of the answer
BUSY = "busy"            # status 503
HANG = "hang"            # no answer until the stand-in closes


def job(number=1, location="", port="10000", start=None, **more):
    """A job's document."""
    document = {
        "id": "00000000-0000-4000-8000-%012d" % number,
        "JobTarget": {"PluginName": "Scraper", "Location": location, "Port": port},
        "Status": "Pending",
        "StartTime": number if start is None else start,
        "JobCommand": {
            "CommandName": "fetch", "Tooltip": "", "Output": True,
            "Inputs": [{"Name": "Target", "Type": "textbox", "Tooltip": "", "Value": "v%d" % number}],
            "OptionalInputs": [],
        },
    }
    document.update(more)
    return document


class StandIn:
    """Serves on `path` while it is entered."""

    def __init__(self, jobs=(), targets=(), folder=None):
        self._own = folder is None
        self._folder = folder or tempfile.mkdtemp()
        self.path = os.path.join(self._folder, "jobs.sock")
        self.lock = threading.Lock()
        self.waiting = sorted(jobs, key=lambda each: each["StartTime"])
        self.targets = set(targets)
        self.granted = {}        # request id -> job
        self.asked = []          # every body of /v1/request
        self.rows = collections.defaultdict(list)
        self.statuses = {}
        self.started = []
        self.telemetry = []
        self.tracker = None
        self.connections = 0
        self.faults = collections.defaultdict(collections.deque)
        self.replies = collections.defaultdict(collections.deque)
        self.closing = threading.Event()
        self.changed = threading.Condition(self.lock)

    def fault(self, path, *faults):
        """The next calls of this path go wrong in these ways, one each; None is no fault."""
        self.faults[path].extend(faults)

    def reply(self, path, data):
        """The next call of this path is answered with these raw bytes, and closed."""
        self.replies[path].append(data)

    def until(self, condition, seconds=10):
        """Waits until the condition is true, and says whether it became so."""
        with self.changed:
            return self.changed.wait_for(condition, seconds)

    def __enter__(self):
        self._server = _Server(self.path, _Handler)
        self._server.stand_in = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stop()
        if self._own:
            shutil.rmtree(self._folder, ignore_errors=True)

    def stop(self):
        """Closes the socket; what is known stays."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if os.path.exists(self.path):
            os.unlink(self.path)

    # Each of these runs with the lock held and returns (status, document or None).

    def on_health(self, _method, _query, _body):
        return 200, {}

    def on_start(self, _method, _query, body):
        self.started.append(json.loads(body))
        return 200, {}

    def on_request(self, _method, _query, body):
        asked = json.loads(body)
        self.asked.append(asked)
        if asked["id"] in self.granted:
            return 200, self.granted[asked["id"]]
        for each in self.waiting:
            target = each["JobTarget"]
            if each["StartTime"] > time.time() or each.get("ExpireTime", 1e12) <= time.time():
                continue
            if asked["location"] is not None and target["Location"] != asked["location"]:
                continue
            if asked["port"] is not None and target["Port"] != asked["port"]:
                continue
            self.waiting.remove(each)
            self.granted[asked["id"]] = each
            self.statuses[each["id"]] = "Pending"
            return 200, each
        return 204, None

    def on_output(self, _method, query, body):
        return self._row(query, body, query["kind"], "Done" if query["final"] == "true" else None)

    def on_error(self, _method, query, body):
        return self._row(query, body, "text", "Error")

    def _row(self, query, body, kind, end):
        uid = query["job"]
        if uid not in self.statuses:
            return 200, {"dropped": True}
        rows = self.rows[uid]
        late = self.statuses[uid] in ("Done", "Error")
        if query["row"] not in [row["row"] for row in rows]:
            rows.append({"row": query["row"], "body": body, "kind": kind, "late": late, "end": end})
            if not late:
                self.statuses[uid] = end or "Active"
        return 200, {"row": len(rows), "late": late}

    def on_status(self, method, query, body):
        uid = query["job"]
        if uid not in self.statuses:
            return 404, {"error": "job %s is not known" % uid}
        if method == "POST":
            self.statuses[uid] = json.loads(body)["status"]
        return 200, {"status": self.statuses[uid]}

    def on_telemetry(self, _method, _query, body):
        document = json.loads(body)
        if document["location"] not in self.targets:
            return 404, {"error": "no such target"}
        self.telemetry.append(document)
        return 204, None

    def on_tracker(self, method, _query, body):
        if method == "PUT":
            self.tracker = json.loads(body)
            return 204, None
        return (200, self.tracker) if self.tracker is not None else (404, {"error": "nothing kept"})


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, *_):
        """Clients that go away are part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        with self.server.stand_in.lock:
            self.server.stand_in.connections += 1

    def log_message(self, *_):
        pass

    def _serve(self):
        stand_in = self.server.stand_in
        address = urllib.parse.urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        query = dict(urllib.parse.parse_qsl(address.query, keep_blank_values=True))
        with stand_in.changed:
            faults, replies = stand_in.faults[address.path], stand_in.replies[address.path]
            fault = faults.popleft() if faults else None
            raw = replies.popleft() if replies else None
            stand_in.changed.notify_all()
        self.close_connection = self.close_connection or fault is not None or raw is not None
        if raw is not None:
            self.wfile.write(raw)
        elif fault == HANG:
            stand_in.closing.wait()
        elif fault == BUSY:
            self._answer(503, {"error": "not now"})
        elif fault != DROP:
            handle = getattr(stand_in, "on_" + address.path.rpartition("/")[2])
            with stand_in.changed:
                status, document = handle(self.command, query, body)
                stand_in.changed.notify_all()
            if fault != LOSE:
                self._answer(status, document, cut=fault == CUT)

    do_GET = do_POST = do_PUT = _serve

    def _answer(self, status, document, cut=False):
        data = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if cut else data)
