"""What a plugin asks of its sidecar, over the jobs socket.

Every call may reach the sidecar twice without harm: requests for work and rows of output carry
an id, the rest states a fact.
"""

import json
import logging
import os
import secrets
import threading
import time
import urllib.parse

from src.asks import Asks
from src.wire import Unanswered, Wire, excerpt

DEFAULT_SOCKET = "/patchbay/run/jobs.sock"
# A request for work begins no new try after this, so that None comes within a second when
# nobody is there.
REQUEST_SECONDS = 1.0
# The sidecar keeps a request for up to a second before it says that there is no job.
REQUEST_PATIENCE_SECONDS = 1.5
# For so long output is offered again to a sidecar that is away; it is swapped in a few seconds,
# and a crashed one is back after one to 45.
OUTPUT_SECONDS = 60.0
# Facts that are worth little when they are late.
NOTE_SECONDS = 1.0
# After an answer that came at once and was none: plugins may ask in a loop without sleep.
_REFUSED_PAUSE_SECONDS = 0.2


class Refused(Exception):
    """The sidecar understood the call and will not do it. Holds the HTTP status."""

    def __init__(self, status, sentence):
        super().__init__(sentence or "status %d" % status)
        self.status = status


class JobsClient:
    """The calls of one plugin process. Safe for many threads; connects when first used."""

    def __init__(self, path=None, logger=None):
        self._log = logger or logging.getLogger("plugin")
        self._asks = Asks()
        self._trouble_lock = threading.RLock()
        self._in_trouble = False
        self._wire = Wire(
            path or os.environ.get("PATCHBAY_JOBS_SOCKET") or DEFAULT_SOCKET, self._note_trouble)
        self.output_seconds = OUTPUT_SECONDS

    @property
    def path(self):
        """The socket's path."""
        return self._wire.path

    def close(self):
        """Closes the connection of the calling thread."""
        self._wire.close()

    def wait_until_there(self, seconds):
        """Waits for the sidecar. Raises Unanswered when it does not come in that time."""
        self._wire.call("GET", "/v1/health", seconds=seconds)

    def advertise(self, document):
        """Tells who the plugin is and what it can do. Raises Refused, Unanswered."""
        self._definitive("POST", "/v1/start", _json(document), self.output_seconds)

    def request(self, location, port):
        """The next job for that client, or None. location and port are None for any.

        Raises Refused only when the request itself is wrong (status 400), and nothing for a
        sidecar that is away, late or unintelligible.
        """
        key = (location, port)
        ask = self._asks.take(key)
        answered = False
        try:
            status, body = self._wire.call(
                "POST", "/v1/request",
                _json({"id": ask, "location": location, "port": port}),
                seconds=REQUEST_SECONDS, patience=REQUEST_PATIENCE_SECONDS,
            )
            job = _job(body) if status == 200 else None
            answered = True
        except Unanswered as trouble:
            # Also for an answer that makes no sense, of which the wire knows nothing.
            self._note_trouble(trouble)
            return None
        finally:
            if not answered:
                self._asks.put_back(key, ask)
        self._note_answer()
        if status == 400:
            raise Refused(status, _sentence(body))
        if status not in (200, 204):
            self._log.error("request for work refused: %s", _sentence(body) or status)
            time.sleep(_REFUSED_PAUSE_SECONDS)
        return job

    def row(self, job_id, content, kind, final):
        """Adds a row of output; with `final` the job is done. kind: "text" or "bytes".

        Offers it with the same row id until it is stored. Returns the sidecar's answer: a dict
        with "row" and "late", or "dropped", or "tooLarge". Raises Refused, Unanswered.
        """
        target = "/v1/output?" + urllib.parse.urlencode({
            "job": job_id, "row": secrets.token_hex(16),
            "final": "true" if final else "false", "kind": kind,
        })
        return self._definitive_document("POST", target, content, "application/octet-stream")

    def error(self, job_id, message):
        """Ends a job as failed, with a last row. message: bytes. Returns and raises as `row`."""
        query = urllib.parse.urlencode({"job": job_id, "row": secrets.token_hex(16)})
        return self._definitive_document("POST", "/v1/error?" + query, message, "text/plain")

    def status(self, job_id):
        """The job's status, or None when it is not known. Raises Refused, Unanswered."""
        return self._status_of("GET", job_id, b"")

    def set_status(self, job_id, status):
        """Writes a status and returns what it is then, or None when the job is not known."""
        return self._status_of("POST", job_id, _json({"status": status}))

    def telemetry(self, document):
        """Tells the state of a client. Returns whether such a target is known."""
        try:
            self._definitive("POST", "/v1/telemetry", _json(document), NOTE_SECONDS)
        except Refused as refusal:
            if refusal.status == 404:
                return False
            raise
        return True

    def put_tracker(self, document):
        """Keeps a document beyond the life of this process. Raises Refused, Unanswered."""
        self._definitive("PUT", "/v1/tracker", _json(document), self.output_seconds)

    def tracker(self):
        """The document kept last, or None. Raises Refused, Unanswered."""
        try:
            return self._definitive_document("GET", "/v1/tracker", b"", "application/json")
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise

    def _status_of(self, method, job_id, body):
        target = "/v1/status?" + urllib.parse.urlencode({"job": job_id})
        try:
            answer = self._definitive_document(method, target, body, "application/json")
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise
        status = answer.get("status")
        if not isinstance(status, str):
            raise Unanswered("an answer without a status")
        return status

    def _definitive_document(self, method, target, body, kind):
        status, answer = self._definitive(method, target, body, self.output_seconds, kind)
        return _document(answer) if status != 204 else {}

    def _definitive(self, method, target, body, seconds, kind="application/json"):
        status, answer = self._wire.call(method, target, body, kind, seconds=seconds)
        self._note_answer()
        if not 200 <= status < 300:
            raise Refused(status, _sentence(answer))
        return status, answer

    def _note_trouble(self, trouble):
        """Says once that the sidecar is away, however often it is asked."""
        with self._trouble_lock:
            known, self._in_trouble = self._in_trouble, True
        if not known:
            self._log.warning("the jobs socket %s gives no answer: %s", self.path, trouble)

    def _note_answer(self):
        if not self._in_trouble:
            return
        with self._trouble_lock:
            known, self._in_trouble = self._in_trouble, False
        if known:
            self._log.info("the jobs socket %s answers again", self.path)


def _json(document):
    return json.dumps(document, allow_nan=False).encode("utf-8")


def _document(data):
    """Foreign bytes as a dict, or Unanswered."""
    try:
        document = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise Unanswered("an answer that is no JSON (%s): %s" % (error, excerpt(data))) from error
    if not isinstance(document, dict):
        raise Unanswered("an answer that is no JSON object: %s" % excerpt(data))
    return document


def _job(data):
    """A job's document with everything that plugins reach into, or Unanswered."""
    job = _document(data)
    command = job.get("JobCommand")
    if not isinstance(job.get("id"), str) or not isinstance(command, dict):
        raise Unanswered("a job without id or JobCommand: %s" % excerpt(data))
    for key in ("Inputs", "OptionalInputs"):
        if not isinstance(command.setdefault(key, []), list):
            raise Unanswered("a job whose %s is no list: %s" % (key, excerpt(data)))
    return job


def _sentence(data):
    """The text of a refusal."""
    try:
        said = json.loads(data.decode("utf-8")).get("error")
    except (ValueError, RecursionError, AttributeError):
        said = None
    return excerpt(said.encode("utf-8", "replace"), 1000) if isinstance(said, str) else excerpt(data)
