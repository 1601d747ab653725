"""Locations, ports, readers: functions that talk to nobody."""

import ipaddress
import random
import unittest

from src import job_readers
from src.locations import location_text, port_text
from tests.stand_in import job


class Locations(unittest.TestCase):
    def test_pcp_07_the_address_from_accept_matches_without_its_port(self):
        self.assertEqual(location_text(("10.1.2.3", 51515)), "10.1.2.3")
        self.assertEqual(port_text("10000"), "10000")

    def test_pcp_08_a_port_may_be_a_number(self):
        self.assertEqual((location_text("10.1.2.3"), port_text(10000)), ("10.1.2.3", "10000"))

    def test_pcp_09_a_mapped_address_is_the_address(self):
        self.assertEqual(location_text("::ffff:10.1.2.3"), "10.1.2.3")
        self.assertEqual(location_text(("::ffff:10.1.2.3", 51515, 0, 0)), "10.1.2.3")

    def test_addresses_become_canonical_and_names_lower_case(self):
        for given, wanted in (
            (("fe80::1%eth0", 1, 0, 2), "fe80::1"), ("FE80:0:0:0:0:0:0:1", "fe80::1"),
            ("[2001:DB8::1]", "2001:db8::1"), ("::FFFF:0a01:0203", "10.1.2.3"),
            (" 10.1.2.3 ", "10.1.2.3"), ("Worker-A.example", "worker-a.example"),
            (["10.1.2.3"], "10.1.2.3"), ("10.1.2.3%0", "10.1.2.3"), ("10.1.2", "10.1.2"),
            (ipaddress.ip_address("10.1.2.3"), "10.1.2.3"),
        ):
            self.assertEqual(location_text(given), wanted)

    def test_the_text_of_a_location_stays_what_it_is(self):
        chance = random.Random(20)
        for _ in range(5000):
            raw = "".join(chance.choice("0123456789abcdef.:%[]/ -zé\0") for _ in range(chance.randrange(1, 24)))
            if raw.strip():
                once = location_text(raw)
                if once.strip():
                    self.assertEqual(location_text(once), once, raw)

    def test_ports_are_compared_as_text(self):
        self.assertEqual(port_text("010000"), "010000")
        self.assertIsNone(port_text(None))
        self.assertIsNone(port_text(""))
        for wrong in (1.5, True, b"1", [1]):
            with self.assertRaises(TypeError):
                port_text(wrong)


class Readers(unittest.TestCase):
    def setUp(self):
        self.job = job(1, "10.0.0.1")
        command = self.job["JobCommand"]
        command["Inputs"].append(dict(command["Inputs"][0], Name="Second", Value=""))
        command["OptionalInputs"].append(dict(command["Inputs"][0], Name="Depth", Value="3"))
        command["OptionalInputs"].append(dict(command["Inputs"][0], Name="Target", Value="hidden"))

    def test_parts_of_a_job_are_read(self):
        self.assertEqual(
            [read(self.job) for read in (
                job_readers.get_command, job_readers.get_job_id, job_readers.get_status,
                job_readers.job_location, job_readers.job_port, job_readers.has_output,
                job_readers.get_args)],
            ["fetch", self.job["id"], "Pending", "10.0.0.1", "10000", True,
             (["v1", ""], ["3", "hidden"])])

    def test_values_are_found_by_position_and_name(self):
        value, first, option = (
            job_readers.value_of, job_readers.value_of_input, job_readers.value_of_option)
        self.assertEqual([value(self.job, name) for name in ("Target", "Second", "Depth", "No", 0, None)],
                         ["v1", "", "3", None, None, None])
        self.assertEqual([first(self.job, which) for which in (0, -1, "Target", 2, "Depth", None, 1.5)],
                         ["v1", "", "v1", None, None, None, None])
        self.assertEqual([option(self.job, which) for which in (0, "Depth", 5, "No", {})],
                         ["3", "3", None, None, None])

    def test_optional_inputs_that_are_not_there_at_all_are_a_key_error(self):
        del self.job["JobCommand"]["OptionalInputs"]
        with self.assertRaises(KeyError):
            job_readers.value_of_option(self.job, "Depth")
        with self.assertRaises(KeyError):
            job_readers.get_args(self.job)


if __name__ == "__main__":
    unittest.main()
