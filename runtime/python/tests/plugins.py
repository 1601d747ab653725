"""Plugins and environments for the tests."""

import os
import unittest
from unittest import mock

from src.controller_plugin import ControllerPlugin
from tests.stand_in import StandIn

FETCH = {
    "CommandName": "fetch", "Tooltip": "Fetches a page", "Output": True,
    "Inputs": [{"Name": "Target", "Type": "textbox", "Tooltip": "What to fetch", "Value": ""}],
    "OptionalInputs": [],
}


class Plain(ControllerPlugin):
    """A plugin whose control loop ends at once."""

    def __init__(self, functionality=(FETCH,)):
        super().__init__("Plain", list(functionality))
        self.loops = []

    def _start(self, *args):
        self.loops.append(args)


def environment(path, **more):
    """What the sidecar gives a plugin."""
    return dict({
        "PORT": "10000", "PLUGIN_NAME": "scraper", "STAGE": "TESTING",
        "RETHINK_HOST": "127.0.0.1", "PATCHBAY_JOBS_SOCKET": path,
    }, **more)


class WithStandIn(unittest.TestCase):
    """Each test has a stand-in and a process environment that names it."""

    jobs = ()

    def setUp(self):
        self.stand_in = StandIn(self.jobs)
        self.stand_in.__enter__()
        self.addCleanup(self.stand_in.__exit__)
        patch = mock.patch.dict(os.environ, environment(self.stand_in.path))
        patch.start()
        self.addCleanup(patch.stop)

    def have(self, *jobs):
        """Jobs that wait from now on."""
        with self.stand_in.lock:
            self.stand_in.waiting.extend(jobs)
            self.stand_in.waiting.sort(key=lambda each: each["StartTime"])

    def rows(self, job):
        """(content, kind, late) of each row of a job."""
        return [(row["body"], row["kind"], row["late"]) for row in self.stand_in.rows[job["id"]]]
