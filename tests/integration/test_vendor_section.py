"""A board that a site describes in its configuration file: from the section in docs/vendors.md to the key."""

from __future__ import annotations

import os
import re
import sys
import tomllib
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import TestCase

from tests.support.daemon import REPOSITORY
from tests.support.scratch import scratch
from tests.support.world import World

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "vendors.md"


def section() -> str:
    """As the document has it."""

    found = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    return found[1]


class AcmeTests(World):
    timeout: ClassVar[float] = 60
    personality = "acme"
    settings: ClassVar[dict[str, Any]] = tomllib.loads(section())

    async def test_from_the_section_to_the_key(self) -> None:
        families = {family["vendor"]: family for family in (await self.client.must("vendor list"))["vendors"]}
        self.assertEqual(families["acme"]["evidence"], "described in the configuration file")
        found = await self.client.must("vendor probe device=node1")
        self.assertEqual((found["vendor"], found["label"], found["consoles"]), ("acme", "Acme BMC-1", ["java"]))
        self.assertIn("/ has the text", found["why"])
        opened = await self.opened("device=node1 type=java")
        await self.server.panel.recorded("kvm-connected", limit=20.0)
        await self.use(opened["url"])
        self.assertEqual((await self.server.panel.recorded("kvm-key"))["char"], "a")
        await self.close(opened["console"])
        await self.nothing_left()
        signs = [len(self.server.panel.record(kind)) for kind in ("sign-in", "sign-out")]
        self.assertEqual(signs, [1, 1])

    async def test_a_wrong_password(self) -> None:
        await self.client.must("device set name=node1 password=wrong")
        for _ in range(2):
            refused = await self.open("device=node1 type=java")
            self.assertEqual(refused.code, "bmc-auth")
        self.assertEqual(len(self.server.panel.record("sign-in")), 1)


class CheckTests(TestCase):
    timeout: ClassVar[float] = 30

    async def check(self, text: str) -> tuple[int, list[str]]:
        """``ipmiproxyd --check-config``: its exit status and what it says."""

        path = scratch(self) / "ipmiproxyd.toml"
        path.write_text(text)
        argv = ["-m", "ipmiproxyd", "--check-config", "--config", str(path)]
        env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        out, err, status = await getProcessOutputAndValue(sys.executable, argv, env=env, path="/")
        return status, (out + err).decode().splitlines()

    async def test_the_example(self) -> None:
        status, _ = await self.check(section())
        self.assertEqual(status, 0)

    async def test_every_mistake_has_its_place(self) -> None:
        broken = section().replace('cookie = "ACME"', 'cookies = "ACME"').replace("{cookie}.jnlp", "{token}.jnlp")
        status, lines = await self.check(broken.replace('sign-in-path = "/', 'sign-in-path = "'))
        self.assertNotEqual(status, 0)
        for place, words in (
            ("cookies", "there is no such setting, did you mean cookie?"),
            ("cookie", "is missing"),
            ("jnlp-path", "{token} is not known there; it can have address, cookie, csrf"),
            ("sign-in-path", "must be a path on the panel"),
        ):
            self.assertTrue(any(f"vendor.acme.{place}: {words}" in line for line in lines), (place, lines))
