"""A controller plugin whose work is done by programs that connect to it.

Workers sit wherever a page has to be fetched from, and connect here in their own way: one line
with the target to them, lines of text back, an empty line or the end of the connection closes
the answer. They know nothing of Kubernetes, and no job. Which worker fetches is part of the
job: its target.client is the worker's address.
"""

import socket

from src.controller_plugin import ControllerPlugin

# A worker that takes longer has failed, and the next one's turn comes.
ANSWER_SECONDS = 30
# Longer answers are cut here.
MOST_BYTES = 1024 * 1024

FUNCTIONALITY = [
    {
        "CommandName": "fetch",
        "Tooltip": "Lets one worker fetch a target, as seen from where that worker is",
        "Output": True,
        "Inputs": [
            {
                "Name": "Target",
                "Type": "textbox",
                "Tooltip": "What to fetch, in one line, for example http://192.0.2.1/",
                "Value": "",
            }
        ],
        "OptionalInputs": [],
    }
]


class Scraper(ControllerPlugin):
    def __init__(self):
        super().__init__("Scraper", FUNCTIONALITY)

    def _start(self):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
            # Connections of the process before this one may not have faded yet.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("localhost", self.port))
            listener.listen(16)
            while True:
                worker, client_addr = listener.accept()
                with worker:
                    self.serve(worker, client_addr)

    def serve(self, worker, client_addr):
        """Gives a worker that connected its next job, if it has one."""
        job = self.request_job_for_client(client_addr, str(self.port))
        if not job:
            return
        target = job["JobCommand"]["Inputs"][0]["Value"]
        try:
            answer = ask(worker, target)
        except OSError as trouble:
            self.respond_error(job, "the worker at %s failed: %s" % (client_addr[0], trouble))
        else:
            self.respond_output(job, answer)


def ask(worker, target):
    """Sends the target as one line, and returns the lines that come back.

    Raises OSError when the worker goes away without an answer, or takes too long.
    """
    worker.settimeout(ANSWER_SECONDS)
    worker.sendall(" ".join(target.split()).encode("utf-8") + b"\n")
    received = b""
    while b"\n\n" not in received and len(received) < MOST_BYTES:
        part = worker.recv(65536)
        if not part:
            break
        received += part
    if not received:
        raise ConnectionError("it closed the connection without an answer")
    return received.partition(b"\n\n")[0][:MOST_BYTES].rstrip(b"\n").decode("utf-8", "replace")


plugin = Scraper()
