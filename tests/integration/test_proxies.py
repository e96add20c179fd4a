"""Proxies on the whole daemon: each field of the form changes what it says."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import urlsplit

from twisted.internet.threads import deferToThread

from tests.integration.test_html5_console import Html5World
from tests.integration.test_java_versions import FOLDER, JavaVersionsCase
from tests.integration.test_relay_certificates import fingerprint, shown
from tests.integration.test_sharing import posted
from tests.integration.test_ssh_whole import SshWorld
from tests.support import java_archive, leftovers
from tests.support.ports import free_ports
from tests.support.relay_tls import HOST, Made
from tests.support.scratch import scratch
from tests.support.viewer import open_page
from tests.support.wire_client import Reply
from tests.support.world import SMALL_PROGRAM, World, port_of


class ProxyCase(World):
    async def proxy(self, words: str, name: str = "p1") -> dict[str, Any]:
        """A proxy for the location Lab."""

        return await self.client.must(f"proxy add name={name} locations=Lab {words}")

    async def place(self, *devices: str, location: str = "Lab") -> None:
        for device in devices or ("node1",):
            await self.client.must(f"device set name={device} location={location}")

    async def refused(self, words: str, code: str, *said: str) -> Reply:
        reply = await self.client.ask(words)
        self.assertEqual(reply.code, code, reply.body)
        for words in said:
            self.assertIn(words, reply.body["message"])
        return reply


class FormTests(ProxyCase):
    """What does not matter of a console's programs."""

    settings: ClassVar[dict[str, Any]] = {"panel": {"chromium": SMALL_PROGRAM}}

    async def test_automatically_close_sessions(self) -> None:
        await self.place()
        await self.proxy("type=panel idle=1m")
        self.assertEqual((await self.show((await self.opened())["console"]))["idle"], 60)
        opened = await self.opened("device=node1 idle=3s existing=replace")
        await self.use(opened["url"])
        self.assertEqual((await self.closes(opened["console"]))["reason"], "idle")
        await self.client.must("proxy set name=p1 idle=never")
        opened = await self.opened()
        self.assertIsNone((await self.show(opened["console"]))["idle"])
        opened = await self.opened("device=node1 idle=5m existing=new")
        self.assertEqual((await self.show(opened["console"]))["idle"], 300)

    async def test_disable_login_buttons(self) -> None:
        await self.place()
        await self.proxy("type=panel login_buttons=no")
        page = await open_page(self, (await self.opened())["url"])
        await page.phase("connected")
        self.assertTrue(await page.visible("#text-button"))
        self.assertFalse(await page.visible("#username-button") or await page.visible("#password-button"))
        self.assertEqual(await posted(page, "api/type", {"what": "password"}), (403, "forbidden"))
        await self.client.must("proxy set name=p1 login_buttons=default")
        page = await open_page(self, (await self.opened())["url"])
        await page.phase("connected")
        self.assertTrue(await page.visible("#password-button"))

    async def test_encrypted_with_its_certificate(self) -> None:
        made = Made(self.folder, names=("IP:127.0.0.1",))
        other = Made(self.folder, "other")
        await self.place()
        await self.refused("proxy add name=p1 locations=Lab encrypt=yes", "bad-value", "no certificate is named")
        await self.refused(
            f"proxy add name=p1 locations=Lab encrypt=yes certificate={made.certificate} key={other.key}",
            "bad-value", "key: the key in", "does not belong",
        )  # fmt: skip
        await self.proxy(f"type=panel encrypt=yes certificate={made.certificate} key={made.key}")
        opened = await self.opened()
        self.assertTrue(opened["url"].startswith("https://127.0.0.1:"))
        self.assertEqual(opened["warnings"], [])
        print_ = await deferToThread(shown, port_of(opened["url"]))
        self.assertEqual(print_, fingerprint(made.certificate))
        page = await open_page(self, opened["url"])
        await page.phase("connected")
        port = urlsplit(opened["url"]).port
        self.assertEqual({socket["url"] for socket in await page.sockets()}, {f"wss://127.0.0.1:{port}/vnc"})
        await self.client.must("proxy set name=p1 encrypt=no")
        plain = await self.opened()
        self.assertTrue(plain["url"].startswith("http://"))
        self.assertFalse(plain["reused"])

    async def test_what_the_form_needs_and_what_cannot_be(self) -> None:
        await self.place()
        for words, code, said in (
            ("type=panel-debug", "forbidden", "switched off"),
            ("agent=east", "bad-value", "no agent east"),
            ("java=-", "bad-value", "name of a Java"),
        ):
            await self.refused(f"proxy add name=p1 locations=Lab {words}", code, said)
        await self.refused("console open device=node1 type=panel-debug", "forbidden", "switched off")
        await self.proxy("type=panel")
        form = await self.client.must("proxy form")
        choices = {field["name"]: [choice["value"] for choice in field["choices"]] for field in form["fields"]}
        self.assertEqual((choices["agent"], choices["locations"]), (["local"], ["Lab"]))
        self.assertEqual(choices["encrypt"], ["yes", "no"])
        self.assertEqual(choices["disable_login_buttons"], ["default", "yes", "no"])
        limits = {name: form["limits"].pop(name) for name in ("idle_min", "idle_max")}
        self.assertEqual(limits, {"idle_min": 60, "idle_max": 31 * 86400})
        self.assertEqual((form["limits"]["displays"], form["limits"]["relay_ports"]), (40, 40))
        self.assertEqual(form["defaults"]["fall_back"], ["java", "html5", "panel"])
        status = await self.client.must("daemon status")
        self.assertEqual((status["limits"], status["defaults"]), (form["limits"], form["defaults"]))
        opened = await self.opened()
        self.assertEqual([one["consoles"] for one in (await self.client.must("proxy list"))["proxies"]], [1])
        self.assertEqual((await self.client.must("proxy remove name=p1"))["consoles"], 1)
        shown = await self.show(opened["console"])
        self.assertEqual((shown["state"], shown["proxy"]), ("ready", "p1"))
        await self.refused("console open device=node1 proxy=p1", "not-found")


class GatewayTests(ProxyCase):
    """One port for all, whose own certificate is another."""

    async def _prepare(self) -> None:
        own = scratch(self)
        relay = Made(own)
        settings = {
            "gateway": f"127.0.0.1:{free_ports(1)[0]}",
            "certificate": str(relay.certificate),
            "key": str(relay.key),
        }
        self.own = fingerprint(relay.certificate)
        self.settings = {"relay": settings, "panel": {"chromium": SMALL_PROGRAM}}  # type: ignore[misc]
        await super()._prepare()

    async def test_chosen_by_name(self) -> None:
        made = Made(self.folder, names=("DNS:kvm.example",))
        nameless, taken = Made(self.folder, "nameless", names=()), Made(self.folder, "taken", names=(f"DNS:{HOST}",))
        await self.place()
        for wrong, words in ((nameless, "names no host"), (taken, f"is for {HOST}, and so is relay.certificate")):
            await self.refused(
                f"proxy add name=p1 locations=Lab encrypt=yes certificate={wrong.certificate} key={wrong.key}",
                "bad-value", words,
            )  # fmt: skip
        await self.proxy(f"type=panel encrypt=yes certificate={made.certificate} key={made.key}")
        opened = await self.opened()
        port = port_of(opened["url"])
        self.assertEqual(urlsplit(opened["url"]).hostname, "kvm.example")
        for name, expected in (("kvm.example", fingerprint(made.certificate)), (HOST, self.own), (None, self.own)):
            self.assertEqual(await deferToThread(shown, port, name), expected)


class TypeTests(ProxyCase, Html5World):
    """Real programs, at vendors' panels."""

    async def stages(self, console: str) -> list[str]:
        return [stage["name"] for stage in (await self.show(console))["stages"]]

    async def test_each(self) -> None:
        java = await self.node("supermicro", "java-board")
        html5 = await self.node("openbmc", "html5-board")
        await self.place("java-board", "html5-board")
        await self.proxy("type=java")
        opened = await self.opened("device=java-board")
        await java.happens("kvm-connected")
        self.assertEqual((opened["type"], opened["proxy"]), ("java", "p1"))

        fallen = await self.opened("device=html5-board")
        self.assertEqual(fallen["type"], "html5")
        self.assertIn("The Java console does not work here: OpenBMC has no Java console.", fallen["warnings"][0])
        self.assertIn("fall-back", await self.stages(fallen["console"]))
        await self.key(html5, fallen)
        self.assertTrue((await self.opened("device=html5-board"))["reused"])
        await self.refused("console open device=html5-board type=java", "bmc-unsupported")

        await self.client.must("proxy set name=p1 type=panel")
        seen = len(java.of("request", path="/favicon.ico"))
        panel = await self.opened("device=java-board")
        self.assertEqual((panel["type"], panel["warnings"]), ("panel", []))
        await java.happens("request", seen + 1, path="/favicon.ico")  # Chromium's

        for console in (opened, fallen, panel):
            await self.close(console["console"])
        await self.nothing_left()
        self.assertEqual((java.signs, html5.signs), ((1, 1), (1, 1)))


class JavaTests(ProxyCase, JavaVersionsCase):
    async def test_java_version(self) -> None:
        await self.place()
        self.put_archive(java_archive.launcher("1.8.0_121"))
        await self.ask("java install version=jdk_8u121")
        await self.ask("java use version=debian_17")
        await self.proxy("type=java java=jdk_8u121")
        oracle, debian = {f"{self.java_dir}/{FOLDER}/bin/java"}, {f"{java_archive.DEBIAN}/bin/java"}
        opened = await self.opened()
        self.assertEqual(self.running(opened["console"]), oracle)
        self.assertEqual(opened["warnings"], [])
        on_request = await self.opened("device=node1 java=debian_17")
        self.assertEqual((on_request["reused"], self.running(on_request["console"])), (False, debian))


class AgentTests(ProxyCase, SshWorld):
    more: ClassVar[dict[str, Any]] = {"panel": {"chromium": SMALL_PROGRAM, "debug": True}}

    async def test_location_picks_the_proxy_and_its_agent(self) -> None:
        await self.proxy("type=panel agent=east", "east")
        await self.client.must("proxy add name=west locations='West,Row 2' type=panel")
        await self.place("node1")
        await self.client.must(f"{self.add_device('node2')} location='Row 2'")
        east, west = await self.opened("device=node1"), await self.opened("device=node2")
        self.assertEqual([(one["proxy"], one["agent"]) for one in (east, west)], [("east", "east"), ("west", "local")])
        there = " ".join(leftovers.sandboxed(self.jobs / east["console"]).values())
        here = " ".join(leftovers.sandboxed(self.daemon.jobs / west["console"]).values())
        for commands in (there, here):
            self.assertIn("Xvnc", commands)

        # Two for one location: the one with the fewest consoles, then by name.
        await self.client.must("proxy set name=west locations=Lab")
        opened = [await self.opened(f"device=node1 user=u{number}") for number in range(3)]
        self.assertEqual([one["proxy"] for one in opened], ["east", "west", "east"])
        again = await self.opened("device=node1 user=u1")
        self.assertEqual((again["proxy"], again["reused"]), ("west", True))

        # The browser's debug mode is for local use.
        for command in ("proxy set name=east", "console open device=node1 proxy=east"):
            await self.refused(f"{command} type=panel-debug", "forbidden", "for local use only, and east is another")
        await self.client.must("proxy set name=west type=panel-debug")
        debug = await self.opened("device=node2 proxy=west existing=new")
        self.assertEqual((debug["type"], debug["agent"]), ("panel-debug", "local"))

        # What is no console goes by the location's agent as well.
        self.assertEqual((await self.client.must("power status device=node1"))["power"], "off")
        await self.client.must("console close device=node1")
        serving = self.sshd.serving()
        await self.sshd.stop()
        for pid in serving:
            leftovers.kill(pid)
        await self.refused("power status device=node1", "agent-unreachable")
        self.assertEqual((await self.client.must("power status device=node2"))["power"], "off")
        self.assertEqual((await self.client.must("power status device=node1 agent=local"))["power"], "off")
