"""Whatever comes out of the socket: None, a documented exception, and never anything else."""

import json
import random
import time
import unittest
from unittest import mock

from src import jobs_client
from tests.plugins import Plain, WithStandIn
from tests.stand_in import job

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


def ok(body):
    return OK % len(body) + body


ODD = [
    b"", b"\0", b"\xff" * 100, b"SSH-2.0-OpenSSH\r\n", b"HTTP/1.1", b"HTTP/1.1 \r\n\r\n",
    b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 99 low\r\n\r\n",
    b"HTTP/1.1 1000 high\r\n\r\n", b"HTTP/1.1 -1 x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nContent-Length: 9" + b"9" * 30 + b"\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 500 + b"\r\n{}", b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100000 + b"\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" * 50, b"HTTP/1.1 204 None\r\nContent-Length: 5\r\n\r\nhello",
    ok(b""), ok(b"null"), ok(b"[]"), ok(b"3"), ok(b'"x"'), ok(b"{"), ok(b"\xff\xfe"), ok(b"[" * 200000),
    ok(b'{"a":' * 50000), ok(b"{}"), ok(b'{"id":5,"JobCommand":{}}'), ok(b'{"id":"a","JobCommand":[]}'),
    ok(b'{"id":"a","JobCommand":{"Inputs":5}}'), ok(b'{"id":"a","JobCommand":{"OptionalInputs":null}}'),
    ok(b'{"status":5}'), ok(b'{"error":{}}'), ok(b'{"jobs":[]}'), ok(b'\xef\xbb\xbf{}'),
    b"HTTP/1.1 500 X\r\nContent-Length: 2\r\n\r\nno", b"HTTP/1.1 302 X\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 400 X\r\nContent-Length: 3\r\n\r\n\xff\xff\xff", b"HTTP/1.1 404 X\r\nContent-Length: 2\r\n\r\n[]",
    b'HTTP/1.1 400 X\r\nContent-Length: 11\r\n\r\n{"error":5}', b"HTTP/1.1 418 X\r\nContent-Length: 0\r\n\r\n",
]


class ForeignBytes(WithStandIn):
    def setUp(self):
        super().setUp()
        for name, seconds in (("OUTPUT_SECONDS", 0.01), ("NOTE_SECONDS", 0.01), ("REQUEST_SECONDS", 0.01),
                              ("REQUEST_PATIENCE_SECONDS", 1.0), ("_REFUSED_PAUSE_SECONDS", 0.0)):
            patch = mock.patch.object(jobs_client, name, seconds)
            patch.start()
            self.addCleanup(patch.stop)
        self.plugin = Plain()
        self.held = job(1)
        self.stand_in.statuses[self.held["id"]] = "Pending"
        self.calls = {
            "/v1/request": self.plugin.request_job,
            "/v1/output": lambda: self.plugin.respond_output(self.held, "x"),
            "/v1/error": lambda: self.plugin.respond_error(self.held, "x"),
            "/v1/status": lambda: self.plugin._update_job(self.held["id"]),
            "/v1/telemetry": lambda: self.plugin.send_telemetry("10.0.0.1"),
            "/v1/tracker": self.plugin.recover,
            "/v1/start": self.plugin._advertise_functionality,
        }

    def call_with(self, path, data):
        """Makes one call that is answered with these bytes; each further try is, too."""
        for _ in range(3):
            self.stand_in.reply(path, data)
        try:
            return self.calls[path]()
        except ValueError:
            return None
        finally:
            self.stand_in.replies.clear()

    def test_odd_answers_end_in_none_or_a_value_error(self):
        with self.assertLogs("plugin", "DEBUG"):
            for path in self.calls:
                for data in ODD:
                    with self.subTest(path=path, data=data[:60]):
                        got = self.call_with(path, data)
                        if path == "/v1/request":
                            self.assertIsNone(got)

    def test_damaged_answers_never_become_another_job(self):
        chance = random.Random(4)
        good = bytearray(ok(json.dumps(job(7)).encode()))
        self.stand_in.statuses.clear()
        with self.assertLogs("plugin", "DEBUG"):
            for round_ in range(400):
                data = bytearray(good)
                for _ in range(chance.randrange(1, 6)):
                    at = chance.randrange(len(data))
                    kind = chance.randrange(3)
                    if kind == 0:
                        data[at] = chance.randrange(256)
                    elif kind == 1:
                        del data[at:at + chance.randrange(1, 20)]
                    else:
                        data[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 20)))
                got = self.call_with("/v1/request", bytes(data))
                if got is not None:
                    self.assertIsInstance(got["id"], str, round_)
                    self.assertIsInstance(got["JobCommand"]["Inputs"], list, round_)
                    self.assertIsInstance(got["JobCommand"]["OptionalInputs"], list, round_)

    def test_an_answer_without_end_is_given_up(self):
        endless = b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n" + b" " * (17 << 20)
        begin = time.monotonic()
        with self.assertLogs("plugin", "WARNING") as logs:
            self.assertIsNone(self.call_with("/v1/request", endless))
        self.assertLess(time.monotonic() - begin, 10)
        self.assertIn("longer than", logs.output[0])

    def test_an_intelligible_answer_after_nonsense_is_taken_with_the_same_id(self):
        self.have(job(2))
        with self.assertLogs("plugin", "WARNING"):
            self.assertIsNone(self.call_with("/v1/request", ok(b"{}")))
        self.assertEqual(self.plugin.request_job()["id"], job(2)["id"])


if __name__ == "__main__":
    unittest.main()
