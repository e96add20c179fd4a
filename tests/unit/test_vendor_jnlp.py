"""Every family's description of its console, as its simulated panel writes it: it is understood, and names files that
the panel has and a program that the simulated console knows."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.vendors.family import Family
from ipmiproxyd.vendors.registry import BUILT_IN
from ipmiproxyd.vendors.talk import Request
from ipmiproxyd.wire.jars import jar_urls, needed
from ipmiproxyd.wire.jnlp import parse
from tests.simulator import kvm
from tests.simulator.vendors import PERSONALITIES
from tests.support.talk import HOST, PanelInProcess, make_panel

OPTIONAL = "JViewer-SOC.jar"  # real panels name it and do not have it


class AnyJar(dict[str, bytes]):
    def get(self, name: str, default: Any = None) -> Any:
        return b"a jar"


class DescriptionTests(SynchronousTestCase):
    def test_every_family(self) -> None:
        families = [family for family in BUILT_IN if "java" in family.consoles]
        self.assertGreater(len(families), 10)
        for family in families:
            self.check(family)

    def check(self, family: Family) -> None:
        kind, name = PERSONALITIES[family.key], "admin"
        more = {"firmware": "form"} if family.key == "irmc" else {}  # the others want Digest, which is curl's work
        panel = PanelInProcess(make_panel(kind, users={name: "Passw0rd1"}, kvm_port=7578, jars=AnyJar(), **more))
        session = panel.drive(family.sign_in(panel.site(username=name)))
        document = panel.drive(family.jnlp(panel.site(username=name), session))
        jnlp = parse(document, base=f"https://{HOST}/")
        known = (*kvm.MAIN_CLASSES, kvm.ILO_APPLET, kvm.HUAWEI_APPLET)
        self.assertIn(jnlp.main_class, known, family.key)
        self.assertEqual(jnlp.applet is not None, jnlp.main_class not in kvm.MAIN_CLASSES)
        self.assertTrue(jnlp.arguments or (jnlp.applet and jnlp.applet.parameters))
        for jar in needed(jnlp, "x86_64"):
            if not jar.url.endswith(OPTIONAL):
                self.assertTrue(self.has(panel, jar_urls(jar), session.cookies), (family.key, jar.url))

    def has(self, panel: PanelInProcess, urls: tuple[str, ...], cookies: Any) -> bool:
        for url in urls:
            parts = urlsplit(url)
            path = f"{parts.path}?{parts.query}" if parts.query else parts.path
            if panel.ask(Request(path, cookies=cookies)).status == 200:
                return True
        return False
