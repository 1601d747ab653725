"""A controller plugin for tests: each job says what to do with it. Files in the working directory
are how a test and this process wait for each other."""

import json
import os
import signal
import time

from src.controller_plugin import ControllerPlugin


def text_input(name):
    return {"Name": name, "Type": "textbox", "Tooltip": name, "Value": ""}


# Without the key OptionalInputs.
FUNCTIONALITY = [
    {
        "CommandName": "step",
        "Tooltip": "Does one thing",
        "Output": True,
        "Inputs": [text_input("What"), text_input("Argument")],
    }
]


def note(name, text=""):
    with open(name + ".new", "w", encoding="utf-8") as opened:
        opened.write(text)
    os.rename(name + ".new", name)


def wait_for(name):
    while not os.path.exists(name):
        time.sleep(0.01)


class Steps(ControllerPlugin):
    def __init__(self):
        super().__init__("Steps", FUNCTIONALITY)

    def _start(self):
        self.recover()
        for job_id in sorted(self.tracked_jobs):
            self.respond_output({"id": job_id}, "answered by the next process")
        self.tracked_jobs = {}
        self.record_tracker()
        while True:
            job = self.request_job()
            if not job:
                continue
            with open("diary", "a", encoding="utf-8") as diary:
                diary.write(job["id"] + "\n")
            what = self.value_of_input(job, 0)
            if getattr(self, "do_" + what)(job, self.value_of_input(job, 1)):
                return

    def _stop(self):
        note("stopped")
        raise SystemExit(0)

    def do_echo(self, job, argument):
        self.respond_output(job, argument)

    def do_kinds(self, job, _argument):
        for output in (42.42, 666, True):
            self.respond_output(job, output, transition_state=False)
        self.respond_output(job, b"\x00\xff")

    def do_nothing(self, job, _argument):
        for output in (None, {}):
            try:
                self.respond_output(job, output)
            except TypeError:
                continue
            raise AssertionError("%r was taken" % (output,))
        note("refused", self._status(job))
        wait_for("go")
        self.respond_output(job, "still mine")

    def _status(self, job):
        # The status of the sidecar's book, by the word that changes nothing.
        return self._update_job_status(job["id"], "Pending")

    def do_big(self, job, argument):
        self.respond_output(job, "0123456789abcde\n" * (int(argument) // 16))

    def do_parts(self, job, _argument):
        self.respond_output(job, "one", transition_state=False)
        wait_for("go")
        self.respond_output(job, "two", transition_state=False)
        self.respond_output(job, "three", transition_state=False)
        self.respond_output(job, "four")

    def do_fail(self, job, argument):
        self.respond_error(job, argument)

    def do_fail_then_answer(self, job, argument):
        self.respond_error(job, argument)
        self.respond_output(job, "too late")

    def do_tell(self, job, _argument):
        self.respond_output(job, json.dumps({"job": job, "arguments": self.get_args(job)}))

    def do_hold(self, job, _argument):
        note("holding", job["id"])
        wait_for("go")
        self.respond_output(job, "held")

    def do_die(self, job, _argument):
        note("holding", job["id"])
        os.kill(os.getpid(), signal.SIGKILL)

    def do_track_and_die(self, job, _argument):
        self.tracked_jobs[job["id"]] = {"what": "survives"}
        self.record_tracker()
        note("holding", job["id"])
        os.kill(os.getpid(), signal.SIGKILL)

    def do_telemetry(self, job, _argument):
        said = [self.send_telemetry("192.0.2.77")]
        location = job["JobTarget"]["Location"]
        said.append(self.send_telemetry(location, common={"Admin": True}))
        try:
            self.send_telemetry(location, common=1)
        except TypeError as error:
            said.append(type(error).__name__)
        self.respond_output(job, json.dumps(said))

    def do_level(self, job, _argument):
        self.respond_output(job, str(self.LOGGER.getEffectiveLevel()))

    def do_environment(self, job, _argument):
        names = ("PORT", "RETHINK_HOST", "STAGE", "PLUGIN_NAME", "PLUGIN_OWN", "PLUGIN", "LOGLEVEL")
        self.respond_output(job, json.dumps({name: os.environ.get(name) for name in names}))

    def do_return(self, job, _argument):
        self.respond_output(job, "the last one")
        return True
