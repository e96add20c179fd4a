"""The commands: what they ask of devices, power, consoles and daemon, and what they answer."""

from __future__ import annotations

import base64
import dataclasses
import os
import resource
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.trial.unittest import TestCase as AsyncTestCase

from ipmiproxyd.control.commands import Defaults
from ipmiproxyd.control.commands.bmc import FIELDS, NAME, NOTES
from ipmiproxyd.control.commands.screenshot import write_new
from ipmiproxyd.control.declare import Call
from ipmiproxyd.errors import BadRequest, BadValue, BmcAuth, Exists, MissingArgument, NotFound, UnknownArgument
from ipmiproxyd.model import Administrator, Device, Errand, OpenRequest, Secret, Wanted
from ipmiproxyd.wire.control import Request, format_request, parse_request, to_json
from tests.support.control_fakes import PNG, Fakes, console, viewer

INLINE = "address=10.0.0.9 username=u password=hunter2"


class CommandsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.fakes = Fakes()
        self.table = self.fakes.table(
            Defaults(idle=300.0, max_time=7200.0, clipboard="out", login_buttons=False, agent="east")
        )
        self.told: list[Mapping[str, Any]] = []

    def ask(self, line: str) -> Mapping[str, Any]:
        request = parse_request(line.encode())
        assert isinstance(request, Request)
        command, values = self.table.bind(request)
        answer = self.successResultOf(Deferred.fromCoroutine(command.handler(Call(values, self.told.append))))
        self.assertNotIn("hunter2", to_json(answer))
        return answer

    def refused(self, line: str, error: type[Exception]) -> Exception:
        request = parse_request(line.encode())
        assert isinstance(request, Request)

        async def carry_out() -> None:
            command, values = self.table.bind(request)
            await command.handler(Call(values, self.told.append))

        failure = self.failureResultOf(Deferred.fromCoroutine(carry_out()), error)
        self.assertNotIn("hunter2", str(failure.value))
        refusal: Exception = failure.value
        return refusal

    def add_node(self) -> Device:
        self.ask("device add name=node17 address=10.0.0.17 username=ADMIN password=hunter2")
        return self.fakes.devices.stored["node17"]


class AgentTests(CommandsTestCase):
    def test_list_and_check(self) -> None:
        self.assertEqual([one["name"] for one in self.ask("agent list")["agents"]], ["local", "east"])
        self.assertEqual(len(self.ask("agent check agent=east")["problems"]), 1)
        self.refused("agent check agent=west", NotFound)
        self.refused("agent check", MissingArgument)
        self.refused("agent check name=east agent=east", BadRequest)
        self.assertTrue(self.table.find("agent", "check").usage.startswith("agent check name=… [device=…]"))
        self.ask("agent check name=east fix=yes")
        self.assertEqual(self.fakes.agents.asked[-1], ("check", True, True, None))
        self.add_node()
        self.ask("agent check name=east trial=no device=node17")
        self.assertEqual(self.fakes.agents.asked[-1][1:3], (False, False))
        self.assertEqual(self.fakes.agents.asked[-1][3].name, "node17")
        self.refused("agent check name=east device=node18", NotFound)

    def test_agents_come_and_go(self) -> None:
        self.ask("agent add name=west host=192.0.2.1 key=/k passphrase=x host_key=SHA256:a,SHA256:b check=no")
        west = self.fakes.agents.stored["west"]
        self.assertEqual((west.host_keys, west.passphrase, west.port), (("SHA256:a", "SHA256:b"), Secret("x"), 22))
        self.ask("agent set name=west port=2222 known_hosts=no host_key=")
        west = self.fakes.agents.stored["west"]
        self.assertEqual((west.host_keys, west.port, west.user), ((), 2222, "ipmiproxyd"))
        shown = self.ask("agent show name=west")
        self.assertEqual((next(iter(shown)), shown["host"]), ("name", "192.0.2.1"))
        self.ask("agent remove name=west force=yes")
        self.assertEqual(
            self.fakes.agents.asked, [("add", False, True), ("set", True, False), ("remove", True)]
        )
        self.refused("agent set name=west", MissingArgument)
        self.refused("agent add name=west host=192.0.2.1", MissingArgument)

    def test_provisioning(self) -> None:
        asked = self.fakes.provisioning.asked
        self.ask("agent provision name=west host=192.0.2.1 key=/k host_key=SHA256:a javas=7,8 dry_run=yes")
        fields = {"host": "192.0.2.1", "key": "/k", "host_keys": ("SHA256:a",)}
        errand = Errand(name="west", by=Administrator(), fields=fields, wanted=Wanted(javas=("7", "8")), dry_run=True)
        self.assertEqual(asked.pop(), ("provision", errand))
        self.ask("agent unprovision name=west host=h as=ada as_key=ssh-agent sudo_password=x known-hosts=no force=yes")
        ada = Administrator(user="ada", key="ssh-agent", sudo_password=Secret("x"))
        errand = Errand(name="west", by=ada, fields={"host": "h"}, known_hosts=False, force=True)
        self.assertEqual(asked.pop(), ("unprovision", errand))
        self.ask("agent update name=west as_passphrase=x")
        self.assertEqual(asked.pop(), ("update", Errand(name="west", by=Administrator(passphrase=Secret("x")))))

    def test_help_about_hosts(self) -> None:
        """What counts for a new agent, and whose account is meant."""

        told = {one.name: one.help for one in self.table.find("agent", "provision").arguments}
        for name, words in (
            ("host", "needed where the agent is not known yet"), ("key", "needed where"), ("port", "yet: 22"),
            ("user", "the agent's own account there, which is made"), ("user", "yet: ipmiproxyd"),
            ("browser", "yet: chromium"), ("as", "the administrator's account"),
        ):  # fmt: skip
            self.assertIn(words, told[name])
        self.assertNotIn("yet", told["host_key"] + told["passphrase"] + told["notes"])

    def test_a_request_may_name_one(self) -> None:
        self.add_node()
        self.ask("power status device=node17 agent=west")
        self.assertEqual(self.fakes.power.agents, {"west"})
        self.assertIn("west", self.ask("vendor probe device=node17 agent=west")["why"])
        self.assertEqual(self.ask("java list agent=west")["agent"], "west")


class DeviceTests(CommandsTestCase):
    def test_fields_are_those_of_the_model(self) -> None:
        names = [argument.name for argument in (NAME, *FIELDS, NOTES)]
        self.assertEqual(names, [field.name for field in dataclasses.fields(Device)])

    def test_defaults_are_those_of_the_model(self) -> None:
        self.assertEqual(
            self.add_node(),
            Device(name="node17", address="10.0.0.17", username="ADMIN", password=Secret("hunter2")),
        )

    def test_add_with_everything(self) -> None:
        answer = self.ask(
            "device add name=n1 address=[fe80::1] port=624 username=u password=hunter2 interface=lan cipher=3 "
            "privilege=operator kg=00ff web=https://panel:8443 web_username=w web_password=hunter2 "
            "vnc=KVM:5901 vnc_password=hunter2 "
            f"vnc_fingerprint={'AB:' * 31}AB location='rack 4' vendor=dell notes='a \"b\"'"
        )
        self.assertEqual(
            answer,
            {
                "name": "n1",
                "address": "fe80::1",
                "port": 624,
                "username": "u",
                "password": "set",
                "interface": "lan",
                "cipher": "3",
                "privilege": "operator",
                "kg": "set",
                "web": "https://panel:8443",
                "web_username": "w",
                "web_password": "set",
                "web_trust": "pin",
                "java": "",
                "vnc": "kvm:5901",
                "vnc_password": "set",
                "vnc_fingerprint": "ab" * 32,
                "location": "rack 4",
                "vendor": "dell",
                "notes": 'a "b"',
                "warnings": [],
            },
        )
        self.assertEqual(self.fakes.devices.stored["n1"].web_password.reveal(), "hunter2")

    def test_secrets_that_are_not_set(self) -> None:
        answer = self.ask("device add name=n1 address=bmc1")
        secrets = ("password", "kg", "web_password", "vnc_password")
        self.assertEqual([answer[name] for name in secrets], [""] * 4)

    def test_set_changes_only_what_is_given(self) -> None:
        before = self.add_node()
        answer = self.ask("device set name=node17 notes=new username=")
        self.assertEqual(answer["notes"], "new")
        self.assertEqual(self.fakes.devices.stored["node17"], dataclasses.replace(before, notes="new", username=""))

    def test_show_list_remove(self) -> None:
        self.add_node()
        shown = self.ask("device show name=node17")
        self.assertEqual(self.ask("device list"), {"devices": [shown]})
        self.assertEqual(self.ask("device remove name=node17"), {"removed": "node17"})
        self.assertEqual(self.ask("device list"), {"devices": []})

    def test_refusals(self) -> None:
        self.add_node()
        self.refused("device add name=node17 address=10.0.0.18", Exists)
        self.refused("device add name=node18", MissingArgument)
        self.refused("device set name=node17", MissingArgument)
        self.refused("device set name=node17 address=", BadValue)
        self.refused("device set name=node18 notes=x", NotFound)
        self.refused("device show name=node18", NotFound)
        self.refused("device remove name=node18", NotFound)
        self.refused("device add name=n address=a kg=hunter2", BadValue)


class PowerTests(CommandsTestCase):
    def test_status(self) -> None:
        device = self.add_node()
        self.assertEqual(self.ask("power status device=node17"), {"device": "node17", "power": "on"})
        self.assertEqual(self.fakes.power.acted, [(device, "status", False, None)])

    def test_actions(self) -> None:
        device = self.add_node()
        for action in ("on", "off", "cycle", "soft"):
            answer = self.ask(f"power {action} device=node17 wait=30s force=yes")
            self.assertEqual(answer, {"device": "node17", "action": action, "power": "on"})
            self.assertEqual(self.fakes.power.acted.pop(), (device, action, True, 30.0))
        for action in ("reset", "diag"):
            self.ask(f"power {action} device=node17")
            self.assertEqual(self.fakes.power.acted.pop(), (device, action, False, None))
            self.assertEqual(self.fakes.power.agents, {"east"})
            self.refused(f"power {action} device=node17 wait=30s", UnknownArgument)

    def test_progress(self) -> None:
        self.add_node()
        self.ask("power cycle device=node17")
        self.assertEqual(self.told, [{"stage": "send", "text": "Sending cycle", "ms": 1}])

    def test_inline(self) -> None:
        answer = self.ask(f"power status {INLINE} cipher=17 web=https://panel kg=ff")
        self.assertEqual(answer["device"], "10.0.0.9:623")
        device = Device(
            address="10.0.0.9",
            username="u",
            password=Secret("hunter2"),
            cipher="17",
            web="https://panel",
            kg=Secret("ff"),
        )
        self.assertEqual(self.fakes.power.acted[0][0], device)

    def test_which_bmc(self) -> None:
        self.add_node()
        self.refused(f"power status device=node17 {INLINE}", BadRequest)
        self.refused("power status device=node17 password=hunter2", BadRequest)
        self.refused("power status", MissingArgument)
        self.refused("power status username=u password=hunter2", MissingArgument)
        self.refused("power status device=node18", NotFound)
        self.refused("power status address=a username=wrong password=hunter2", BmcAuth)

    def test_an_inline_bmc_is_checked_like_a_stored_one(self) -> None:
        for field in ("web=https://admin:hunter2@bmc", "cipher=18", "kg=hunter2", "vendor=-"):
            self.refused(f"power status address=10.0.0.9 {field}", BadValue)
        for field in ("vnc=kvm", "vnc_fingerprint=hunter2"):
            self.refused(f"power status address=10.0.0.9 {field}", BadValue)
        self.refused("power status address=-x", BadValue)
        self.ask("power status address=BMC.example.")
        self.assertEqual(self.fakes.power.acted[0][0].address, "bmc.example")


class ConsoleTests(CommandsTestCase):
    def test_open(self) -> None:
        device = self.add_node()
        answer = self.ask(
            "console open device=node17 user=alice idle=never max=8h existing=replace wait=no type=panel "
            "clipboard=in login_buttons=yes"
        )
        self.assertEqual(
            self.fakes.consoles.asked,
            [
                OpenRequest(
                    device=device,
                    user="alice",
                    agent="east",
                    idle=None,
                    max_time=28800.0,
                    existing="replace",
                    wait=False,
                    clipboard="in",
                    login_buttons=True,
                )
            ],
        )
        self.assertEqual(
            answer,
            {
                "console": "c1",
                "url": "http://gate:6081/#t=c1",
                "state": "ready",
                "reused": False,
                "type": "panel",
                "device": "node17",
                "agent": "local",
                "proxy": "",
                "warnings": ["old firmware"],
            },
        )
        self.assertEqual(self.told, [{"stage": "display", "text": "Starting the display", "ms": 3}])

    def test_defaults_come_from_the_settings(self) -> None:
        self.ask(f"console open {INLINE}")
        request = self.fakes.consoles.asked[0]
        self.assertEqual((request.idle, request.max_time), (300.0, 7200.0))
        self.assertEqual((request.existing, request.wait, request.user), ("reuse", True, ""))
        self.assertEqual((request.clipboard, request.login_buttons), ("out", False))
        told = {row["name"]: row["default"] for row in self.describe()}
        self.assertEqual((told["idle"], told["max"]), ("5m", "2h"))
        self.assertEqual((told["clipboard"], told["login_buttons"]), ("out", "no"))

    def describe(self) -> list[dict[str, Any]]:
        return [argument.describe() for argument in self.table.find("console", "open").arguments]

    def test_list_and_show(self) -> None:
        for shown in (console(1), console(2, device="10.0.0.9:623", user="bob")):
            self.fakes.consoles.known[shown.id] = shown
        first = self.ask("console show console=c1")
        self.assertEqual(
            first,
            {
                "console": "c1",
                "device": "node17",
                "bmc": "10.0.0.17:623",
                "type": "panel",
                "user": "alice",
                "agent": "local",
                "proxy": "",
                "state": "ready",
                "display": 4,
                "port": 6081,
                "viewers": 1,
                "clipboard": "both",
                "opened": 1_700_000_000.123,
                "ready": 1_700_000_001.5,
                "last_activity": 1_700_000_002.0,
                "idle": 600.0,
                "max": None,
                "slot_since": None,
                "slot_until": None,
                "closes_in": None,
                "agent_away": False,
                "reason": "",
                "message": "",
                "log": "",
                "stages": [
                    {"name": "display", "label": "Starting the display", "begun_ms": 0, "done_ms": 110,
                     "failed": False},
                    {"name": "browser", "label": "Starting the browser", "begun_ms": 110, "done_ms": None,
                     "failed": False},
                ],
                "people": [
                    {"id": "g1", "user": "alice", "control": True, "steers": True, "joined": 1_700_000_003.25}
                ],
            },
        )
        self.assertEqual([row["console"] for row in self.ask("console list")["consoles"]], ["c1", "c2"])
        self.assertEqual(self.ask("console list user=alice"), {"consoles": [first]})
        self.assertEqual([row["console"] for row in self.ask("console list device=10.0.0.9:623")["consoles"]], ["c2"])
        self.assertEqual(self.ask("console list device=node17 user=bob"), {"consoles": []})

    def test_people_are_one_for_each_grant(self) -> None:
        there = (viewer(steers=False), viewer(id="g2", user="bob", control=False, steers=False), viewer(joined_at=2e9))
        self.fakes.consoles.known["c1"] = console(1, viewers=there)
        shown = self.ask("console show console=c1")
        self.assertEqual(shown["viewers"], 3)
        self.assertEqual([(one["id"], one["steers"]) for one in shown["people"]], [("g1", True), ("g2", False)])
        self.assertEqual(shown["people"][0]["joined"], 1_700_000_003.25)

    def test_vnc(self) -> None:
        self.ask("console open type=vnc vnc=[2001:DB8::7]:5901 vnc_password=hunter2")
        device = self.fakes.consoles.asked[0].device
        self.assertEqual((device.address, device.vnc), ("2001:db8::7", "[2001:db8::7]:5901"))
        self.ask("console open type=vnc vnc=kvm:5901 address=10.0.0.9")
        device = self.fakes.consoles.asked[1].device
        self.assertEqual((device.address, device.vnc), ("10.0.0.9", "kvm:5901"))
        self.assertEqual(self.fakes.consoles.asked[1].type, "vnc")

    def test_vnc_alone_tells_no_bmc(self) -> None:
        for line in ("console open vnc=kvm:5901", "power status vnc=kvm:5901", "console open type=vnc vnc="):
            self.refused(line, MissingArgument)
        wrong = self.refused("console open type=vnc vnc=kvm", BadValue)
        self.assertNotIn("address:", str(wrong))
        self.assertIn("vnc: is not the address of a VNC server", str(wrong))

    def test_close(self) -> None:
        for which in ("console=c1", "device=node17", "user=alice"):
            self.fakes.consoles.known = {"c1": console(1), "c2": console(2, device="n2", user="bob")}
            closed = self.ask(f"console close {which}")["closed"]
            self.assertEqual([(row["console"], row["state"]) for row in closed], [("c1", "closed")])
            self.assertEqual(list(self.fakes.consoles.known), ["c2"])

    def test_close_needs_just_one(self) -> None:
        self.refused("console close", MissingArgument)
        self.refused("console close user=", MissingArgument)
        self.refused("console close user=alice device=node17", BadRequest)
        self.refused("console close console=c9", NotFound)

    def test_url(self) -> None:
        self.fakes.consoles.known["c1"] = console(1)
        self.assertEqual(self.ask("console url console=c1"), {"console": "c1", "url": "http://gate:6081/#t=again-c1"})
        self.refused("console url console=c9", NotFound)

    def test_extend(self) -> None:
        self.fakes.consoles.known["c1"] = console(1)
        self.assertEqual(self.ask("console extend console=c1 by=30m")["console"], "c1")
        self.assertEqual(self.fakes.consoles.extended, ("c1", 1800.0))

    def test_which_bmc(self) -> None:
        self.refused(f"console open device=node17 {INLINE}", BadRequest)
        self.refused("console open", MissingArgument)
        self.assertEqual(self.fakes.consoles.asked, [])


class ViewersTests(CommandsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.fakes.consoles.known["c1"] = console(1)

    def test_share(self) -> None:
        answer = self.ask("console share console=c1 user=bob")
        self.assertEqual(answer, {"console": "c1", "viewer": "g1", "url": "http://gate:6081/#t=for-g1"})
        self.ask("console share console=c1 view=no credentials=yes")
        rights = [(grant.user, grant.control, grant.credentials) for grant in self.fakes.consoles.out]
        self.assertEqual(rights, [("bob", False, False), ("", True, True)])
        self.refused("console share console=c9", NotFound)

    def test_viewers(self) -> None:
        for user in ("alice", "bob"):
            self.ask(f"console share console=c1 view=no user={user}")
        there = (viewer(steers=False), viewer(), viewer(peer="2001:db8::1", steers=False, joined_at=2e9))
        self.fakes.consoles.known["c1"] = console(1, viewers=there)
        rights = {"control": True, "credentials": False}
        self.assertEqual(
            self.ask("console viewers console=c1"),
            {
                "viewers": [
                    {
                        "viewer": "g1",
                        "user": "alice",
                        **rights,
                        "connected": 3,
                        "peer": "192.0.2.9, 2001:db8::1",
                        "steers": True,
                        "joined": 1_700_000_003.25,
                    },
                    {
                        "viewer": "g2",
                        "user": "bob",
                        **rights,
                        "connected": 0,
                        "peer": "",
                        "steers": False,
                        "joined": None,
                    },
                ]
            },
        )
        self.refused("console viewers console=c9", NotFound)

    def test_revoke(self) -> None:
        for which, gone in (("viewer=g1", ["g1"]), ("user=bob", ["g2"]), ("all=yes", ["g1", "g2"])):
            self.fakes.consoles.out = []
            self.fakes.consoles.known["c1"] = console(1)
            for user in ("alice", "bob"):
                self.ask(f"console share console=c1 user={user}")
            revoked = self.ask(f"console revoke console=c1 {which}")["revoked"]
            self.assertEqual([row["viewer"] for row in revoked], gone)
            self.assertEqual(len(self.fakes.consoles.out), 2 - len(gone))
            if "g1" in gone:
                self.assertEqual((revoked[0]["connected"], revoked[0]["peer"]), (1, "192.0.2.9"))

    def test_revoke_needs_just_one(self) -> None:
        self.refused("console revoke console=c1", MissingArgument)
        self.refused("console revoke console=c1 user=", MissingArgument)
        self.refused("console revoke console=c1 all=no", MissingArgument)
        self.refused("console revoke console=c1 user=bob all=yes", BadRequest)
        self.refused("console revoke console=c1 viewer=g1 user=bob", BadRequest)
        self.refused("console revoke console=c9 all=yes", NotFound)


class ScreenshotTests(CommandsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.fakes.consoles.known["c1"] = console(1)

    def test_in_the_answer(self) -> None:
        answer = self.ask("console screenshot console=c1")
        facts = {"console": "c1", "width": 640, "height": 480, "bytes": len(PNG)}
        self.assertEqual(answer, {**facts, "png": base64.b64encode(PNG).decode()})

    def test_path(self) -> None:
        wrong = self.refused("console screenshot console=c1 file=shot.png", BadValue)
        self.assertIn("absolute", str(wrong))
        self.refused("console screenshot console=c9", NotFound)


class ScreenshotFileTests(AsyncTestCase):
    """With a thread and a folder."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        self.fakes = Fakes()
        self.fakes.consoles.known["c1"] = console(1)
        self.addCleanup(os.umask, os.umask(0))

    async def take(self, path: Path) -> Mapping[str, Any]:
        line = format_request("console", "screenshot", "console=c1", f"file={path.absolute()}")
        request = parse_request(line.removesuffix(b"\n"))
        assert isinstance(request, Request)
        command, values = self.fakes.table().bind(request)
        return await command.handler(Call(values, lambda _: None))

    async def test_a_new_file(self) -> None:
        path = self.folder / "shot.png"
        answer = await self.take(path)
        facts = {"console": "c1", "width": 640, "height": 480, "bytes": len(PNG)}
        self.assertEqual(answer, {**facts, "file": str(path.absolute())})
        self.assertEqual((path.read_bytes(), path.stat().st_mode & 0o777), (PNG, 0o640))

    async def test_nothing_that_is_there_is_touched(self) -> None:
        there, link, folder = self.folder / "there", self.folder / "link", self.folder / "folder"
        there.write_text("mine")
        link.symlink_to(self.folder / "elsewhere")
        folder.mkdir()
        for path in (there, link, folder, self.folder / "no folder" / "shot.png", Path("/proc/shot.png")):
            with self.assertRaises(BadValue):
                await self.take(path)
        self.assertEqual(there.read_text(), "mine")
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["folder", "link", "there"])

    async def test_no_room(self) -> None:
        """A file that could not be written as a whole is not left."""

        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        self.addCleanup(signal.signal, signal.SIGXFSZ, handler)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, before)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
        with self.assertRaises(BadValue) as caught:
            write_new(str(self.folder / "shot.png"), PNG)
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        self.assertIn("File too large", caught.exception.message)
        self.assertEqual(list(self.folder.iterdir()), [])


class DaemonTests(CommandsTestCase):
    def test_status(self) -> None:
        self.assertEqual(self.ask("daemon status"), {"version": "9.9", "consoles": 2})

    def test_stop(self) -> None:
        self.assertEqual(self.ask("daemon stop"), {"closed": 2})
        self.assertTrue(self.fakes.daemon.stopped)
