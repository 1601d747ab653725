"""A controller plugin for tests of faults: it writes down every job that reaches it.

The diary is written and forced to disk before any work begins, so that it knows of a job even
when the process is killed right after the hand-over. One job is one line of JSON: id, name of
the command, time of receipt in seconds since 1970, location that the job is for, client that
was asked for, seq within the process, pod and pid.

Environment
  DIARY            file to append to, or a folder in which each process has a file; "-" is
                   standard output
  DIARY_LOCATIONS  clients to ask for, one after the other, separated by commas; any when empty
  DIARY_THREADS    so many threads ask at a time (1)
  DIARY_PAUSE      seconds between two requests that gave nothing (0: a loop without sleep)

Modes of a job (optional input "mode")
  done     the optional input "text" as output; also when no mode is named
  parts    as many parts as "amount" says, then the end
  big      text of "amount" bytes
  bytes    "amount" bytes, NUL and invalid UTF-8 among them
  none     None as output, which is refused; the job stays claimed
  error    "text" as error
  late     "text" as error, then output
  twice    output, then output again
  silent   no answer, ever
  crash    the process exits at once with status 3
  kill     the process kills itself with SIGKILL
  raise    the control loop fails with an exception
  end      the control loop returns
  track    tracked_jobs is recorded, then crash; the next process answers "recovered"
  thread   answers from a thread of its own while the loop goes on
"""

import json
import os
import queue
import signal
import sys
import threading
import time

from src.controller_plugin import ControllerPlugin


def _input(name, value):
    return {"Name": name, "Type": "textbox", "Tooltip": name, "Value": value}


COMMANDS = [
    {
        "CommandName": "work",
        "Tooltip": "Works for a time, then does what the mode says",
        "Output": True,
        "Inputs": [_input("seconds", "0")],
        "OptionalInputs": [_input("mode", "done"), _input("amount", "3"), _input("text", "")],
    }
]


def big_text(amount):
    """The text of the mode `big`; a test knows its digest from this."""
    return ("0123456789abcdef" * (amount // 16 + 1))[:amount]


def odd_bytes(amount):
    """The bytes of the mode `bytes`."""
    return (bytes(range(256)) * (amount // 256 + 1))[:amount]


class Book:
    """The diary file."""

    def __init__(self, path, pod):
        if os.path.isdir(path):
            path = os.path.join(path, "%s-%d" % (pod or "process", os.getpid()))
        self._file = 1 if path == "-" else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._pod = pod
        self._lock = threading.Lock()
        self._seq = 0

    def write(self, job, client):
        """Returns when the line is on disk."""
        now = time.time()
        with self._lock:
            self._seq += 1
            line = json.dumps({
                "id": job["id"],
                "name": job["JobCommand"]["CommandName"],
                "time": now,
                "location": job["JobTarget"]["Location"],
                "client": client or "",
                "seq": self._seq,
                "pod": self._pod,
                "pid": os.getpid(),
            }).encode() + b"\n"
            # One write for a line: other processes may append to the same file.
            if os.write(self._file, line) != len(line):
                raise OSError("the diary took a part of a line only")
            if self._file != 1:
                os.fsync(self._file)


class Diary(ControllerPlugin):
    def __init__(self):
        super().__init__("Diary", COMMANDS)
        self.locations = [each for each in os.environ.get("DIARY_LOCATIONS", "").split(",") if each]
        self.threads = int(os.environ.get("DIARY_THREADS") or 1)
        self.pause = float(os.environ.get("DIARY_PAUSE") or 0)

    def _start(self):
        self.book = Book(os.environ["DIARY"], os.environ.get("HOSTNAME", ""))
        self.answer_for_the_one_before()
        if self.threads == 1:
            self.work()
            return
        ends = queue.Queue()
        for _ in range(self.threads):
            threading.Thread(target=self.work_in_thread, args=(ends,), daemon=True).start()
        trouble = ends.get()
        if trouble is not None:
            raise trouble

    def answer_for_the_one_before(self):
        """Ends the jobs that an earlier process had recorded."""
        self.recover()
        if self.tracked_jobs:
            for job in self.tracked_jobs.values():
                self.respond_output(job, "recovered")
            self.tracked_jobs = {}
            self.record_tracker()

    def work_in_thread(self, ends):
        try:
            ends.put(self.work())
        except BaseException as trouble:
            ends.put(trouble)

    def work(self):
        """Asks for jobs and does them, until one says that this is the end."""
        clients = self.locations or [None]
        while True:
            for client in clients:
                if client is None:
                    job = self.request_job()
                else:
                    job = self.request_job_for_client(client, str(self.port))
                if not job:
                    time.sleep(self.pause)
                    continue
                self.book.write(job, client)
                time.sleep(float(self.value_of_input(job, "seconds") or 0))
                if self.answer(job) == "end":
                    return

    def answer(self, job):
        """Does what the job's mode says, and returns the mode."""
        mode = self.value_of_option(job, "mode") or "done"
        text = self.value_of_option(job, "text") or ""
        amount = int(self.value_of_option(job, "amount") or 0)
        if mode == "parts":
            for number in range(1, amount + 1):
                self.respond_output(job, "part %d" % number, transition_state=False)
            self.respond_output(job, text)
        elif mode == "big":
            self.respond_output(job, big_text(amount))
        elif mode == "bytes":
            self.respond_output(job, odd_bytes(amount))
        elif mode == "none":
            try:
                self.respond_output(job, None)
            except TypeError:
                return mode
            raise AssertionError("None was taken as output")
        elif mode == "error":
            self.respond_error(job, text)
        elif mode == "late":
            self.respond_error(job, text)
            self.respond_output(job, "after the error")
        elif mode == "twice":
            self.respond_output(job, text)
            self.respond_output(job, "again")
        elif mode == "crash":
            os._exit(3)
        elif mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif mode == "raise":
            raise RuntimeError("as the job %s wanted" % job["id"])
        elif mode == "track":
            self.tracked_jobs[job["id"]] = job
            self.record_tracker()
            os._exit(3)
        elif mode == "thread":
            threading.Thread(target=self.respond_output, args=(job, text)).start()
        elif mode == "silent":
            pass
        else:
            if mode not in ("done", "end"):
                print("job %s has the unknown mode %r" % (job["id"], mode), file=sys.stderr)
            self.respond_output(job, text)
        return mode
