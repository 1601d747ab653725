"""Ids of requests for work that got no definitive answer.

A job may have been handed over while the connection broke. The other side gives the same job
to the same id again, so the next request for the same client uses that id first: no job is
lost on the way, and none comes twice.
"""

import collections
import os
import secrets
import threading

# Clients whose requests hang at a time. Beyond it the oldest are forgotten; their jobs, if
# there were any, end by their own deadline.
MOST_KEYS = 10000


class Asks:
    """The pool of ids, by (location, port). Safe for many threads, and after a fork."""

    def __init__(self):
        self._begin()

    def _begin(self):
        self._process = os.getpid()
        # Re-entrant: a signal handler may answer a job in the middle of a request.
        self._lock = threading.RLock()
        self._open = collections.OrderedDict()

    def take(self, key):
        """An id for a request: one whose outcome is unknown, else a new one.

        Nobody else gets it until it is put back.
        """
        self._mind_fork()
        with self._lock:
            ids = self._open.get(key)
            if not ids:
                return secrets.token_hex(16)
            taken = ids.popleft()
            if not ids:
                del self._open[key]
            return taken

    def put_back(self, key, ask):
        """Keeps an id whose request got no definitive answer."""
        self._mind_fork()
        with self._lock:
            self._open.setdefault(key, collections.deque()).append(ask)
            self._open.move_to_end(key)
            while len(self._open) > MOST_KEYS:
                self._open.popitem(last=False)

    def count(self):
        """How many ids are kept."""
        with self._lock:
            return sum(len(ids) for ids in self._open.values())

    def _mind_fork(self):
        # With the parent's ids a child would be given the parent's jobs.
        if self._process != os.getpid():
            self._begin()
