import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from unittest import mock

from src import controller_plugin, jobs_client, log_levels
from src.controller_plugin import ControllerPlugin, InvalidStatus
from tests.plugins import FETCH, Plain, WithStandIn, environment
from tests.stand_in import BUSY, CUT, DROP, HANG, LOSE, StandIn, job

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def python(code, env=None, **more):
    """Runs code in a fresh interpreter that knows the runtime and nothing else."""
    env = dict(env or {}, PYTHONPATH=ROOT, PYTHONDONTWRITEBYTECODE="1")
    return subprocess.run([sys.executable, "-c", code], env=env, cwd="/", stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, universal_newlines=True, timeout=30, **more)


class Construction(unittest.TestCase):
    def test_pcp_01_importing_works_with_an_empty_environment(self):
        ran = python("from src.controller_plugin import ControllerPlugin, InvalidStatus")
        self.assertEqual((ran.returncode, ran.stdout), (0, ""), ran.stderr)

    def test_pcp_02_constructing_without_port_or_name_is_a_key_error(self):
        for missing in ("PORT", "PLUGIN_NAME"):
            env = environment("/nowhere")
            del env[missing]
            with mock.patch.dict(os.environ, env, clear=True):
                with self.assertRaises(KeyError) as raised:
                    Plain()
                self.assertEqual(raised.exception.args, (missing,))

    def test_pcp_03_the_port_is_an_int(self):
        with mock.patch.dict(os.environ, environment("/nowhere")):
            port = Plain().port
        self.assertIs(type(port), int)
        self.assertEqual(port, 10000)

    def test_pcp_04_a_port_with_a_protocol_is_a_value_error(self):
        for text in ("10000/tcp", "", "ten", "10000.0"):
            with mock.patch.dict(os.environ, environment("/nowhere", PORT=text)):
                with self.assertRaises(ValueError):
                    Plain()

    def test_the_base_class_itself_cannot_be_constructed(self):
        with mock.patch.dict(os.environ, environment("/nowhere")):
            with self.assertRaises(TypeError):
                ControllerPlugin("x", [FETCH])

    def test_members_have_their_first_values(self):
        with mock.patch.dict(os.environ, environment("/nowhere")):
            plugin = Plain()
        self.assertEqual(
            (plugin.name, plugin.serv_name, plugin.functionality, plugin.tracked_jobs,
             plugin.db_conn, plugin.signal, plugin.stop_args),
            ("Plain", "scraper", [FETCH], {}, None, None, {}))

    def test_constructing_in_another_thread_leaves_signals_alone(self):
        failures = []

        def construct():
            try:
                Plain()
            except BaseException as error:
                failures.append(error)

        with mock.patch.dict(os.environ, environment("/nowhere")):
            thread = threading.Thread(target=construct)
            thread.start()
            thread.join()
        self.assertEqual(failures, [])

    def test_pcp_38_foreign_level_names_are_mapped(self):
        code = ("from src.controller_plugin import ControllerPlugin as C; import logging;"
                "print(logging.getLevelName(C.LOGGER.level))")
        ran = python(code, {"LOGLEVEL": "INFORMATIONAL"})
        self.assertEqual((ran.returncode, ran.stdout.strip()), (0, "INFO"), ran.stderr)
        for name, level in (("NOTICE", 20), ("TEST", 10), ("EMERGENCY", 50), ("", 10), ("ALERT", 50),
                            ("warning", 30), ("40", 40), ("nonsense", 10), (None, 10)):
            self.assertEqual(log_levels.level_of(name), level, name)

    def test_a_level_set_after_the_import_counts(self):
        before = ControllerPlugin.LOGGER.level
        self.addCleanup(ControllerPlugin.LOGGER.setLevel, before)
        with mock.patch.dict(os.environ, environment("/nowhere", LOGLEVEL="EMERGENCY")):
            Plain()
        self.assertEqual(ControllerPlugin.LOGGER.level, logging.CRITICAL)

    def test_importing_writes_no_file_and_prints_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            code = "import os; os.chdir(%r); import src.controller_plugin" % folder
            ran = python(code)
            self.assertEqual((ran.stdout, ran.stderr, os.listdir(folder)), ("", "", []))


class Starting(WithStandIn):
    def test_starting_advertises_and_runs_the_loop(self):
        plugin = Plain()
        plugin.start()
        self.assertEqual(self.stand_in.started, [{
            "version": 1, "name": "Plain", "serviceName": "scraper", "port": 10000,
            "stage": "TESTING", "commands": [FETCH], "placeholder": False}])
        self.assertEqual(plugin.loops, [((),)])

    def test_pcp_06_the_control_loop_may_be_declared_in_any_way(self):
        seen = []

        class None_(Plain):
            def _start(self):
                seen.append("none")

        class Any(Plain):
            def _start(self, *args):
                seen.append(args)

        class One(Plain):
            def _start(self, args):
                seen.append(args)

        class Two(Plain):
            def _start(self, logger, signal):
                seen.append((logger, signal))

        class Defaults(Plain):
            def _start(self, logger=None, signal=None, *, named, **more):
                seen.append((logger, signal, named, more))

        for kind in (None_, Any, One, Two, Defaults):
            kind().start("a", "b")
        args = ("a", "b")
        self.assertEqual(seen, ["none", (args,), args, (args, None), (args, None, None, {})])

    def test_pcp_34_no_commands_and_no_file_advertise_a_placeholder(self):
        for nothing in ([], ()):
            Plain(nothing).start()
            said = self.stand_in.started.pop()
            self.assertTrue(said["placeholder"])
            self.assertEqual([c["CommandName"] for c in said["commands"]], ["Functionality Error"])
            self.assertIs(said["commands"][0]["Output"], False)

    def test_commands_may_come_from_a_file(self):
        with tempfile.TemporaryDirectory() as folder:
            os.mkdir(os.path.join(folder, "__Plain"))
            file = os.path.join(folder, "__Plain", "Plain.json")
            for text, placeholder in (('[{"CommandName":"c","Tooltip":"","Output":true}]', False),
                                      ("{}", True), ("[" * 100000, True), ("\xff", True)):
                with open(file, "w", encoding="latin-1") as opened:
                    opened.write(text)
                with mock.patch.dict(os.environ, {"PATCHBAY_PLUGIN_PATH": folder}):
                    Plain([]).start()
                self.assertEqual(self.stand_in.started.pop()["placeholder"], placeholder)

    def test_bad_commands_are_a_value_error_and_are_not_sent(self):
        bad = [
            dict(FETCH, CommandName=1), dict(FETCH, Output="yes"), dict(FETCH, Output=1),
            dict(FETCH, Inputs={}), dict(FETCH, Inputs=[{"Name": "x"}]), {}, "fetch",
            dict(FETCH, Inputs=[dict(FETCH["Inputs"][0], Value=13)]), dict(FETCH, id=3),
            dict(FETCH, more={1, 2}), dict(FETCH, more=float("nan")), dict(FETCH, CommandName=""),
        ]
        for command in bad:
            with self.assertRaises(ValueError, msg=command):
                Plain([command]).start()
        plugin = Plain()
        plugin.functionality = {"a": 1}
        with self.assertRaises(ValueError):
            plugin.start()
        self.assertEqual(self.stand_in.started, [])

    def test_unknown_keys_are_advertised_and_equal_names_only_once(self):
        last = dict(FETCH, Tooltip="newer", Colour="red")
        Plain([FETCH, last]).start()
        self.assertEqual(self.stand_in.started[0]["commands"], [last])

    def test_a_refused_start_is_a_value_error_with_the_reason(self):
        answer = b'{"error": "command 3 is odd"}'
        self.stand_in.reply("/v1/start", b"HTTP/1.1 400 X\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
        with self.assertRaisesRegex(ValueError, "command 3 is odd"):
            Plain().start()

    def test_a_missing_stage_is_a_key_error(self):
        plugin = Plain()
        del os.environ["STAGE"]
        with self.assertRaises(KeyError):
            plugin.start()

    def test_a_sidecar_that_comes_late_is_waited_for(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        late = StandIn(folder=folder.name)
        with mock.patch.dict(os.environ, {"PATCHBAY_JOBS_SOCKET": late.path}):
            plugin = Plain()
        thread = threading.Thread(target=plugin.start)
        with self.assertLogs("plugin", "WARNING") as logs:
            thread.start()
            while not logs.output:
                time.sleep(0.001)
            with late:
                thread.join(10)
                self.assertEqual(len(late.started), 1)

    def test_without_a_sidecar_the_process_ends_with_status_1(self):
        with mock.patch.dict(os.environ, {"PATCHBAY_JOBS_SOCKET": "/nowhere/jobs.sock"}), \
                mock.patch.object(controller_plugin, "SIDECAR_SECONDS", 0.2), \
                self.assertLogs("plugin", "CRITICAL") as logs, self.assertRaises(SystemExit) as end:
            Plain().start()
        self.assertEqual(end.exception.code, 1)
        self.assertIn("/nowhere/jobs.sock", logs.output[0])


class Requesting(WithStandIn):
    def test_jobs_come_once_and_in_the_order_of_their_start(self):
        self.have(job(1, start=30), job(2, start=10), job(3, start=20.5))
        plugin = Plain()
        got = [plugin.request_job() for _ in range(4)]
        self.assertEqual([each and each["StartTime"] for each in got], [10, 20.5, 30, None])
        self.assertEqual([type(each["StartTime"]) for each in got[:3]], [int, float, int])

    def test_both_names_ask_for_one_client_only(self):
        self.have(job(1, "10.0.0.2"), job(2, "10.0.0.1"), job(3, "10.0.0.1"))
        plugin = Plain()
        self.assertEqual(plugin.request_job_for_client(("10.0.0.1", 51515), "10000")["id"][-1], "2")
        self.assertEqual(plugin.get_job_for_client("10.0.0.1", 10000)["id"][-1], "3")
        self.assertIsNone(plugin.request_job_for_client("10.0.0.1", "10000"))
        self.assertEqual(plugin.request_job_for_client(["10.0.0.2"])["id"][-1], "1")

    def test_a_port_without_a_location_is_a_value_error(self):
        for location in (None, "", ()):
            with self.assertRaises(ValueError):
                Plain().request_job_for_client(location, "10000")

    def test_nothing_is_asked_for_a_location_that_is_none(self):
        for location, error in (("", ValueError), ((), ValueError), (None, TypeError), (7, TypeError),
                                ((None, 1), TypeError)):
            with self.assertRaises(error):
                Plain().request_job_for_client(location)
        self.assertEqual(self.stand_in.asked, [])

    def test_pcp_33_a_job_without_optional_inputs_has_an_empty_list(self):
        bare = job(1)
        del bare["JobCommand"]["OptionalInputs"]
        self.have(bare)
        plugin = Plain()
        got = plugin.request_job()
        self.assertEqual(got["JobCommand"]["OptionalInputs"], [])
        self.assertEqual(plugin.get_args(got), (["v1"], []))
        self.assertIsNone(plugin.value_of(got, "absent"))

    def test_a_job_lost_on_the_way_comes_with_the_next_request_of_that_client(self):
        for fault in (LOSE, CUT):
            lost, other = job(1, "10.0.0.1", start=1), job(2, "10.0.0.2", start=2)
            self.have(lost, other)
            plugin = Plain()
            # Every try within the first request goes wrong in the same way.
            self.stand_in.fault("/v1/request", *[fault] * 200)
            self.assertIsNone(plugin.request_job_for_client("10.0.0.1"))
            self.stand_in.faults.clear()
            self.assertEqual(plugin.request_job_for_client("10.0.0.2")["id"], other["id"])
            self.assertEqual(plugin.request_job_for_client("10.0.0.1")["id"], lost["id"])
            self.assertIsNone(plugin.request_job_for_client("10.0.0.1"))
            self.stand_in.granted.clear()

    def test_a_broken_connection_is_mended_within_one_request(self):
        for fault in (DROP, LOSE, CUT, BUSY):
            self.have(job(1))
            plugin = Plain()
            self.stand_in.fault("/v1/request", fault)
            self.assertEqual(plugin.request_job()["id"], job(1)["id"], fault)
            ids = {asked["id"] for asked in self.stand_in.asked}
            self.assertEqual(len(ids), 1)
            self.stand_in.asked.clear()
            self.stand_in.granted.clear()

    def test_an_answered_request_id_is_not_used_again(self):
        plugin = Plain()
        for _ in range(3):
            plugin.request_job()
        self.assertEqual(len({asked["id"] for asked in self.stand_in.asked}), 3)

    def test_a_sidecar_that_is_away_gives_none_within_a_second(self):
        plugin = Plain()
        self.stand_in.stop()
        begin = time.monotonic()
        with self.assertLogs("plugin", "WARNING") as logs:
            self.assertIsNone(plugin.request_job())
            self.assertIsNone(plugin.request_job_for_client("10.0.0.1", "10000"))
        took = time.monotonic() - begin
        self.assertLess(took, 2.2)
        self.assertGreater(took, 1.0, "a loop without sleep would burn a processor")
        self.assertEqual(len(logs.output), 1, "said once, not for each request")
        self.stand_in.closing.clear()
        self.stand_in.__enter__()
        self.have(job(1))
        with self.assertLogs("plugin", "INFO") as logs:
            self.assertEqual(plugin.request_job()["id"], job(1)["id"])
        self.assertIn("answers again", logs.output[0])

    def test_a_sidecar_that_hangs_gives_none_soon(self):
        plugin = Plain()
        self.stand_in.fault("/v1/request", *[HANG] * 5)
        begin = time.monotonic()
        self.assertIsNone(plugin.request_job())
        self.assertLess(time.monotonic() - begin, 1.8)

    def test_a_wrong_request_is_told(self):
        answer = b'{"error": "location is too long"}'
        head = b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(answer)
        self.stand_in.reply("/v1/request", head + answer)
        with self.assertRaisesRegex(ValueError, "location is too long"):
            Plain().request_job()

    def test_many_threads_get_every_job_once(self):
        self.have(*[job(number) for number in range(1, 201)])
        plugin, got, lock = Plain(), [], threading.Lock()
        self.stand_in.fault("/v1/request", *([None] * 5 + [LOSE]) * 20)

        def work():
            while True:
                each = plugin.request_job()
                if each is None:
                    return
                plugin.respond_output(each, each["JobCommand"]["Inputs"][0]["Value"])
                with lock:
                    got.append(each["id"])

        threads = [threading.Thread(target=work) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        self.assertEqual(sorted(got), sorted(job(number)["id"] for number in range(1, 201)))
        self.assertEqual(set(self.stand_in.statuses.values()), {"Done"})

    def test_a_connection_is_used_again(self):
        plugin = Plain()
        for _ in range(20):
            plugin.request_job()
        self.assertEqual(self.stand_in.connections, 1)


class Responding(WithStandIn):
    def setUp(self):
        super().setUp()
        self.have(job(1))
        self.plugin = Plain()
        self.job = self.plugin.request_job()

    def test_the_empty_text_is_output(self):
        self.plugin.respond_output(self.job, "")
        self.assertEqual(self.rows(self.job), [(b"", "text", False)])
        self.assertEqual(self.stand_in.statuses[self.job["id"]], "Done")

    def test_pcp_25_numbers_become_text_and_bytes_stay_bytes(self):
        for output, stored in ((42.42, (b"42.42", "text")), (666, (b"666", "text")),
                               (True, (b"True", "text")), (b"\x00\xff", (b"\x00\xff", "bytes")),
                               ("\u00e9\0", (b"\xc3\xa9\0", "text")), ("\udcff", (b"\xff", "text")),
                               ("\ud800", (b"\xed\xa0\x80", "text"))):
            self.plugin.respond_output(self.job, output, transition_state=False)
            row = self.stand_in.rows[self.job["id"]].pop()
            self.assertEqual((row["body"], row["kind"]), stored)

    def test_pcp_26_none_and_dicts_are_no_output(self):
        for output in (None, {}, [], bytearray(b"x"), object()):
            with self.assertLogs("plugin", "ERROR"), self.assertRaises(TypeError):
                self.plugin.respond_output(self.job, output)
            with self.assertLogs("plugin", "ERROR"), self.assertRaises(TypeError):
                self.plugin.respond_error(self.job, output)
        self.assertEqual(self.rows(self.job), [])
        self.assertEqual(self.stand_in.statuses[self.job["id"]], "Pending")

    def test_parts_come_in_order_before_the_end(self):
        for part in ("a", "b", "c"):
            self.plugin.respond_output(self.job, part, transition_state=False)
        self.assertEqual(self.stand_in.statuses[self.job["id"]], "Active")
        self.plugin.respond_output(self.job, b"d")
        self.assertEqual([row[0] for row in self.rows(self.job)], [b"a", b"b", b"c", b"d"])
        self.assertEqual(self.stand_in.statuses[self.job["id"]], "Done")

    def test_an_error_ends_the_job_and_later_output_is_late(self):
        self.plugin.respond_error(self.job, "x")
        self.assertEqual(self.job["Status"], "Pending")
        with self.assertLogs("plugin", "WARNING"):
            self.plugin.respond_output(self.job, "too late")
        self.assertEqual(self.rows(self.job), [(b"x", "text", False), (b"too late", "text", True)])
        self.assertEqual(self.stand_in.statuses[self.job["id"]], "Error")

    def test_a_row_is_stored_once_whatever_happens_to_the_connection(self):
        for fault in (DROP, LOSE, CUT, BUSY):
            self.stand_in.fault("/v1/output", fault, fault, None)
            self.plugin.respond_output(self.job, fault, transition_state=False)
        self.assertEqual([row[0] for row in self.rows(self.job)], [b"drop", b"lose", b"cut", b"busy"])

    def test_output_that_cannot_be_stored_is_a_value_error_in_the_end(self):
        with mock.patch.object(jobs_client, "OUTPUT_SECONDS", 0.3):
            plugin = Plain()
        self.stand_in.stop()
        begin = time.monotonic()
        with self.assertRaises(ValueError):
            plugin.respond_output(self.job, "x")
        with self.assertRaises(ValueError):
            plugin.respond_error(self.job, "x")
        self.assertGreater(time.monotonic() - begin, 0.3)

    def test_output_waits_for_a_sidecar_that_restarts(self):
        self.stand_in.stop()
        thread = threading.Thread(target=self.plugin.respond_output, args=(self.job, "kept"))
        with self.assertLogs("plugin", "WARNING") as logs:
            thread.start()
            while not logs.output:
                time.sleep(0.001)
            self.stand_in.closing.clear()
            self.stand_in.__enter__()
            thread.join(10)
        self.assertEqual([row[0] for row in self.rows(self.job)], [b"kept"])

    def test_output_of_a_job_that_is_gone_is_no_exception(self):
        with self.assertLogs("plugin", "WARNING"):
            self.plugin.respond_output({"id": "unknown"}, "x")

    def test_output_that_is_too_large_is_no_exception(self):
        answer = b'{"tooLarge":true}'
        # Answered and closed before all of it was read.
        self.stand_in.reply("/v1/output", b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
        with self.assertLogs("plugin", "ERROR"):
            self.plugin.respond_output(self.job, b"x" * (4 << 20))

    def test_large_output_arrives_whole(self):
        data = os.urandom(1 << 20) * 5
        self.plugin.respond_output(self.job, data)
        self.assertEqual(self.stand_in.rows[self.job["id"]][0]["body"], data)

    def test_statuses_follow_each_other(self):
        self.assertEqual(self.plugin._update_job_status(self.job["id"], "Active"), "Active")
        self.assertEqual(self.plugin._update_job(self.job["id"]), "Done")
        for call in (lambda: self.plugin._update_job("unknown"),
                     lambda: self.plugin._update_job_status("unknown", "Done")):
            with self.assertRaises(ValueError):
                call()
        for word in ("done", "Running", None, 3):
            with self.assertLogs("plugin", "ERROR"), self.assertRaises(InvalidStatus) as raised:
                self.plugin._update_job_status(self.job["id"], word)
            self.assertIsInstance(raised.exception, ValueError)
        self.assertEqual(self.plugin._update_job_status(self.job["id"], ""), "")


class Rest(WithStandIn):
    def test_pcp_39_telemetry_needs_a_target_and_dicts(self):
        plugin = Plain()
        with self.assertLogs("plugin", "ERROR"):
            self.assertIsNone(plugin.send_telemetry("1.2.3.4"))
        self.stand_in.targets.add("1.2.3.4")
        for wrong in ({"common": 1}, {"specific": "x"}, {"common": [1]}):
            with self.assertRaises(TypeError):
                plugin.send_telemetry("1.2.3.4", **wrong)
        self.assertEqual(self.stand_in.telemetry, [])
        mine = {"User": "u"}
        plugin.send_telemetry(("1.2.3.4", 5), mine, {"load": 3})
        plugin.send_telemetry("1.2.3.4", {}, None)
        first, second = self.stand_in.telemetry
        self.assertEqual((first["name"], first["port"], first["specific"], first["common"]["User"]),
                         ("Plain", "10000", {"load": 3}, "u"))
        for sent in (first, second):
            self.assertAlmostEqual(sent["common"]["Checkin"], time.time(), delta=30)
        self.assertEqual(mine, {"User": "u"})

    def test_telemetry_without_a_sidecar_is_lost_and_no_exception(self):
        plugin = Plain()
        self.stand_in.stop()
        with self.assertLogs("plugin", "WARNING"):
            self.assertIsNone(plugin.send_telemetry("1.2.3.4"))

    def test_tracked_jobs_outlive_the_plugin(self):
        first = Plain()
        first.recover()
        self.assertEqual(first.tracked_jobs, {})
        first.tracked_jobs = {"a": job(1)}
        first.record_tracker()
        second = Plain()
        second.recover()
        self.assertEqual(second.tracked_jobs, {"a": job(1)})
        self.stand_in.tracker = {"service": "scraper"}
        with self.assertRaises(ValueError):
            second.recover()

    def test_files_are_read_from_their_folder_only(self):
        plugin = Plain()
        with tempfile.TemporaryDirectory() as folder, \
                mock.patch.dict(os.environ, {"PATCHBAY_FILES": folder + "/files"}):
            os.makedirs(folder + "/files/..data")
            with open(folder + "/secret", "wb") as opened:
                opened.write(b"no")
            with open(folder + "/files/..data/a", "wb") as opened:
                opened.write(b"\xc3\xa9")
            os.symlink("..data/a", folder + "/files/a")
            os.symlink("../secret", folder + "/files/out")
            self.assertEqual(plugin.get_file("a"), b"\xc3\xa9")
            self.assertEqual(plugin.get_file("a", "utf-8"), "\u00e9")
            with self.assertRaises(LookupError):
                plugin.get_file("a", "no-such-codec")
            with self.assertRaises(UnicodeDecodeError):
                plugin.get_file("a", "ascii")
            for name in ("b", "../secret", "/etc/passwd", "out", "..data", "", "a/b", "a\0", None):
                for kind in (FileNotFoundError, TypeError):
                    with self.assertRaises(kind, msg=name):
                        plugin.get_file(name)

    def test_logging_takes_lists_and_levels(self):
        plugin = Plain()
        with self.assertLogs("plugin", "DEBUG") as logs:
            plugin.log(["component", "message", 40, time.time()])
            plugin.log(["component", "word", "NOTICE"])
            plugin.log([])
            plugin._log("100 % text", 30)
        self.assertEqual([(r.levelno, r.getMessage()) for r in logs.records], [
            (40, "component: message"), (20, "component: word"), (20, ": "), (30, "100 % text")])

    def test_a_forked_child_does_not_ask_with_its_parents_ids(self):
        plugin = Plain()
        self.have(job(1))
        self.stand_in.fault("/v1/request", *[LOSE] * 200)
        self.assertIsNone(plugin.request_job())
        self.stand_in.faults.clear()
        child = os.fork()
        if child == 0:
            os._exit(0 if plugin.request_job() is None else 1)
        self.assertEqual(os.waitpid(child, 0)[1], 0)
        self.assertEqual(plugin.request_job()["id"], job(1)["id"])


if __name__ == "__main__":
    unittest.main()
