"""The plugins that other tests and the examples use, as processes against the stand-in."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

from tests.plugins import environment
from tests.stand_in import StandIn, job

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REPOSITORY = os.path.dirname(os.path.dirname(ROOT))
DIARY = os.path.join(REPOSITORY, "tests", "plugins", "python", "diary.py")
CONTROLLER = os.path.join(REPOSITORY, "examples", "pcp")


def work(number, mode, amount="3", text="", location=""):
    """A job for the diary plugin."""
    document = job(number, location)
    document["JobCommand"]["CommandName"] = "work"
    document["JobCommand"]["Inputs"] = [{"Name": "seconds", "Value": "0"}]
    document["JobCommand"]["OptionalInputs"] = [
        {"Name": "mode", "Value": mode}, {"Name": "amount", "Value": amount}, {"Name": "text", "Value": text}]
    return document


class Diaries(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.diary = os.path.join(folder.name, "diary")
        self.stand_in = StandIn()
        self.stand_in.__enter__()
        self.addCleanup(self.stand_in.__exit__)

    def run_until(self, condition, jobs, **variables):
        """Runs the plugin until the condition is true or it ends; returns its exit status."""
        self.stand_in.waiting.extend(jobs)
        env = environment(self.stand_in.path, PYTHONPATH=ROOT, PATCHBAY_PLUGIN_PATH=DIARY, PLUGIN="Diary",
                          DIARY=self.diary, HOSTNAME="pod-0", PYTHONDONTWRITEBYTECODE="1", **variables)
        with subprocess.Popen([sys.executable, "-m", "src.run"], env=env, cwd="/", stderr=subprocess.PIPE,
                              universal_newlines=True) as process:
            if condition:
                self.assertTrue(self.stand_in.until(condition, 20))
                process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=30)
        self.said = said
        return process.returncode

    def entries(self):
        with open(self.diary, encoding="utf-8") as opened:
            return [json.loads(line) for line in opened]

    def status_of(self, document):
        return self.stand_in.statuses.get(document["id"])

    def bodies(self, document):
        return [row["body"] for row in self.stand_in.rows[document["id"]]]

    def test_each_mode_gives_what_it_says(self):
        jobs = {mode: work(number, mode, "600", "t") for number, mode in enumerate(
            ("done", "big", "bytes", "none", "error", "late", "twice", "thread", "silent", "end"), 1)}
        jobs["parts"] = work(0, "parts", "3", "t")
        status = self.run_until(None, sorted(jobs.values(), key=lambda each: each["StartTime"]))
        self.assertEqual(status, 0, self.said)
        self.assertEqual({mode: self.status_of(each) for mode, each in jobs.items()}, {
            "parts": "Done", "done": "Done", "big": "Done", "bytes": "Done", "none": "Pending", "error": "Error",
            "late": "Error", "twice": "Done", "thread": "Done", "silent": "Pending", "end": "Done"})
        self.assertEqual(self.bodies(jobs["parts"]), [b"part 1", b"part 2", b"part 3", b"t"])
        self.assertEqual(self.bodies(jobs["late"]), [b"t", b"after the error"])
        self.assertEqual(len(self.bodies(jobs["big"])[0]), 600)
        self.assertEqual(self.bodies(jobs["bytes"])[0], bytes(range(256)) * 2 + bytes(range(88)))
        self.assertEqual([each["seq"] for each in self.entries()], list(range(1, 12)))
        self.assertEqual({each["pod"] for each in self.entries()}, {"pod-0"})

    def test_a_job_is_written_down_before_the_process_dies_of_it(self):
        for number, (mode, status) in enumerate((("crash", 3), ("kill", -9), ("raise", 1), ("track", 3)), 1):
            self.assertEqual(self.run_until(None, [work(number, mode)]), status, self.said)
            self.assertEqual(self.entries()[-1]["id"], work(number, mode)["id"])
        tracked = work(4, "track")
        self.assertEqual(self.status_of(tracked), "Pending")
        self.run_until(lambda: self.status_of(tracked) == "Done", [])
        self.assertEqual(self.bodies(tracked), [b"recovered"])
        self.assertEqual(len(self.entries()), 4, "what is recovered was not received again")

    def test_threads_and_locations_share_the_jobs(self):
        mine = [work(number, "done", location="10.0.0.%d" % (number % 2 + 1)) for number in range(1, 31)]
        other = work(99, "done", location="10.0.0.3")
        status = self.run_until(
            lambda: all(self.status_of(each) == "Done" for each in mine), mine + [other],
            DIARY_THREADS="4", DIARY_LOCATIONS="10.0.0.1,10.0.0.2")
        self.assertEqual(status, 0, self.said)
        self.assertEqual(sorted(each["id"] for each in self.entries()), sorted(each["id"] for each in mine))
        self.assertTrue(all(each["client"] == each["location"] for each in self.entries()))
        self.assertIsNone(self.status_of(other))


class Examples(unittest.TestCase):
    def test_the_manifests_hold_the_files_as_they_are(self):
        for name, manifest in (("scraper.py", "scraper.yaml"), ("worker.py", "workers.yaml")):
            with open(os.path.join(CONTROLLER, manifest), encoding="utf-8") as opened:
                block = re.search(r"^  %s: \|\n((?:    .*\n|\n)+)" % re.escape(name), opened.read(), re.M)
            self.assertIsNotNone(block, name)
            lines = block.group(1).splitlines(True)
            inside = "".join(line[4:] if line.strip() else "\n" for line in lines)
            with open(os.path.join(CONTROLLER, name), encoding="utf-8") as opened:
                self.assertEqual(inside, opened.read(), "run examples/pcp/embed.sh")

    def test_a_worker_answers_our_scraper_with_its_own_address(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        mine = [job(number, "127.0.0.1", str(port)) for number in (2, 1)]
        with StandIn(mine) as stand_in:
            env = environment(stand_in.path, PYTHONPATH=ROOT, PATCHBAY_PLUGIN_PATH=CONTROLLER, PORT=str(port),
                              PLUGIN="Scraper", PYTHONDONTWRITEBYTECODE="1")
            plugin = subprocess.Popen([sys.executable, "-m", "src.run"], env=env, stderr=subprocess.DEVNULL, cwd="/")
            worker = subprocess.Popen([sys.executable, os.path.join(CONTROLLER, "worker.py"), "127.0.0.1", str(port)],
                                      stdout=subprocess.DEVNULL)
            try:
                done = lambda: [stand_in.statuses.get(each["id"]) for each in mine] == ["Done", "Done"]
                self.assertTrue(stand_in.until(done, 20))
            finally:
                for process in (plugin, worker):
                    process.kill()
                    process.wait()
            answers = [stand_in.rows[job(number)["id"]][0]["body"].decode().split("\n") for number in (1, 2)]
            for number, lines in enumerate(answers, 1):
                self.assertEqual(lines[0], "target v%d" % number)
                self.assertRegex(lines[1], r"^worker 127\.0\.0\.1 on ")
            self.assertLess(answers[0][2], answers[1][2], "by their start, not as they were listed")


if __name__ == "__main__":
    unittest.main()
