"""A controller plugin for tests: it has no commands, and waits."""

import time

from src.controller_plugin import ControllerPlugin


class Empty(ControllerPlugin):
    def __init__(self):
        super().__init__("Empty", [])

    def _start(self):
        while True:
            time.sleep(60)
