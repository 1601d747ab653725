"""A controller plugin as the guide of the PCP job queue teaches it: module and class of one name,
an instance made at import, a control loop without argument, its own listener on localhost, and
the address that accept() gave as the location."""

from src.controller_plugin import ControllerPlugin
import socket

FETCH = {
    "CommandName": "fetch",
    "Tooltip": "Fetches what a client sees",
    "Output": True,
    "Inputs": [{"Name": "Target", "Type": "textbox", "Tooltip": "What to fetch", "Value": ""}],
}
FUNCTIONALITY = [FETCH]


class Sample(ControllerPlugin):
    def __init__(self):
        self.name = "Sample"
        super().__init__(self.name, FUNCTIONALITY)

    def _start(self):
        self.s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.s.bind(("localhost", self.port))
        self.s.listen(1)
        while True:
            conn, client_addr = self.s.accept()
            job = self.request_job_for_client(client_addr, str(self.port))
            if job:
                target = job["JobCommand"]["Inputs"][0]["Value"]
                print("fetching", target, flush=True)
                self.respond_output(job, "")


plugin = Sample()
