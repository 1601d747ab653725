"""HTTP/1.1 over a Unix socket: one exchange at a time, a connection per thread.

Knows nothing of jobs. What comes back is foreign: bounded in length and in time, and anything
that is not a whole answer is Unanswered, never another exception.
"""

import http.client
import os
import socket
import threading
import time

# Longer answers are broken ones. A job's document has at most 1.5 MiB in the API server.
MOST_ANSWER_BYTES = 16 * 1024 * 1024
# Pause before the second try; doubled for each further one.
_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 1.0
# Statuses that say "not now". All from 500 on do as well.
_NOT_NOW = frozenset((408, 425, 429))


class Unanswered(Exception):
    """No whole, definitive answer came in time. What was asked may or may not have been done."""


class NotNow(Unanswered):
    """The other side is there and says that it cannot answer at this time."""


class Wire:
    """Talks to one socket. Safe for use by many threads, and after a fork."""

    def __init__(self, path, on_trouble=lambda trouble: None):
        """on_trouble: told of each Unanswered that a further try at once did not mend."""
        self.path = path
        self._on_trouble = on_trouble
        self._of_thread = threading.local()

    def call(self, method, target, body=b"", kind="application/json", seconds=1.0, patience=None):
        """Sends a request until it is answered, and returns (status, body).

        seconds: how long new tries are begun.
        patience: how long, from the beginning, an answer is waited for; `seconds` when absent.
        The same request may reach the other side more than once.
        """
        begin = time.monotonic()
        give_up = begin + (seconds if patience is None else patience)
        pause = _FIRST_PAUSE_SECONDS
        while True:
            kept = self._kept()
            try:
                return self._exchange(kept, method, target, body, kind, give_up)
            except Unanswered as trouble:
                # A kept connection may have been closed by the other side long ago.
                if kept is not None and not isinstance(trouble, NotNow):
                    continue
                self._on_trouble(trouble)
                time.sleep(max(0.0, min(pause, begin + seconds - time.monotonic())))
                if time.monotonic() >= begin + seconds:
                    raise
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def close(self):
        """Closes this thread's connection, if it has one."""
        kept = self._kept()
        self._of_thread.connection = None
        if kept is not None:
            kept.close()

    def _kept(self):
        """This thread's open connection, or None."""
        connection = getattr(self._of_thread, "connection", None)
        # After a fork the connection belongs to the parent.
        if connection is None or connection.sock is None or connection.process != os.getpid():
            return None
        return connection

    def _exchange(self, connection, method, target, body, kind, give_up):
        connection = connection or _Connection(self.path)
        connection.allow_until(give_up)
        self._of_thread.connection = None
        whole = False
        try:
            status, answer = _talk(connection, method, target, body, kind)
            whole = True
        except Unanswered:
            raise
        except Exception as trouble:
            # http.client lets through what it stumbled over: OSError, HTTPException, ValueError,
            # AssertionError. For foreign bytes they all mean the same.
            name = type(trouble).__name__
            raise Unanswered("%s: %s" % (name, trouble) if str(trouble) else name) from trouble
        finally:
            # Also on the way out of a signal handler: a half-read connection must not be used.
            if not whole:
                connection.close()
        self._of_thread.connection = connection
        if status >= 500 or status in _NOT_NOW:
            raise NotNow("status %d: %s" % (status, excerpt(answer)))
        return status, answer


def excerpt(data, most=200):
    """The beginning of foreign bytes as one printable line."""
    text = data[:most].decode("utf-8", "replace")
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _talk(connection, method, target, body, kind):
    headers = {"Content-Type": kind, "Content-Length": str(len(body))}
    try:
        connection.request(method, target, body=body or None, headers=headers)
    except (BrokenPipeError, ConnectionResetError):
        # The other side may have answered and closed before it took everything. http.client
        # counts the request as sent once its head is complete, so the answer can be read.
        if connection.sock is None:
            raise
    response = connection.getresponse()
    answer = response.read(MOST_ANSWER_BYTES + 1)
    if len(answer) > MOST_ANSWER_BYTES:
        raise Unanswered("the answer is longer than %d bytes" % MOST_ANSWER_BYTES)
    if response.length:
        raise Unanswered("the answer ends %d bytes early" % response.length)
    return response.status, answer


class _Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("sidecar")
        self.path = path
        self.process = os.getpid()
        self.give_up = 0.0

    def __del__(self):
        # A thread that ends leaves its connection behind.
        self.close()

    def allow_until(self, give_up):
        """The time, by the monotonic clock, at which the exchange has to be over."""
        self.give_up = give_up
        if self.sock is not None:
            self.sock.give_up = give_up

    def connect(self):
        opened = _TimedSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.give_up = self.give_up
        try:
            opened.allow()
            opened.connect(self.path)
        except BaseException:
            opened.close()
            raise
        self.sock = opened


class _TimedSocket(socket.socket):
    """Each step may take what is left of the whole exchange's time, not its own measure anew."""

    give_up = 0.0

    def allow(self):
        """Sets the time-out of the next step."""
        left = self.give_up - time.monotonic()
        if left <= 0:
            raise socket.timeout("no answer in time")
        self.settimeout(left)

    def recv_into(self, *arguments):
        self.allow()
        return super().recv_into(*arguments)

    def sendall(self, *arguments):
        self.allow()
        return super().sendall(*arguments)
