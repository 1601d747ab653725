"""A controller plugin that does what each job says: its input is a script.

The script sees `self` (the plugin), `job` (the PCP document), `value` (the second input) and
`memory` (a dict that lives as long as the process). Every job is written down before its script
runs, so that a story can ask what reached a plugin.
"""

import json
import os
import threading
import time

from src.controller_plugin import ControllerPlugin


def text(name):
    return {"Name": name, "Type": "textbox", "Tooltip": name, "Value": ""}


COMMANDS = [
    {
        "CommandName": "act",
        "Tooltip": "Runs a script",
        "Output": True,
        "Inputs": [text("script"), text("value")],
    },
    {
        "CommandName": "echo",
        "Tooltip": "Gives back its input",
        "Output": True,
        "Inputs": [text("text")],
        "OptionalInputs": [text("ending")],
    },
]


def own_client():
    """The client that this pod asks for: CLIENT, or one of CLIENTS by the pod's ordinal."""
    clients = os.environ.get("CLIENTS")
    if clients is None:
        return os.environ.get("CLIENT", "")
    clients = clients.split(",")
    ordinal = int(os.environ["HOSTNAME"].split("-")[-2])
    return clients[ordinal % len(clients)]


class Actor(ControllerPlugin):
    def __init__(self):
        self.memory = {}
        super().__init__("Actor", COMMANDS)

    def _start(self):
        if os.environ.get("ON_START"):
            exec(os.environ["ON_START"], {"self": self, "memory": self.memory})
        client = own_client()
        while True:
            if client:
                job = self.request_job_for_client(client, str(self.port))
            else:
                job = self.request_job()
            if job:
                self.write_down(job)
                self.act(job)

    def act(self, job):
        command = job["JobCommand"]
        if command["CommandName"] == "echo":
            ending = self.value_of_option(job, "ending") or ""
            self.respond_output(job, command["Inputs"][0]["Value"] + ending)
            return
        names = {
            "self": self,
            "job": job,
            "value": command["Inputs"][1]["Value"],
            "memory": self.memory,
            "os": os,
            "time": time,
            "json": json,
            "threading": threading,
        }
        exec(command["Inputs"][0]["Value"], names)

    def write_down(self, job):
        diary = os.environ.get("DIARY")
        if not diary:
            return
        entry = {
            "id": job["id"],
            "time": time.time(),
            "client": own_client(),
            "pod": os.environ.get("HOSTNAME", ""),
            "pid": os.getpid(),
        }
        name = "%s-%d" % (entry["pod"], entry["pid"])
        with open(os.path.join(diary, name), "a") as file:
            file.write(json.dumps(entry) + "\n")
            file.flush()
            os.fsync(file.fileno())


plugin = Actor()
