"""Host names: resolved on the agent, once for each opening."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.errors import BmcUnreachable, ToolMissing
from ipmiproxyd.model import Command, Device, Outcome
from ipmiproxyd.tools.curl import TLS_PROFILES, Curl, Trust
from ipmiproxyd.tools.names import Names, resolve
from ipmiproxyd.vendors.talk import Request
from tests.support.fake_rooms import FakeAgent

T = TypeVar("T")
NAMED = Device(name="n", address="bmc.example", web="https://panel.example:8443")


class Resolver(FakeAgent):
    """An agent that knows names: getent's outcomes."""

    def __init__(self, known: Mapping[str, Outcome]) -> None:
        super().__init__()
        self.known = dict(known)
        self.commands: list[Command] = []
        self.answers = b""

    async def run(self, command: Command) -> Outcome:
        self.commands.append(command)
        if command.argv[0] == "getent":
            return self.known.get(command.argv[-1], Outcome(status=2))
        return Outcome(status=0, stdout=self.answers)

    @property
    def asked(self) -> list[str]:
        return [command.argv[-1] for command in self.commands if command.argv[0] == "getent"]


def told(*addresses: str) -> Outcome:
    lines = "".join(f"{address:15} {kind}\n" for address in addresses for kind in ("STREAM x", "DGRAM", "RAW"))
    return Outcome(status=0, stdout=lines.encode())


class NamesCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.agent = Resolver({"panel.example": told("192.0.2.7", "192.0.2.8"), "bmc.example": told("2001:db8::9")})
        self.names = Names()

    def done(self, work: Coroutine[Any, Any, T]) -> T:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def error(self, host: str) -> BmcUnreachable:
        failure = self.failureResultOf(Deferred.fromCoroutine(resolve(self.agent, host)), BmcUnreachable)
        assert isinstance(failure.value, BmcUnreachable)
        return failure.value


class ResolveTests(NamesCase):
    def test_addresses_need_nobody(self) -> None:
        for host, address in (("192.0.2.7", "192.0.2.7"), ("2001:DB8:0::7", "2001:db8::7")):
            self.assertEqual(self.done(resolve(self.agent, host)), (address,))
        self.assertEqual(self.agent.commands, [])

    def test_names(self) -> None:
        self.assertEqual(self.done(resolve(self.agent, "panel.example")), ("192.0.2.7", "192.0.2.8"))
        self.agent.known["local.example"] = told("fe80::1%eth0", "192.0.2.9")
        self.assertEqual(self.done(resolve(self.agent, "local.example")), ("192.0.2.9",))

    def test_a_name_that_leads_to_the_agent_itself(self) -> None:
        for address in ("127.0.0.1", "127.0.1.1", "::1", "0.0.0.0", "::ffff:127.0.0.1"):
            self.agent.known["evil.example"] = self.agent.known["LocalHost"] = told(address)
            self.assertIn("to itself", self.error("evil.example").message)
            self.assertEqual(self.done(resolve(self.agent, "LocalHost")), (str(ipaddress.ip_address(address)),))
        for address in ("169.254.169.254", "0.0.0.1", "224.0.0.1", "255.255.255.255", "fe80::1", "ff02::1", "::",
                        "::127.0.0.1", "64:ff9b::127.0.0.1", "::ffff:169.254.169.254"):  # fmt: skip
            self.agent.known["evil.example"] = told(address)
            self.assertIn("to nobody's", self.error("evil.example").message)
        for address in ("64:ff9b::192.0.2.7", "fd00::7", "10.0.0.7"):
            self.agent.known["good.example"] = told(address)
            self.assertEqual(self.done(resolve(self.agent, "good.example")), (str(ipaddress.ip_address(address)),))
        self.agent.known["evil.example"] = told("127.0.0.1", "192.0.2.7")
        self.assertEqual(self.done(resolve(self.agent, "evil.example")), ("192.0.2.7",))

    def test_a_name_is_no_option(self) -> None:
        self.error("-s")
        self.assertEqual(self.agent.commands[-1].argv, ("getent", "--", "ahosts", "-s"))

    def test_in_plain_words(self) -> None:
        self.assertEqual(self.error("nobody").message, "The name nobody is not known on the agent local.")
        self.agent.known["slow"] = Outcome(status=None, signal=15, timed_out=True)
        self.assertIn("not resolved within 10 seconds", self.error("slow").message)
        self.agent.known["odd"] = Outcome(status=1, stderr=b"getent: broken\n")
        self.assertIn("getent: broken", self.error("odd").message)
        self.agent.known["none"] = told()
        self.error("none")


class HoldTests(NamesCase):
    def test_the_address_that_answers(self) -> None:
        async def panel() -> str:
            async with self.names.hold(self.agent, NAMED) as addresses:
                return addresses["panel.example"]

        for said, address in ((b"192.0.2.8", "192.0.2.8"), (b"", "192.0.2.7"), (b"192.0.2.66", "192.0.2.7")):
            self.agent.answers = said
            self.assertEqual(self.done(panel()), address)
        self.assertIn(
            b'resolve = "panel.example:8443:192.0.2.7,192.0.2.8"\n',
            next(command.stdin for command in self.agent.commands if command.argv[0] == "curl"),
        )

    def test_once_for_an_opening(self) -> None:
        async def opening() -> None:
            async with self.names.hold(self.agent, NAMED) as addresses:
                self.assertEqual(addresses, {"panel.example": "192.0.2.7", "bmc.example": "2001:db8::9"})
                self.agent.known = {"panel.example": told("192.0.2.66")}
                async with self.names.hold(self.agent, NAMED) as others:
                    self.assertEqual(others, addresses)
                self.assertEqual(self.names.held(self.agent, "PANEL.example"), "192.0.2.7")
                self.assertIsNone(self.names.held(Resolver({}), "bmc"))

        self.done(opening())
        self.assertEqual(self.agent.asked, ["panel.example", "bmc.example"])
        self.assertIsNone(self.names.held(self.agent, "panel.example"))

    def test_given_back_on_every_way_out(self) -> None:
        async def opening() -> None:
            async with self.names.hold(self.agent, NAMED):
                raise ToolMissing("no")

        self.failureResultOf(Deferred.fromCoroutine(opening()), ToolMissing)
        self.assertIsNone(self.names.held(self.agent, "panel.example"))

    def test_cancelled(self) -> None:
        never: Deferred[None] = Deferred()

        async def opening() -> None:
            async with self.names.hold(self.agent, NAMED):
                await never

        waiting = Deferred.fromCoroutine(opening())
        waiting.addErrback(lambda _: None)
        self.assertIsNotNone(self.names.held(self.agent, "bmc.example"))
        waiting.cancel()
        self.assertIsNone(self.names.held(self.agent, "bmc.example"))

    def test_only_the_panel_has_to_be_known(self) -> None:
        async def addresses() -> Mapping[str, str]:
            async with self.names.hold(self.agent, NAMED) as found:
                return dict(found)

        del self.agent.known["bmc.example"]
        self.assertEqual(self.done(addresses()), {"panel.example": "192.0.2.7"})
        self.agent.known.clear()
        self.failureResultOf(Deferred.fromCoroutine(addresses()), BmcUnreachable)

    def test_curl_holds_to_it(self) -> None:
        async def ask(device: Device) -> str:
            """What every kind of request is told."""

            curl, url, profile = Curl(names=self.names), device.web_url, next(iter(TLS_PROFILES))
            async with self.names.hold(self.agent, device):
                with contextlib.suppress(Exception):
                    await curl.look(self.agent, url, profile)
                with contextlib.suppress(Exception):
                    await curl.ask(self.agent, url, Request("/"), profile, Trust())
                with contextlib.suppress(Exception):
                    await curl.fetch(self.agent, url, Request("/"), profile, Trust(), "/x")
            said = [command.stdin.decode() for command in self.agent.commands if command.argv[0] != "getent"][-3:]
            pins = {line for text in said for line in text.splitlines() if line.startswith("resolve")}
            self.assertEqual(len(said), 3)
            self.assertTrue(all(text.count("resolve") == len(pins) for text in said))
            return " ".join(pins)

        self.assertEqual(self.done(ask(NAMED)), 'resolve = "panel.example:8443:192.0.2.7"')
        self.agent.commands.clear()
        six = Device(address="bmc.example")
        self.assertEqual(self.done(ask(six)), 'resolve = "bmc.example:443:[2001:db8::9]"')
        self.agent.commands.clear()
        self.assertEqual(self.done(ask(Device(address="192.0.2.1", web="http://[2001:db8::1]:81"))), "")



