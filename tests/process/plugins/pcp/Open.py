"""A controller plugin for tests: listens at every address by itself and tells each client who it
is."""

import socket

from src.controller_plugin import ControllerPlugin


class Open(ControllerPlugin):
    def __init__(self):
        super().__init__("Open", [{"CommandName": "x", "Tooltip": "", "Output": False}])

    def _start(self):
        with socket.socket() as listener:
            listener.bind(("0.0.0.0", self.port))
            listener.listen(1)
            while True:
                client, address = listener.accept()
                with client:
                    client.sendall(address[0].encode())
