"""What consoles may connect to: the ports that families declare, those that a JNLP names, and what a job is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.console.opening import DebugOpening, PanelOpening, Workshop
from ipmiproxyd.console.reach import reach_of
from ipmiproxyd.model import Device, Reach, Secret
from ipmiproxyd.tools.panel_http import PanelHttp
from ipmiproxyd.tools.vendors import VendorDesk
from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.ports import ALL, ranges, written
from ipmiproxyd.vendors.registry import BUILT_IN, by_key
from ipmiproxyd.wire.jnlp import Applet, Jar, Jnlp, parse
from ipmiproxyd.wire.jnlp_ports import PORTS_LIMIT, named_ports
from tests.simulator.vendors import PERSONALITIES
from tests.support.console_life import Life
from tests.support.talk import HOST, PanelInProcess, make_panel

DEVICE = Device(address="192.0.2.1")


def reaches(reach: Iterable[Reach], address: str, port: int) -> bool:
    return any(
        one.address == address and any(first <= port <= last for first, last in one.ports) for one in reach
    )


class PortsTests(SynchronousTestCase):
    def test_ranges(self) -> None:
        self.assertEqual(ranges([443, 80, (82, 90), 81, 85, 443]), ((80, 90), (443, 443)))
        self.assertEqual(ranges(()), ())
        self.assertEqual(ranges([*ALL, 443]), ALL)
        self.assertEqual(written([5901, 5900, 443]), ["443", "5900-5901"])

    def test_kinds(self) -> None:
        families = by_key()
        self.assertEqual(written(families["idrac9"].ports("panel")), ["5900"])
        self.assertEqual(families["idrac9"].ports("html5"), ())
        self.assertEqual(families["idrac8"].ports("panel"), (5900,))
        self.assertEqual(set(families["ami"].needed_ports()), {"java"})


class NamedPortsTests(SynchronousTestCase):
    def jnlp(self, *arguments: str, properties: dict[str, str] | None = None, **parameters: str) -> Jnlp:
        applet = Applet(parameters={name: Secret(value) for name, value in parameters.items()})
        return Jnlp(
            codebase="https://bmc/",
            origin="https://bmc",
            jars=(Jar(url="https://bmc/a.jar"),),
            arguments=tuple(map(Secret, arguments)),
            applet=applet if parameters else None,
            properties={name: Secret(value) for name, value in (properties or {}).items()},
        )

    def test_by_name(self) -> None:
        self.assertEqual(named_ports(self.jnlp("ip=10.0.0.7", "kmport=5900", "vport=5900", "apcp=1")), (5900,))
        self.assertEqual(named_ports(self.jnlp("-kvmport", "7578", "-websecureport", "443")), (7578, 443))
        self.assertEqual(named_ports(self.jnlp("VncPort=80", "-singleportenabled", "1", "-vmsupport", "1")), (80,))
        self.assertEqual(named_ports(self.jnlp(port="2198", RCINFO6="17990", INFO0="abc", width="16")), (2198, 17990))
        self.assertEqual(named_ports(self.jnlp(properties={"kvm.port": "99", "other": "5900"})), (99,))

    def test_by_place(self) -> None:
        self.assertEqual(named_ports(self.jnlp("10.0.0.7", "tok", "null", "63630", "623", "2", "1")), (63630,))
        self.assertEqual(named_ports(self.jnlp("-cdstate", "5120", "-kvmtoken", "65000")), ())

    def test_what_is_no_port(self) -> None:
        for text in ("0", "65536", "-1", "05900", "5900x", "", "٥٩٠٠", "9" * 5000):
            self.assertEqual(named_ports(self.jnlp(f"port={text}", text, "-port", text)), (), text)
        self.assertEqual(len(named_ports(self.jnlp(*map(str, range(2000, 2100))))), PORTS_LIMIT)


class FamilyTests(SynchronousTestCase):
    """What the simulated panels tell their viewers is declared, or can be read from what they tell."""

    PORT = 45678

    def panel(self, family: Family, port: int) -> PanelInProcess:
        more = {"firmware": "form"} if family.key == "irmc" else {}
        kind: Any = PERSONALITIES[family.key]
        return PanelInProcess(make_panel(kind, users={"admin": "Passw0rd1"}, kvm_port=port, **more))

    def test_java(self) -> None:
        for family in BUILT_IN:
            if "java" in family.consoles:
                panel = self.panel(family, self.PORT)
                site = panel.site(username="admin")
                session = panel.drive(family.sign_in(site))
                jnlp = parse(panel.drive(family.jnlp(site, session)), base=f"https://{HOST}/")
                self.assertIn(self.PORT, named_ports(jnlp), family.key)
                reach = reach_of(DEVICE, {DEVICE.address: DEVICE.address}, family.java_ports)
                for port in set(named_ports(jnlp)) - {self.PORT}:
                    self.assertTrue(reaches(reach, DEVICE.address, port), (family.key, port))

    def test_html5(self) -> None:
        for key in ("idrac7", "idrac8", "idrac9"):
            family = by_key()[key]
            panel = self.panel(family, 0)
            site = panel.site(username="admin")
            page = panel.drive(family.html5(site, panel.drive(family.sign_in(site))))
            named = [int(text) for name, text in parse_qsl(urlsplit(page.path).query) if "port" in name.lower()]
            reach = reach_of(DEVICE, {DEVICE.address: DEVICE.address}, family.html5_ports)
            self.assertTrue(named)
            for port in named:
                self.assertTrue(reaches(reach, DEVICE.address, port), (key, port))


class ReachTests(SynchronousTestCase):
    def test_one_host(self) -> None:
        self.assertEqual(
            reach_of(DEVICE, {"192.0.2.1": "192.0.2.1"}, (5900, 5901)),
            (Reach(address="192.0.2.1", ports=((443, 443), (5900, 5901))),),
        )
        six = Device(address="2001:db8::1", web="http://[2001:db8::1]:81")
        self.assertEqual(
            reach_of(six, {"2001:db8::1": "2001:db8::1"}, ()), (Reach(address="2001:db8::1", ports=((81, 81),)),)
        )

    def test_two_hosts(self) -> None:
        device = Device(address="bmc.example", web="https://panel.example:8443")
        both = {"panel.example": "192.0.2.7", "bmc.example": "192.0.2.8"}
        self.assertEqual(
            reach_of(device, both, (5900,)),
            (
                Reach(address="192.0.2.7", ports=((5900, 5900), (8443, 8443)), names=("panel.example",)),
                Reach(address="192.0.2.8", ports=((5900, 5900),), names=("bmc.example",)),
            ),
        )
        self.assertEqual(len(reach_of(device, both, ())), 1)
        self.assertEqual(len(reach_of(device, {"panel.example": "192.0.2.7"}, (5900,))), 1)
        (same,) = reach_of(device, dict.fromkeys(both, "192.0.2.7"), (5900,))
        self.assertEqual(same.names, ("panel.example", "bmc.example"))


class FakePanels:
    async def trusted(self, *_: Any) -> tuple[str, str | None]:
        return "modern", "a-pin"


class OpeningTests(Life):
    """What the job of a console is told."""

    def open(self, kind: type[PanelOpening], device: Device) -> tuple[Reach, ...]:
        desk = VendorDesk(cast(PanelHttp, FakePanels()), self.store, by_key(), {self.agent.name: self.agent})

        async def shown(_: Any) -> None: ...

        shop = Workshop(**{**self.shop_parts, "panels": cast(PanelHttp, FakePanels())})
        stages = kind(shop, self.manager.serve, desk, shown)
        cast(Any, self.manager)._stages["panel"] = stages
        self.console = self.opened(device=device, existing="new")
        return self.agent.launched[-1].reach

    def test_a_panel_that_nobody_knows(self) -> None:
        for kind in (PanelOpening, DebugOpening):
            reach = self.open(kind, DEVICE)
            self.assertEqual(reach, (Reach(address="192.0.2.1", ports=ALL),))

    def test_a_panel_whose_family_is_known(self) -> None:
        key = f"{self.agent.name} https://192.0.2.1"
        self.successResultOf(Deferred.fromCoroutine(self.store.put("vendor", key, {"family": "idrac8", "why": ""})))
        wanted = (Reach(address="192.0.2.1", ports=((443, 443), (5900, 5900))),)
        self.assertEqual(self.open(PanelOpening, DEVICE), wanted)
        told = Device(address="192.0.2.2", vendor="xcc", web="https://192.0.2.1:8443")
        self.assertEqual(
            self.open(PanelOpening, told),
            (
                Reach(address="192.0.2.1", ports=((3900, 3900), (8443, 8443))),
                Reach(address="192.0.2.2", ports=((3900, 3900),)),
            ),
        )
        self.assertEqual(self.open(PanelOpening, Device(address="192.0.2.1", vendor="gone"))[0].ports, ALL)

    def test_debugging(self) -> None:
        self.open(DebugOpening, DEVICE)
        program = self.agent.launched[-1].programs[-1]
        self.assertEqual(self.manager.show(self.console.id).log, f"/jobs/{self.agent.launched[-1].id}/log")
        self.assertIn("--v=1", program.argv)
