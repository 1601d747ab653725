"""The runner, as a process of its own."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest
import zipfile

from tests.plugins import environment
from tests.stand_in import StandIn, job

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EXAMPLES = os.path.join(ROOT, "..", "..", "examples", "pcp")

HEAD = "from src.controller_plugin import ControllerPlugin\n"


def plugin_source(name, loop="pass", tail="", base="ControllerPlugin"):
    """A plugin of that name; `loop` is the body of its control loop."""
    return HEAD + textwrap.dedent("""
        class {name}({base}):
            def __init__(self):
                super().__init__("{name}", [{{"CommandName": "c", "Tooltip": "", "Output": True}}])
            def _start(self):
                print("{name} runs", flush=True)
                {loop}
    """).format(name=name, loop=loop, base=base) + tail + "\n"


class Runner(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.plugins = os.path.join(self.folder, "plugins")
        os.mkdir(self.plugins)
        self.stand_in = StandIn()
        self.stand_in.__enter__()
        self.addCleanup(self.stand_in.__exit__)

    def put(self, path, content):
        full = os.path.join(self.plugins, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w", encoding="utf-8") as opened:
            opened.write(content)
        return full

    def start(self, path=None, **variables):
        env = environment(self.stand_in.path, PYTHONPATH=ROOT, PATCHBAY_PLUGIN_PATH=path or self.plugins,
                          PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1")
        env.update(variables)
        env = {key: value for key, value in env.items() if value is not None}
        return subprocess.Popen([sys.executable, "-m", "src.run"], env=env, cwd="/", stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, universal_newlines=True)

    def run_it(self, path=None, **variables):
        """(exit status, standard output, standard error) of a plugin that ends by itself."""
        with self.start(path, **variables) as process:
            try:
                out, said = process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, out, said

    def assert_runs(self, name, *arguments, **variables):
        status, out, said = self.run_it(*arguments, **variables)
        self.assertEqual((status, out), (0, name + " runs\n"), said)
        return said

    def assert_no_plugin(self, *words, **variables):
        status, out, said = self.run_it(**variables)
        self.assertEqual((status, out), (99, ""), said)
        lines = [line for line in said.splitlines() if line]
        self.assertEqual(len(lines), 1, said)
        for word in words:
            self.assertIn(word, lines[0])

    # -- which plugin

    def test_a_file_named_like_the_class_is_found(self):
        self.put("Scraper.py", plugin_source("Scraper"))
        self.put("other.py", "raise SystemExit('must not be imported')")
        said = self.assert_runs("Scraper", PLUGIN="Scraper")
        self.assertIn("Scraper from %s" % os.path.join(self.plugins, "Scraper.py"), said)

    def test_the_file_may_be_in_lower_case_and_beside_others(self):
        self.put("scraper.py", plugin_source("Scraper"))
        self.put("worker.py", "raise SystemExit('must not be imported')")
        self.assert_runs("Scraper", PLUGIN="Scraper", PLUGIN_NAME="anything")
        self.assert_runs("Scraper", PLUGIN=None, PLUGIN_NAME="scraper")

    def test_the_only_file_needs_no_name(self):
        self.put("main.py", plugin_source("Scraper"))
        self.assert_runs("Scraper", PLUGIN=None, PLUGIN_NAME="scraper-1")
        self.assert_runs("Scraper", PLUGIN="Scraper")

    def test_the_only_file_with_a_plugin_needs_no_name(self):
        self.put("code.py", plugin_source("Scraper"))
        self.put("tools.py", "raise SystemExit('must not be imported')")
        self.assert_runs("Scraper", PLUGIN=None, PLUGIN_NAME="x-1")

    def test_a_class_is_found_in_a_file_of_another_name(self):
        self.put("one.py", plugin_source("One"))
        self.put("two.py", plugin_source("Two"))
        self.assert_runs("Two", PLUGIN="Two")

    def test_a_single_file_may_be_the_path(self):
        path = self.put("Scraper.py", "import beside\n" + plugin_source("Scraper"))
        self.put("beside.py", "")
        self.assert_runs("Scraper", path, PLUGIN="Scraper")

    def test_packages_and_archives_hold_plugins(self):
        files = {"acme/__init__.py": "", "acme/deep/__init__.py": "", "acme/deep/code.py":
                 "from acme.deep import part\n" + plugin_source("Scraper"), "acme/deep/part.py": ""}
        archive = os.path.join(self.folder, "acme-1.0-py3-none-any.whl")
        with zipfile.ZipFile(archive, "w") as opened:
            for name, content in files.items():
                opened.writestr(name, content)
        self.assert_runs("Scraper", archive, PLUGIN="Scraper")
        os.link(archive, os.path.join(self.plugins, "acme.zip"))
        self.assert_runs("Scraper", PLUGIN="Scraper")
        os.unlink(os.path.join(self.plugins, "acme.zip"))
        for name, content in files.items():
            self.put(name, content)
        self.assert_runs("Scraper", PLUGIN="Scraper")

    def test_a_package_with_two_underscores_is_a_plugin(self):
        self.put("__Scraper/__init__.py", plugin_source("Scraper"))
        self.assert_runs("Scraper", PLUGIN="Scraper")

    def test_a_mounted_config_map_is_read_once(self):
        self.put("..2026_11_22/scraper.py", plugin_source("Scraper"))
        os.symlink("..2026_11_22", os.path.join(self.plugins, "..data"))
        os.symlink("..data/scraper.py", os.path.join(self.plugins, "scraper.py"))
        self.assert_runs("Scraper", PLUGIN=None, PLUGIN_NAME="x-1")

    def test_a_vendored_copy_of_the_base_class_is_passed_over(self):
        self.put("src/__init__.py", "")
        self.put("src/controller_plugin.py", "raise SystemExit('must not be imported')")
        self.put("Scraper.py", plugin_source("Scraper"))
        self.assert_runs("Scraper", PLUGIN="Scraper")

    def test_a_plugin_may_be_called_like_a_module_of_python(self):
        self.put("socket.py", plugin_source("Scraper"))
        self.assert_runs("Scraper", PLUGIN="Scraper")

    def test_an_instance_made_at_import_is_the_one_that_runs(self):
        count = textwrap.indent(textwrap.dedent("""
            def __init__(self):
                print("made", flush=True)
                super().__init__("Scraper", [{"CommandName": "c", "Tooltip": "", "Output": True}])
            def _start(self):
                print("runs", flush=True)
        """), "    ")
        for tail, out in (("plugin = Scraper()", "made\nruns\n"), ("", "made\nruns\n"),
                          ("a = b = Scraper()", "made\nruns\n"),
                          ("other = Scraper()\nplugin = Scraper()", "made\nmade\nruns\n")):
            self.put("Scraper.py", HEAD + "class Scraper(ControllerPlugin):" + count + tail + "\n")
            status, got, said = self.run_it(PLUGIN="Scraper")
            self.assertEqual((status, got), (0, out), said)

    def test_a_base_class_from_elsewhere_is_not_the_plugin(self):
        self.put("base.py", HEAD + "class Base(ControllerPlugin):\n    def _start(self):\n        1 / 0\n")
        path = self.put("x.py", "from base import Base\n" + plugin_source("Scraper", base="Base"))
        self.assert_runs("Scraper", path, PLUGIN=None, PLUGIN_NAME="y-1")

    # -- what is said when there is none

    def test_a_path_without_anything_is_told(self):
        self.assert_no_plugin("PATCHBAY_PLUGIN_PATH is /nowhere", "there is nothing", "expected a folder",
                              "ConfigMap", PATCHBAY_PLUGIN_PATH="/nowhere")

    def test_an_empty_folder_is_told(self):
        self.assert_no_plugin("PLUGIN is Scraper", "no Python module", "expected Scraper.py", PLUGIN="Scraper")
        self.assert_no_plugin("PLUGIN is not set", "no Python module", PLUGIN=None)

    def test_a_class_that_is_not_there_is_told(self):
        self.put("one.py", plugin_source("One"))
        self.put("two.py", plugin_source("Two"))
        self.assert_no_plugin("PLUGIN is Three", "one, two", "className", PLUGIN="Three")
        self.assert_no_plugin("PLUGIN is not set", "one, two", "exactly one", PLUGIN=None)
        os.unlink(os.path.join(self.plugins, "two.py"))
        self.assert_no_plugin("PLUGIN is Three", "holds One", "className", PLUGIN="Three")

    def test_a_name_that_is_none_is_told(self):
        self.put("one.py", plugin_source("One"))
        self.assert_no_plugin("PLUGIN is '../one'", "expected the name of a class", PLUGIN="../one")

    def test_a_class_without_a_control_loop_is_told(self):
        self.put("one.py", HEAD + "class One(ControllerPlugin):\n    pass\n")
        self.assert_no_plugin("implements _start", PLUGIN="One")

    def test_several_instances_are_told(self):
        self.put("one.py", plugin_source("One", tail="a = One()\nb = One()"))
        self.assert_no_plugin("makes 2 plugins", "a, b", PLUGIN="One")

    def test_a_broken_archive_is_told(self):
        self.put("x.zip", "text")
        self.assert_no_plugin("x.zip", "no zip archive", "binaryData", PLUGIN="One")

    def test_a_plugin_that_does_not_construct_its_base_is_told(self):
        self.put("one.py", HEAD + "class One(ControllerPlugin):\n    def __init__(self):\n        pass\n"
                 "    def _start(self):\n        pass\n")
        self.assert_no_plugin("super().__init__", PLUGIN="One")

    def test_a_module_that_is_missing_is_named_with_the_remedy(self):
        self.put("One.py", "import numpy_of_some_kind\n" + plugin_source("One"))
        status, _, said = self.run_it(PLUGIN="One")
        self.assertEqual(status, 1)
        self.assertIn("needs the module numpy_of_some_kind", said.splitlines()[-1])
        self.assertIn("Traceback", said)

    def test_a_plugin_that_fails_shows_its_traceback(self):
        self.put("One.py", plugin_source("One", loop="1 / 0"))
        status, out, said = self.run_it(PLUGIN="One")
        self.assertEqual((status, out), (1, "One runs\n"))
        self.assertIn("ZeroDivisionError", said)
        self.assertIn("One.py", said)
        self.put("One.py", "def broken(:\n")
        status, _, said = self.run_it(PLUGIN="One")
        self.assertEqual(status, 1)
        self.assertIn("SyntaxError", said)

    def test_a_missing_variable_is_named(self):
        self.put("One.py", plugin_source("One"))
        for name in ("PORT", "STAGE"):
            status, _, said = self.run_it(PLUGIN="One", **{name: None})
            self.assertEqual(status, 1)
            self.assertIn("the variable %s is not set" % name, said.splitlines()[-1])

    # -- the end

    def test_pcp_40_sigterm_runs_stop_and_exits_0(self):
        self.put("Scraper.py", HEAD + textwrap.dedent("""
            import socket
            class Scraper(ControllerPlugin):
                def __init__(self):
                    super().__init__("Scraper", [{"CommandName": "c", "Tooltip": "", "Output": True}])
                def _start(self):
                    with socket.socket() as listener:
                        listener.bind(("localhost", 0))
                        listener.listen(1)
                        print("listening", flush=True)
                        listener.accept()
                def _stop(self, **_):
                    print("stopping", flush=True)
            spare = Scraper()
            plugin = Scraper()
        """))
        with self.start(PLUGIN="Scraper") as process:
            self.assertEqual(process.stdout.readline(), "listening\n")
            process.send_signal(signal.SIGTERM)
            out, said = process.communicate(timeout=30)
        self.assertEqual((process.returncode, out), (0, "stopping\n"), said)

    def test_sigterm_ends_a_plugin_in_the_middle_of_a_request(self):
        self.put("Scraper.py", plugin_source("Scraper", loop="while True: self.request_job()"))
        self.stand_in.fault("/v1/request", *["hang"] * 50)
        with self.start(PLUGIN="Scraper") as process:
            self.assertEqual(process.stdout.readline(), "Scraper runs\n")
            self.assertTrue(self.stand_in.until(lambda: len(self.stand_in.faults["/v1/request"]) < 50))
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0, said)

    def test_a_stop_that_fails_is_told(self):
        self.put("Scraper.py", plugin_source("Scraper", loop="import time; time.sleep(60)", tail=(
            "def fail(self, **_):\n    raise OSError('cannot')\nScraper._stop = fail\n")))
        with self.start(PLUGIN="Scraper") as process:
            process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 1)
        self.assertIn("OSError: cannot", said)

    def test_nothing_is_written_beside_or_below_the_plugin(self):
        self.put("Scraper.py", plugin_source("Scraper", loop="self.request_job()"))
        before = sorted(os.walk(self.folder))
        self.assert_runs("Scraper", PLUGIN="Scraper", HOME="/nowhere")
        self.assertEqual(sorted(os.walk(self.folder)), before)


class Samples(unittest.TestCase):
    """Whole plugins against a worker that connects to them."""

    def go_through(self, path, plugin, command, talk):
        """Runs a plugin with one job for 127.0.0.1, and returns the rows of that job.

        talk: function(connection) that plays the worker.
        """
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        mine = job(1, "127.0.0.1", str(port))
        mine["JobCommand"]["CommandName"] = command
        other = job(2, "127.0.0.9", str(port), start=0)
        with StandIn([other, mine]) as stand_in:
            env = environment(stand_in.path, PYTHONPATH=ROOT, PATCHBAY_PLUGIN_PATH=path, PORT=str(port),
                              PLUGIN=plugin, PLUGIN_NAME=plugin, PYTHONDONTWRITEBYTECODE="1")
            with subprocess.Popen([sys.executable, "-m", "src.run"], env=env, cwd="/",
                                  stderr=subprocess.PIPE, universal_newlines=True) as process:
                try:
                    with self.connected(port, process) as connection:
                        talk(connection)
                        self.assertTrue(stand_in.until(lambda: stand_in.rows[mine["id"]]))
                finally:
                    process.send_signal(signal.SIGTERM)
                    _, said = process.communicate(timeout=30)
            self.assertEqual(process.returncode, 0, said)
            self.assertEqual(stand_in.statuses, {mine["id"]: "Done"})
            self.assertEqual([c["CommandName"] for c in stand_in.started[0]["commands"]], [command])
            self.assertEqual(stand_in.asked[0]["location"], "127.0.0.1")
            return stand_in.rows[mine["id"]]

    def connected(self, port, process):
        """A connection to the plugin's own listener, once it listens."""
        import socket

        deadline = time.monotonic() + 20
        while True:
            try:
                return socket.create_connection(("localhost", port), 10)
            except ConnectionRefusedError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def test_our_scraper_gives_a_worker_its_job_and_keeps_the_answer(self):
        asked = []

        def talk(connection):
            with connection.makefile("rw", encoding="utf-8", newline="\n") as lines:
                asked.append(lines.readline())
                lines.write("first line\nsecond line\n\n")
                lines.flush()

        rows = self.go_through(os.path.join(EXAMPLES, "scraper.py"), "Scraper", "fetch", talk)
        self.assertEqual(asked, ["v1\n"])
        self.assertEqual([row["body"] for row in rows], [b"first line\nsecond line"])

    @unittest.skipUnless(os.environ.get("SAMPLE_PLUGIN"), "SAMPLE_PLUGIN names no file")
    def test_pcp_05_the_file_in_sample_plugin_runs_as_it_is(self):
        path = os.environ["SAMPLE_PLUGIN"]
        name = os.path.basename(path)[:-3]
        rows = self.go_through(path, name, "wget", lambda connection: None)
        self.assertEqual([(row["body"], row["kind"]) for row in rows], [(b"", "text")])


if __name__ == "__main__":
    unittest.main()
