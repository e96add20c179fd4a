"""What is started for a panel: the display, the browser with its policy, and curl before them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents import box, inside, sandbox
from ipmiproxyd.errors import BmcError, BmcUnreachable, ProxyError
from ipmiproxyd.model import POLICY_PLACES, Command, Job, JobSpec, JobStage, Outcome, Program, Ready, StreamAddress
from ipmiproxyd.tools import steer
from ipmiproxyd.tools.browser import PanelBrowser, origin_of
from ipmiproxyd.tools.curl import Curl, NoCommonTls, spki_pin
from ipmiproxyd.tools.xvnc import Display
from ipmiproxyd.vendors.family import Page
from ipmiproxyd.vendors.ports import ALL, Port
from tests.simulator.panel import make_certificate
from tests.support.fake_rooms import FakeAgent

URL = "https://10.0.0.7:8443"
AGENT = FakeAgent()


class DisplayTests(SynchronousTestCase):
    def test_unix_socket(self) -> None:
        (server, manager), files = Display(geometry="800x600").programs(7)
        self.assertEqual(server.argv[:2], ("Xvnc", ":7"))
        options = " ".join(server.argv)
        for option in (
            f"-rfbport -1 -rfbunixpath {sandbox.VNC_SOCKET} -rfbunixmode 0660",
            "-geometry 800x600",
            "-nolisten tcp",
            "-nolisten local",
            f"-auth {sandbox.XAUTHORITY}",
            f"-displayfd {inside.DISPLAY_FD}",
            "-UseBlacklist=0",
        ):
            self.assertIn(option, options)
        self.assertEqual((server.name, server.ready), (Display.NAME, Ready.DISPLAY))
        self.assertEqual(manager.ready, Ready.TOLD)
        self.assertIn(f"{sandbox.HOME}/{files[0].name}", manager.argv)

    def test_tcp_port_on_loopback(self) -> None:
        """Xvnc itself has none: its sandbox is led to."""

        self.assertEqual(Display(vnc="tcp").programs(7), Display(vnc="unix").programs(7))

    def test_clipboard(self) -> None:
        for clipboard, refused in (
            ("both", set()),
            ("in", {"-SendCutText=0"}),
            ("out", {"-AcceptCutText=0"}),
            ("off", {"-AcceptCutText=0", "-SendCutText=0"}),
        ):
            (server, _), _ = Display().programs(7, clipboard=clipboard)  # type: ignore[arg-type]
            self.assertEqual({option for option in server.argv if "CutText" in option}, refused)
            self.assertIn("-AllowOverride=", server.argv)

    def test_window_manager_has_no_keys(self) -> None:
        _, (config,) = Display().programs(1)
        root = ET.fromstring(config.text)
        space = {"o": "http://openbox.org/3.4/rc"}
        self.assertEqual(list(root.iterfind("o:keyboard/*", space)), [])
        contexts = {str(context.get("name")) for context in root.iterfind("o:mouse/o:context", space)}
        self.assertFalse(contexts & {"Desktop", "Root"})

    def test_paths_are_those_of_the_sandbox(self) -> None:
        for here, there in (
            (sandbox.HOME, inside.HOME),
            (sandbox.XAUTHORITY, inside.XAUTHORITY),
            (sandbox.READY, inside.READY),
            (sandbox.HOME, box.HOME),
            (sandbox.RUN, box.RUN),
            (sandbox.POLICIES, box.POLICIES),
            (set(sandbox.POLICIES), set(POLICY_PLACES.values())),
            (sandbox.DISPLAY_FD, inside.DISPLAY_FD),
            (sandbox.DOOR, inside.DOOR),
            (sandbox.DOOR_FD, inside.DOOR_FD),
            (sandbox.DOOR_FD, steer.DOOR_FD),
            (sandbox.READY, steer.READY),
        ):
            self.assertEqual(here, there)


class BrowserTests(SynchronousTestCase):
    def policy(self, url: str = URL, page: Page | None = None, ports: tuple[Port, ...] = ()) -> dict[str, Any]:
        _, (file, program) = PanelBrowser().programs(AGENT, url, None, page, ports)
        self.assertEqual((file.place, program.place), ("chromium-policy", "library"))
        policy: dict[str, Any] = json.loads(file.text)
        return policy

    def told(self, page: Page | None, url: str = URL) -> tuple[Program, dict[str, Any]]:
        """The program, and what it reads."""

        program, _ = PanelBrowser().programs(AGENT, url, None, page)
        assert program.stdin is not None
        told: dict[str, Any] = json.loads(program.stdin.reveal())
        return program, told

    def test_a_page_that_is_signed_in(self) -> None:
        page = Page(path="/k?token=aaa#b", cookies={"SID": "bbb"}, storage={"t": "ccc"})
        program, told = self.told(page)
        self.assertEqual(
            told,
            {"origin": URL, "door": True, "url": f"{URL}/k?token=aaa#b", "cookies": {"SID": "bbb"},
             "storage": {"t": "ccc"}},
        )  # fmt: skip
        seen = repr((program, PanelBrowser().programs(AGENT, URL, None, page)[1]))
        self.assertFalse(any(secret in seen for secret in ("aaa", "bbb", "ccc")))
        self.assertFalse(any(word.startswith("--app") for word in program.argv))
        self.assertIs(program.ready, Ready.TOLD)
        self.assertEqual(self.told(None)[1], {"origin": URL, "door": True})
        for url, origin in (
            ("https://10.0.0.7:443", "https://10.0.0.7"),
            ("http://BMC:80", "http://bmc"),
            ("https://[fe80::1]:8443", "https://[fe80::1]:8443"),
        ):
            self.assertEqual(self.told(None, url)[1]["origin"], origin)

    def test_who_may_attach_to_a_page(self) -> None:
        """Only who has the pipe, and only where the page could not be opened otherwise."""

        self.assertEqual(self.policy(page=Page(path="/", cookies={"a": "b"}))["DeveloperToolsAvailability"], 2)
        for page in (Page(path="/", storage={"a": "b"}), Page(path="/", referer="/x")):
            policy = self.policy(page=page)
            self.assertEqual(policy["DeveloperToolsAvailability"], 1)
            self.assertIn("devtools://*", policy["URLBlocklist"])
            self.assertIn("chrome://*", policy["URLBlocklist"])

    def test_ports_of_the_panel(self) -> None:
        for url, direct in (("https://bmc", "bmc:443;bmc:5900"), ("http://[::1]:81", "[::1]:81;[::1]:5900")):
            proxy = self.policy(url, ports=(5900,))["ProxySettings"]
            self.assertEqual(proxy["ProxyBypassList"], f"<-loopback>;{direct}")
        proxy = self.policy("https://bmc", ports=ALL)["ProxySettings"]
        self.assertEqual(proxy["ProxyBypassList"], "<-loopback>;bmc:443;bmc")
        proxy = self.policy("https://bmc", ports=((5900, 5901),))["ProxySettings"]
        self.assertEqual(proxy["ProxyBypassList"], "<-loopback>;bmc:443;bmc:5900;bmc:5901")

    def test_debugging(self) -> None:
        program, (file, _) = PanelBrowser().debugging(AGENT, URL, "a-pin", (5900,))
        policy = json.loads(file.text)
        self.assertEqual(policy["DeveloperToolsAvailability"], 1)
        self.assertFalse({"URLBlocklist", "URLAllowlist", "ProxySettings"} & policy.keys())
        self.assertFalse({"--kiosk", "--disable-logging", "--no-sandbox"} & set(program.argv))
        self.assertIn("--enable-logging=stderr", program.argv)
        self.assertIn("--ignore-certificate-errors-spki-list=a-pin", program.argv)
        self.assertEqual((program.argv[-1], program.ready), (f"{URL}/", Ready.WINDOW))
        old, (_, _, bridge) = PanelBrowser().debugging(AGENT, URL, "a-pin", (5900,), tls="legacy")
        self.assertIn(bridge.name, " ".join(old.argv))
        self.assertNotIn("--ignore-certificate-errors-spki-list=a-pin", old.argv)

    def test_just_this_panel_is_allowed(self) -> None:
        policy = self.policy()
        self.assertEqual(policy["URLAllowlist"], [URL])
        self.assertIn("*", policy["URLBlocklist"])
        self.assertIn("chrome://*", policy["URLBlocklist"])
        self.assertEqual((policy["DeveloperToolsAvailability"], policy["DownloadRestrictions"]), (2, 3))
        off = ("PrintingEnabled", "PasswordManagerEnabled", "AllowFileSelectionDialogs", "SSLErrorOverrideAllowed")
        for name in off:
            self.assertIs(policy[name], False, name)

    def test_the_agent_s_own_browser_and_python(self) -> None:
        """Its policies lie where that build reads them."""

        there = FakeAgent()
        there.python = "/opt/python/bin/python3"
        for chosen, configured, started, name, place in (
            ("chromium", "chromium", "chromium", "Chromium", "chromium-policy"),
            ("chromium", "/opt/x/chrome", "/opt/x/chrome", "Chromium", "chromium-policy"),
            ("chromium", "/usr/bin/brave-browser --x", "/usr/bin/brave-browser", "Chromium", "brave-policy"),
            ("google-chrome-stable", "chromium", "google-chrome-stable", "google-chrome-stable", "chrome-policy"),
            ("chromium", "/usr/bin/google-chrome --x", "/usr/bin/google-chrome", "Chromium", "chrome-policy"),
            ("microsoft-edge-stable", "chromium", "microsoft-edge-stable", "microsoft-edge-stable", "edge-policy"),
        ):
            there.browser = chosen
            browser = PanelBrowser(program=configured)
            for program, (policy, *_) in (browser.programs(there, URL, None), browser.debugging(there, URL, None)):
                self.assertEqual((program.argv[4], program.name, policy.place), (started, name, place))
                self.assertEqual(program.argv[0], there.python)
            old, _ = browser.programs(there, URL, "a-pin", tls="legacy")
            self.assertEqual([word for word in old.argv if word.endswith("python3")], [there.python] * 2)

    def test_origins_in_the_language_of_the_policy(self) -> None:
        for url, origin in (
            ("https://10.0.0.7", "https://10.0.0.7:443"),
            ("http://10.0.0.7/x", "http://10.0.0.7:80"),
            ("https://bmc.example:8443", "https://.bmc.example:8443"),
            ("https://[fe80::1]:8443", "https://[fe80::1]:8443"),
        ):
            self.assertEqual(origin_of(url), origin)

    def test_only_the_pinned_certificate_is_accepted(self) -> None:
        program, _ = PanelBrowser().programs(AGENT, URL, "a-pin")
        self.assertIn("--ignore-certificate-errors-spki-list=a-pin", program.argv)
        without, _ = PanelBrowser().programs(AGENT, "http://10.0.0.7", None)
        for argv in (program.argv, without.argv):
            self.assertNotIn("--ignore-certificate-errors", argv)
            self.assertNotIn("--no-sandbox", argv)
        self.assertFalse(any("spki" in word for word in without.argv))

    def test_command_may_have_words_of_its_own(self) -> None:
        program, _ = PanelBrowser(program="'/opt/a browser/chrome' --flag").programs(AGENT, URL, None)
        self.assertEqual(program.argv[4:6], ("/opt/a browser/chrome", "--flag"))
        self.assertEqual((program.argv[-1], program.ready), (f"--app={URL}/", Ready.WINDOW))


class OneOutcome:
    """An agent on which every command has the same outcome."""

    name = "local"
    cache = "/nowhere"
    is_direct = False
    python = "python3"
    browser = "chromium"

    def __init__(self, outcome: Outcome) -> None:
        self.commands: list[Command] = []
        self._outcome = outcome

    async def run(self, command: Command) -> Outcome:
        self.commands.append(command)
        return self._outcome

    async def launch(self, spec: JobSpec, on_stage: Callable[[JobStage], None]) -> Job:
        raise AssertionError

    async def jobs(self) -> list[Job]:
        raise AssertionError

    async def stop(self, job_id: str) -> None:
        raise AssertionError

    async def sweep(self) -> list[str]:
        raise AssertionError

    def dial(self, address: StreamAddress) -> IStreamClientEndpoint:
        raise AssertionError

    def watch(self, ended: Callable[[Job], None]) -> None:
        raise AssertionError


class CurlTests(SynchronousTestCase):
    def pin(self, outcome: Outcome, url: str = URL) -> str | None:
        self.agent = OneOutcome(outcome)
        return self.successResultOf(Deferred.fromCoroutine(Curl().look(self.agent, url, "modern")))

    def error(self, outcome: Outcome) -> ProxyError:
        agent = OneOutcome(outcome)
        failure = self.failureResultOf(Deferred.fromCoroutine(Curl().look(agent, URL, "modern")), ProxyError)
        assert isinstance(failure.value, ProxyError)
        return failure.value

    def test_pin(self) -> None:
        """As the curls of Debian 11 to 13 tell it. Nothing is asked of the panel."""

        pin = spki_pin(make_certificate("127.0.0.1")[1])
        for before in ("\t ", "  ", "   "):
            told = f"* subject: CN=x\n*{before}public key hash: sha256//{pin}\n* SSL: public key does not match\n"
            self.assertEqual(self.pin(Outcome(status=90, stderr=told.encode())), pin)
        (command,) = self.agent.commands
        self.assertRegex(command.stdin, b'pinnedpubkey = "sha256//A{43}="')

    def test_plain_http(self) -> None:
        self.assertIsNone(self.pin(Outcome(status=0), "http://10.0.0.7"))

    def test_address_goes_by_standard_input(self) -> None:
        self.pin(Outcome(status=0), 'http://10.0.0.7/a"b\nurl=x')
        (command,) = self.agent.commands
        self.assertEqual(command.argv, ("curl", "-q", "-K", "-"))
        self.assertIn(b'url = "http://10.0.0.7/a\\"b\\nurl=x/"\n', command.stdin)
        self.assertIn(b"noproxy", command.stdin)

    def test_failures_in_plain_words(self) -> None:
        for outcome, kind in (
            (Outcome(status=6), BmcUnreachable),
            (Outcome(status=7), BmcUnreachable),
            (Outcome(status=28), BmcUnreachable),
            (Outcome(status=None, signal=15, timed_out=True), BmcUnreachable),
            (Outcome(status=35), NoCommonTls),
            (Outcome(status=2, stderr=b"curl: (2) no such option\n"), BmcError),
            (Outcome(status=0), BmcError),
            (Outcome(status=90, stderr=b"* no key\n"), BmcError),
        ):
            error = self.error(outcome)
            self.assertIs(type(error), kind, outcome)
            self.assertTrue(error.message.endswith("."))
            if kind is not BmcError:
                self.assertIn(urlsplit(URL).netloc, error.message)
                self.assertTrue(error.hint)
