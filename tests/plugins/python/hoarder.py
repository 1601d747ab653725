"""A controller plugin for measurements: the output of a job is the time at which it came.

It is written in seconds since 1970, to the microsecond.

Environment
  HOARD_THREADS  so many threads ask at a time (1)
  HOARD_SECONDS  jobs are kept, and answered once none has come for so long, so that their answers
                 do not disturb what is measured (0: answered at once)
"""

import collections
import os
import threading
import time

from src.controller_plugin import ControllerPlugin

COMMANDS = [
    {
        "CommandName": "stamp",
        "Tooltip": "Says when it came",
        "Output": True,
        "Inputs": [],
        "OptionalInputs": [],
    }
]


class Hoarder(ControllerPlugin):
    def __init__(self):
        self.quiet = float(os.environ.get("HOARD_SECONDS", "0"))
        self.kept = collections.deque()
        self.last = 0.0
        super().__init__("Hoarder", COMMANDS)

    def _start(self):
        others = int(os.environ.get("HOARD_THREADS", "1")) - 1
        for _ in range(others):
            threading.Thread(target=self.ask, daemon=True).start()
        self.ask()

    def ask(self):
        while True:
            job = self.request_job()
            came = time.time()
            if job:
                self.last = time.monotonic()
                self.kept.append((job, came))
            if time.monotonic() - self.last >= self.quiet:
                self.answer()

    def answer(self):
        """Answers what is kept; any number of threads may do so at the same time."""
        while True:
            try:
                job, came = self.kept.popleft()
            except IndexError:
                return
            self.respond_output(job, "%.6f" % came)


plugin = Hoarder()
