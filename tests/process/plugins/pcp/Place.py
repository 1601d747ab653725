"""A controller plugin for tests: asks for one client's jobs, which it names in the way FORM says."""

import os

from src.controller_plugin import ControllerPlugin

FORMS = {
    "tuple": (("10.1.2.3", 51515), "10000"),
    "text": ("10.1.2.3", 10000),
    "mapped": ("::ffff:10.1.2.3", "10000"),
    "sixth": (("fe80::1%eth0", 51515, 0, 2), None),
}


class Place(ControllerPlugin):
    def __init__(self):
        command = {"CommandName": "go", "Tooltip": "", "Output": False, "Inputs": []}
        super().__init__("Place", [command])

    def _start(self, *_arguments):
        while True:
            job = self.request_job_for_client(*FORMS[os.environ["FORM"]])
            if job:
                self.respond_output(job, "here")
