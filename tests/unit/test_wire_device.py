"""A device's fields."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BadValue
from ipmiproxyd.model import Device, Secret, TcpStream
from ipmiproxyd.wire.device import changed, checked, from_document, to_document, vnc_address

GOOD: dict[str, list[Any]] = {
    "name": ["", "node17", "Rack-3.u12_a", "a" * 64],
    "address": ["192.0.2.7", "2001:db8::7", "bmc-17.example.net", "bmc", "under_score.lan", "host.example."],
    "port": [1, 623, 65535],
    "username": ["", "ADMIN", "-root", "müller", "two words"],
    "password": [Secret(""), Secret("a b'\"$`\\é☃")],
    "interface": ["lanplus", "lan"],
    "cipher": ["auto", "1", "3", "17"],
    "privilege": ["callback", "user", "operator", "administrator"],
    "kg": [Secret(""), Secret("00ff"), Secret("AB" * 20)],
    "web": [
        "",
        "https://192.0.2.7",
        "https://bmc.example.net:8443",
        "http://[2001:db8::7]:80",
        "https://bmc/",
        "https://bmc/ui/panel",
    ],
    "vnc": ["", "192.0.2.7:5900", "kvm.example.net:1", "[2001:db8::7]:65535", "Host.example.:5901"],
    "vnc_password": [Secret(""), Secret("calvin")],
    "vnc_fingerprint": ["", "0f" * 32, "AB:" * 31 + "cd"],
    "vendor": ["auto", "supermicro", "dell-idrac9"],
    "notes": ["", "two\nlines\tand a tab"],
}
BAD: dict[str, list[Any]] = {
    "name": ["-a", "a b", "a" * 65, "ü", "a/b", "a\n", 7],
    "address": [
        "",
        "10.0.0.256",
        "300.1",
        "[2001:db8::7]",
        "fe80::1%eth0",
        "a b",
        "-H",
        "a..b",
        "0.0.0.0",
        "224.0.0.1",
        "x" * 300,
        "host\n",
    ],
    "port": [0, 65536, -1, "623", True, None],
    "username": ["a\nb", "a\x00b", "x" * 257, "\ud800", 5],
    "password": ["plain text", Secret("a\nb"), Secret("a\tb"), Secret("x" * 257)],
    "interface": ["open", ""],
    "cipher": ["0", "18", "03", "", "x", 3],
    "privilege": ["root", "oem", ""],
    "kg": ["abcd", Secret("abc"), Secret("xy"), Secret("ab" * 21)],
    "web": [
        "https://",
        "ftp://bmc",
        "bmc",
        "https://user:pass@bmc",
        "https://bmc?x=1",
        "https://bmc#x",
        "https://bmc:99999",
        "https://bmc:0",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "https://bmc/a b",
        "https://bmc\n",
        "https://bmc/\\evil",
        'https://bmc/"',
        "https://10.0.0.256",
        "x" * 600,
    ],
    "vnc": [
        "192.0.2.7",
        "192.0.2.7:",
        ":5900",
        "bmc:0",
        "bmc:05900",
        "bmc:65536",
        "bmc:-1",
        "bmc:\u0661",
        "2001:db8::7:5900",
        "[2001:db8::7]",
        "[bmc]:5900",
        "user@bmc:5900",
        "bmc:5900/x",
        "bmc:5900?x",
        "bmc:5900#x",
        "bmc:5900\n",
        " bmc:5900",
        "vnc://bmc:5900",
        "10.0.0.256:5900",
        "x" * 600,
        5900,
    ],
    "vnc_password": ["plain text", Secret("x" * 257)],
    "vnc_fingerprint": ["ab", "0f" * 20, "xy" * 32, "ab:" * 32, "ab::" + "0f" * 31, "0f" * 32 + "\n", None],
    "vendor": ["", "Dell", "a/b", "x" * 33],
    "notes": ["x" * 5000, "\x1b[31m"],
}


class CheckTests(SynchronousTestCase):
    def test_good_values(self) -> None:
        for name, values in GOOD.items():
            for value in values:
                fields: dict[str, Any] = {"address": "192.0.2.7", name: value}
                self.assertIsInstance(checked(Device(**fields)), Device, f"{name}={value!r}")

    def test_bad_values(self) -> None:
        for name, values in BAD.items():
            for value in values:
                fields: dict[str, Any] = {"address": "192.0.2.7", name: value}
                with self.assertRaises(BadValue, msg=f"{name}={value!r}") as caught:
                    checked(Device(**fields))
                self.assertTrue(caught.exception.message.startswith(f"{name}: "), caught.exception.message)

    def test_all_mistakes_at_once(self) -> None:
        with self.assertRaises(BadValue) as caught:
            checked(Device(address="", port=0, cipher="0"))
        for name in ("address", "port", "cipher"):
            self.assertIn(f"{name}: ", caught.exception.message)

    def test_no_secret_in_a_message(self) -> None:
        for field in ("password", "kg", "web_password", "vnc_password"):
            fields: dict[str, Any] = {"address": "bmc", field: Secret("hunter2\n" * 100)}
            with self.assertRaises(BadValue) as caught:
                checked(Device(**fields))
            self.assertNotIn("hunter2", str(caught.exception))

    def test_one_spelling_of_an_address(self) -> None:
        for spelled, one in (("2001:DB8:0::7", "2001:db8::7"), ("BMC.Example.NET.", "bmc.example.net")):
            self.assertEqual(checked(Device(address=spelled)).address, one)

    def test_one_spelling_of_a_location(self) -> None:
        self.assertEqual(checked(Device(address="bmc", location=" Rack\xa04\xa0")).location, "Rack\xa04")
        self.assertRaises(BadValue, checked, Device(address="bmc", location="Rack\u200b4"))
        self.assertEqual(checked(Device(address="bmc", location="a\u200cb")).location, "a\u200cb")

    def test_one_spelling_of_a_vnc_server(self) -> None:
        for spelled, one in (
            ("[2001:DB8:0::7]:5900", "[2001:db8::7]:5900"),
            ("KVM.Example.NET.:5901", "kvm.example.net:5901"),
            ("192.0.2.7:5900", "192.0.2.7:5900"),
            ("", ""),
        ):
            self.assertEqual(checked(Device(address="bmc", vnc=spelled)).vnc, one)
        self.assertEqual(vnc_address("[2001:DB8:0::7]:5900"), TcpStream("2001:db8::7", 5900))

    def test_one_spelling_of_a_fingerprint(self) -> None:
        spelled = ":".join(["AB"] * 32)
        self.assertEqual(checked(Device(address="bmc", vnc_fingerprint=spelled)).vnc_fingerprint, "ab" * 32)


class ChangeTests(SynchronousTestCase):
    def test_change(self) -> None:
        device = changed(Device(name="a", address="bmc"), {"port": 624, "password": Secret("x")})
        self.assertEqual((device.name, device.port, device.password.reveal()), ("a", 624, "x"))

    def test_bad_changes(self) -> None:
        changes: dict[str, Any]
        for changes in ({"colour": "red"}, {"port": 0}, {"name": "b"}, {"label": "x"}):
            with self.assertRaises(BadValue):
                changed(Device(name="a", address="bmc"), changes)


class DocumentTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        device = Device(name="a", address="bmc", password=Secret("p"), kg=Secret("00"), notes="n", port=1, vnc="h:1")
        self.assertEqual(from_document(to_document(device)), device)

    def test_other_versions_documents(self) -> None:
        self.assertEqual(from_document({"address": "bmc", "colour": "red"}), Device(address="bmc"))
