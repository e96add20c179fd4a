"""The commands about vendors and Javas."""

from __future__ import annotations

from ipmiproxyd.errors import BadValue, MissingArgument, NotFound, UnknownArgument
from tests.unit.test_control_commands import INLINE, CommandsTestCase


class VendorTests(CommandsTestCase):
    def test_list_probe_forget(self) -> None:
        node = self.add_node()
        self.assertEqual(self.ask("vendor list")["vendors"][0]["vendor"], "acme")
        found = self.ask("vendor probe device=node17")
        self.assertEqual((found["vendor"], found["why"]), ("acme", "as seen from east"))
        self.assertEqual(self.ask(f"vendor probe {INLINE}")["device"], "10.0.0.9:623")
        forgotten = self.ask("vendor forget device=node17")
        self.assertEqual(forgotten, {"device": "node17", "panel": node.web_url})

    def test_refusals(self) -> None:
        self.ask("device add name=unknown address=10.0.0.18")
        self.refused("vendor probe", MissingArgument)
        self.refused("vendor probe device=node18", NotFound)
        self.refused("vendor forget device=unknown", NotFound)
        self.refused("vendor list device=node18", UnknownArgument)


class JavaTests(CommandsTestCase):
    def test_each(self) -> None:
        self.assertEqual(self.ask("java list")["agent"], "east")
        for words in ("use version=jdk_8u121", "install version=jdk_7u80", "register version=mine home=/opt/jre"):
            self.assertEqual(self.ask(f"java {words}")["name"], words.split()[1].removeprefix("version="))
        self.assertEqual(self.ask("java remove version=mine"), {"removed": "mine"})
        self.assertEqual(
            self.fakes.javas.asked,
            [
                ("use", "east", "jdk_8u121"),
                ("install", "east", "jdk_7u80"),
                ("register", "east", "mine", "/opt/jre"),
                ("remove", "east", "mine"),
            ],
        )

    def test_refusals(self) -> None:
        self.refused("java use", MissingArgument)
        self.refused("java register version=mine", MissingArgument)
        self.refused("java use version='not a name'", BadValue)
        self.refused("java list version=jdk_8u121", UnknownArgument)
