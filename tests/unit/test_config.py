"""The configuration: what it accepts, and that every mistake is told, all at once."""

from __future__ import annotations

import re
import socket
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd import config
from ipmiproxyd.config import ConfigError, Settings, jobs_beside, load, parse
from ipmiproxyd.config_kinds import parse_duration
from tests.support.scratch import scratch

SAMPLE = Path(__file__).parents[2] / "etc" / "ipmiproxyd.toml"
COMMENTED = re.compile(r"^#(?=[a-z])", re.MULTILINE)


def problems(text: str) -> dict[str, str]:
    """The mistakes of a text, by key; the text must have some."""

    try:
        settings = parse(text)
    except ConfigError as error:
        found = error.problems
    else:
        raise AssertionError(f"accepted: {settings}")
    told = {problem.key: problem.explanation for problem in found}
    if len(told) < len(found):
        raise AssertionError(f"a key was told twice: {found}")
    return told


def setting(key: str, value: str) -> str:
    section, _, name = key.partition(".")
    return f"[{section}]\n{name} = {value}\n"


class SampleFileTests(SynchronousTestCase):
    """etc/ipmiproxyd.toml says what the code does."""

    def test_as_it_is_it_gives_the_defaults(self) -> None:
        self.assertEqual(load(SAMPLE), parse(""))

    def test_uncommented_it_gives_the_defaults_too(self) -> None:
        self.assertEqual(parse(COMMENTED.sub("", SAMPLE.read_text())), Settings())

    def test_it_shows_every_setting_once_in_the_order_of_the_code(self) -> None:
        section, seen = "", []
        for line in SAMPLE.read_text().splitlines():
            if line.startswith("["):
                section = line.strip("[]")
            elif COMMENTED.match(line):
                seen.append(f"{section}.{line[1:].partition(' =')[0].replace('-', '_')}")
        self.assertEqual(seen, list(config.every_key()))

    def test_every_setting_has_an_explanation_in_its_paragraph(self) -> None:
        for paragraph in SAMPLE.read_text().split("\n\n"):
            lines = [line for line in paragraph.splitlines() if not line.startswith("[")]
            self.assertTrue(lines and (lines[0].startswith("# ") or lines == ['#ipmitool = "ipmitool"']), paragraph)


class AgentsTests(SynchronousTestCase):
    """[agents.NAME]"""

    FINGERPRINT = "SHA256:" + "a" * 43
    LEAST = 'host = "east.example"\nkey = "/k"\n'

    def test_what_they_are_made_of(self) -> None:
        text = f'[agents.east]\n{self.LEAST}host-keys = ["{self.FINGERPRINT}"]\nport = 2222\n[agents.w-2]\n{self.LEAST}'
        text += 'transport = "direct"\nbrowser = "none"\n'
        agents = parse(text).agents
        self.assertEqual(list(agents), ["east", "w-2"])
        east = agents["east"]
        self.assertEqual((east.transport, agents["w-2"].transport), ("ssh", "direct"))
        self.assertEqual((east.browser, agents["w-2"].browser), ("chromium", "none"))
        self.assertEqual((east.host, east.port, east.user), ("east.example", 2222, "ipmiproxyd"))
        self.assertEqual((east.key, east.host_keys), ("/k", (self.FINGERPRINT,)))

    def test_mistakes(self) -> None:
        found = problems('[agents.east]\nhost = "a b"\nhost-keys = ["SHA256:x"]\nusr = "x"\n[agents.UP]\n' + self.LEAST)
        self.assertEqual(
            set(found),
            {"agents.east.host", "agents.east.key", "agents.east.host_keys[1]", "agents.east.usr", "agents.UP"},
        )
        self.assertIn("brave-browser", problems(f'[agents.e]\n{self.LEAST}browser = "vivaldi"\n')["agents.e.browser"])
        self.assertIn("direct", problems(f'[agents.e]\n{self.LEAST}transport = "udp"\n')["agents.e.transport"])
        self.assertIn("did you mean user?", found["agents.east.usr"])
        self.assertEqual(set(problems(f"[agents.local]\n{self.LEAST}")), {"agents.local"})
        self.assertEqual(set(problems("agents = 3\n")), {"agents"})


class DefaultsTests(SynchronousTestCase):
    def test_paths_follow_from_the_runtime_folder(self) -> None:
        settings = parse('[daemon]\nruntime-dir = "/run/two"\n')
        self.assertEqual(settings.control.socket, Path("/run/two/control.sock"))
        self.assertEqual((settings.agent.jobs_name, jobs_beside(Path("/run/two"))), ("two", Path("/run/two-jobs")))
        self.assertEqual(parse('[daemon]\nruntime-dir = "/run/-ä-2"\n').agent.jobs_name, "2")
        self.assertEqual(parse('[daemon]\nruntime-dir = "/run/ä"\n').agent.jobs_name, "main")

    def test_a_path_that_is_set_stays(self) -> None:
        settings = parse('[control]\nsocket = "/tmp/c"\n[agent]\njobs-name = "j"\n')
        self.assertEqual((settings.control.socket, settings.agent.jobs_name), (Path("/tmp/c"), "j"))

    def test_the_public_host_is_the_machines_name(self) -> None:
        self.patch(socket, "gethostname", lambda: "Gate7")
        self.assertEqual(parse("").relay.public_host, "gate7")

    def test_the_values_that_the_documentation_names(self) -> None:
        settings = Settings()
        self.assertEqual(settings.relay.ports, range(6081, 6201))
        self.assertEqual(settings.displays.range, range(1, 101))
        self.assertEqual(settings.control.mode, 0o660)
        self.assertEqual((settings.consoles.idle, settings.consoles.max), (600.0, None))
        self.assertEqual((settings.consoles.unvisited, settings.consoles.abandoned), (120.0, 300.0))


class ValuesTests(SynchronousTestCase):
    """What is written and what comes out."""

    def check(self, key: str, value: str, expected: object) -> None:
        section, _, name = key.partition(".")
        got = getattr(getattr(parse(setting(key, value)), section), name)
        self.assertEqual((got, type(got)), (expected, type(expected)), f"{key} = {value}")

    def test_times(self) -> None:
        for value, seconds in [('"90s"', 90.0), ('"1h30m"', 5400.0), ('"1d"', 86400.0), ("600", 600.0), ("2.5", 2.5)]:
            self.check("consoles.idle", value, seconds)
        self.check("consoles.idle", '"never"', None)
        self.check("relay.port_rest", "0", 0.0)

    def test_switches_and_words(self) -> None:
        self.check("consoles.login_buttons", "false", False)
        self.check("consoles.clipboard", '"in"', "in")

    def test_ranges_and_modes(self) -> None:
        self.check("relay.ports", '"7000-7000"', range(7000, 7001))
        for none in ('""', '"none"'):
            self.assertEqual(parse(f'[relay]\nports = {none}\ngateway = "6080"\n').relay.ports, range(0))
        self.check("displays.range", '"1 - 59635"', range(1, 59636))
        self.check("control.mode", '"600"', 0o600)

    def test_addresses_and_hosts(self) -> None:
        self.check("relay.listen", '["127.0.0.1", "0:0:0:0:0:0:0:1"]', ("127.0.0.1", "::1"))
        hosts = {"KVM.example.org": "kvm.example.org", "::1": "[::1]", "[::1]": "[::1]", "10.0.0.1": "10.0.0.1"}
        for value, host in hosts.items():
            self.check("relay.public_host", f'"{value}"', host)

    def test_the_gateway(self) -> None:
        for value, place in (("0.0.0.0:6080", ("0.0.0.0", 6080)), ("[::]:80", ("::", 80)), ("6080", ("", 6080))):
            self.check("relay.gateway", f'"{value}"', place)
        for value, url in (
            ("https://Console.example/kvm/", "https://console.example/kvm"),
            ("https://console.example:443", "https://console.example"),
            ("http://[::1]:8080/", "http://[::1]:8080"),
        ):
            settings = parse(f'[relay]\ngateway = "6080"\npublic-url = "{value}"\n')
            self.assertEqual(settings.relay.public_url, url)

    def test_origins_are_as_browsers_send_them(self) -> None:
        self.check(
            "relay.allowed_origins",
            '["HTTPS://Panel.example.org:443", "http://[::1]:8080", "http://10.0.0.1:443"]',
            ("https://panel.example.org", "http://[::1]:8080", "http://10.0.0.1:443"),
        )
        sources = ("'self'", "https://*.example.org")
        self.check("relay.frame_ancestors", """["'self'", "https://*.example.org"]""", sources)
        self.check("relay.frame_ancestors", """["'none'"]""", ("'none'",))

    def test_dashes_and_underscores_are_one(self) -> None:
        for name in ("limit-per-user", "limit_per_user", "limit-per_user"):
            self.assertEqual(parse(setting(f"consoles.{name}", "3")).consoles.limit_per_user, 3)

    def test_the_rest(self) -> None:
        self.check("consoles.geometry", '"1024x0768"', "1024x768")
        self.check("displays.vnc", '"tcp"', "tcp")
        self.check("displays.xvnc", '"/opt/bin/Xvnc"', "/opt/bin/Xvnc")
        self.check("ipmi.ciphers", "[3]", (3,))
        self.check("relay.novnc", '"/usr/share/novnc"', Path("/usr/share/novnc"))
        self.check("control.group", '"www-data"', "www-data")

    @given(st.integers(0, 99), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
    def test_any_duration(self, days: int, hours: int, minutes: int, seconds: int) -> None:
        text = f"{days}d{hours}h{minutes}m{seconds}s"
        self.assertEqual(parse_duration(text), ((days * 24 + hours) * 60 + minutes) * 60 + seconds)


class MistakesTests(SynchronousTestCase):
    """Wrong values, each with the word that its explanation must have."""

    CASES = (
        ("daemon.state_dir", '"var/lib"', "absolute path"),
        ("daemon.state_dir", '""', "absolute path"),
        ("daemon.runtime_dir", '"/run/\\u0000"', "absolute path"),
        ("agent.jobs_name", '"/run/jobs"', "a name"),
        ("agent.jobs_name", '".."', "a name"),
        ("daemon.runtime_dir", '"/run/../jobs"', "no .."),
        ("daemon.runtime_dir", '"/run/jo\\nbs"', "absolute path"),
        ("daemon.on_stop", '"kepp"', '"keep", "close"'),
        ("log.level", '"warning"', '"warn"'),
        ("control.mode", "660", "quotes"),
        ("control.mode", '"0860"', "octal"),
        ("control.mode", '"0060"', "owner"),
        ("control.mode", '"4660"', "octal"),
        ("control.group", '"a group"', "group"),
        ("relay.ports", '"6081"', "first-last"),
        ("relay.ports", "6081", "range"),
        ("relay.ports", '"6200-6081"', "above"),
        ("relay.ports", '"0-10"', "within 1-65535"),
        ("relay.ports", '"65000-65536"', "within 1-65535"),
        ("relay.gateway", '":6080"', "IPv4 or IPv6"),
        ("relay.gateway", '"::1:6080"', "square brackets"),
        ("relay.gateway", '"localhost:6080"', "IPv4 or IPv6"),
        ("relay.gateway", '"0.0.0.0"', "and a port"),
        ("relay.gateway", '"0.0.0.0:0"', "and a port"),
        ("relay.gateway", "6080", "quotes"),
        ("relay.certificate", '"cert.pem"', "absolute path"),
        ("relay.public_url", '"console.example"', "such as"),
        ("relay.public_url", '"https://console.example/?x"', "without ? and #"),
        ("relay.public_url", '"wss://console.example"', "scheme"),
        ("relay.viewers", "0", "from 1 to 10000"),
        ("relay.listen", "[]", "empty"),
        ("relay.listen", '"::"', "list"),
        ("relay.public_host", '"https://host"', "without scheme"),
        ("relay.public_host", '"host:8080"', "without scheme"),
        ("relay.public_host", '"host/path"', "without scheme"),
        ("relay.public_host", '"10.0.0"', "host name"),
        ("relay.public_host", '"-x.org"', "host name"),
        ("relay.frame_ancestors", "[]", "empty"),
        ("relay.frame_ancestors", """["'none'", "'self'"]""", "beside"),
        ("relay.novnc", '"novnc"', "absolute"),
        ("relay.token_lifetime", '"0s"', "from 1s to 1d"),
        ("relay.ping", '"never"', "90s"),
        ("consoles.limit", "0", "from 1 to 60000"),
        ("consoles.limit", "true", "not true"),
        ("consoles.limit", "2.0", "whole number"),
        ("consoles.idle", '"10"', '"10m"'),
        ("consoles.idle", '"m"', "never"),
        ("consoles.idle", '""', "never"),
        ("consoles.idle", "nan", "nan"),
        ("consoles.idle", "inf", "inf"),
        ("consoles.idle", "-5", "from 1s"),
        ("consoles.idle", "false", "time"),
        ("consoles.max", '"1m 30s"', "time"),
        ("consoles.login_buttons", '"no"', 'true or false, not "no"'),
        ("consoles.login_buttons", "1", "true or false"),
        ("consoles.clipboard", "true", '"both"'),
        ("consoles.geometry", '"1280*1024"', "width x height"),
        ("consoles.geometry", '"100x100"', "between"),
        ("displays.range", '"0-100"', "within 1-59635"),
        ("displays.vnc", '"udp"', '"tcp"'),
        ("displays.xvnc", '"bin/Xvnc"', "absolute path"),
        ("displays.xvnc", '""', "program"),
        ("displays.openbox", '"--help"', "program"),
        ("agent.name", '"Local Agent"', "small letters"),
        ("agent.users", "true", '"auto"'),
        ("agent.user_prefix", '"abcdefghijklmnopqrstuvwxy"', "24"),
        ("agent.lease", '"0.5s"', "from 1s"),
        ("ipmi.ciphers", "[]", "empty"),
        ("ipmi.parallel", '"16"', "whole number"),
        ("panel.curl", '"cu\\nrl"', "program"),
    )

    def test_each_is_told(self) -> None:
        for key, value, word in self.CASES:
            found = problems(setting(key, value))
            self.assertEqual(list(found), [key], f"{key} = {value}")
            self.assertIn(word, found[key], f"{key} = {value}")
            self.assertTrue(found[key].isprintable(), found[key])

    def test_every_setting_refuses_a_wrong_type(self) -> None:
        for key in config.every_key():
            self.assertEqual(list(problems(setting(key, "1979-05-27"))), [key])
            self.assertEqual(list(problems(setting(key, "{ a = 1 }"))), [key])

    def test_items_of_a_list_are_told_by_their_place(self) -> None:
        self.assertEqual(
            list(problems(setting("relay.listen", '["0.0.0.0:80", "::", "localhost", 5, "0::0"]'))),
            ["relay.listen[1]", "relay.listen[3]", "relay.listen[4]", "relay.listen[5]"],
        )
        found = problems(setting("ipmi.ciphers", "[17, 0, 18, 17]"))
        self.assertEqual(list(found), ["ipmi.ciphers[2]", "ipmi.ciphers[3]", "ipmi.ciphers[4]"])

    def test_origins(self) -> None:
        bad = (
            "panel.example.org", "https://", "https://a/", "https://a/x", "https://a?", "https://a#", "ws://a", "https://u@a",
            "https://a:0", "https://a:99999", "https://a b", "https://*.a", "*", "null", "'self'", "https://ä", "https://[::g]",
            "https://a;script-src", "https://a\\n",
        )  # fmt: skip
        for text in bad:
            found = problems(setting("relay.allowed_origins", f'["{text}"]'))
            self.assertEqual(list(found), ["relay.allowed_origins[1]"], text)
        for text in ("self", "https://*", "https://a.*.b", "https:", "*", "https://a; script-src *"):
            found = problems(setting("relay.frame_ancestors", f'["{text}"]'))
            self.assertEqual(list(found), ["relay.frame_ancestors[1]"], text)

    def test_unknown_names_are_guessed(self) -> None:
        found = problems("[contrl]\n[relay]\nallowed_origin = []\nidle = 3\nxyzzy = 1\n")
        self.assertIn("did you mean control?", found["[contrl]"])
        self.assertIn("did you mean allowed_origins?", found["relay.allowed_origin"])
        self.assertIn("belongs in [consoles]", found["relay.idle"])
        self.assertEqual(found["relay.xyzzy"], "there is no such setting")

    def test_things_outside_of_sections(self) -> None:
        found = problems("relay = 5\nidle = 3\n")
        self.assertIn("[relay]", found["relay"])
        self.assertIn("[consoles]", found["idle"])

    def test_the_same_setting_twice(self) -> None:
        self.assertIn("twice", problems('[daemon]\non-stop = "keep"\non_stop = "close"\n')["daemon.on_stop"])

    def test_all_at_once(self) -> None:
        text = "".join(
            [
                '[contrl]\n[daemon]\nstate-dir = 3\nruntime-dir = "/x"\n[relay]\nports = "9-1"\nlisten = ["x", "y"]\n',
                '[displays]\nvnc = "tcp"\n[agent]\njobs-name = "/',
                "j" * 80,
                '"\n[ipmi]\nfoo = 1\n',
            ]
        )
        expected = "[contrl] daemon.state_dir relay.ports relay.listen[1] relay.listen[2] agent.jobs_name ipmi.foo"
        self.assertEqual(list(problems(text)), expected.split())

    def test_as_text_it_is_one_mistake_per_line(self) -> None:
        error = self.assertRaises(ConfigError, parse, '[relay]\nports = "\\n\\n"\nping = ""\n')
        lines = str(error).splitlines()
        self.assertEqual([line.partition(": ")[0] for line in lines], ["relay.ports", "relay.ping"])

    def test_a_long_value_is_not_repeated_whole(self) -> None:
        self.assertLess(len(problems(setting("log.level", '"' + "x" * 9000 + '"'))["log.level"]), 200)


class TogetherTests(SynchronousTestCase):
    """Settings that are right alone and wrong together."""

    def test_a_displays_socket_fits_just_so(self) -> None:
        fits = "/" + "r" * 65
        self.assertEqual(len(f"{jobs_beside(Path(fits))}/{'i' * 24}/vnc/socket"), 107)
        self.assertEqual(str(parse(setting("daemon.runtime_dir", f'"{fits}"')).daemon.runtime_dir), fits)
        self.assertIn("1 byte too long", problems(setting("daemon.runtime_dir", f'"{fits}r"'))["daemon.runtime_dir"])

    def test_bytes_are_counted_and_not_letters(self) -> None:
        found = problems('[control]\nsocket = "/c"\n' + setting("daemon.runtime_dir", '"/' + "ä" * 52 + '"'))
        self.assertIn("39 bytes", found["daemon.runtime_dir"])

    def test_the_control_socket_fits(self) -> None:
        parse(setting("control.socket", '"/' + "c" * 106 + '"'))
        self.assertIn("1 byte too long", problems(setting("control.socket", '"/' + "c" * 107 + '"'))["control.socket"])

    def test_vnc_ports_and_relay_ports(self) -> None:
        tcp = '[displays]\nvnc = "tcp"\nrange = "{}"\n[relay]\nports = "6081-6200"\n'
        for bad in ("181-181", "1-181", "300-300", "1-1000", "200-210"):
            self.assertIn("6081-6200", problems(tcp.format(bad))["displays.range"])
        for good in ("1-180", "301-400"):
            parse(tcp.format(good))
        parse(tcp.format("1-1000").replace("tcp", "unix"))
        parse(tcp.format("181-181").replace("6081-6200", "none") + 'gateway = "6080"\n')

    def test_the_gateway_and_the_rest(self) -> None:
        relay = "[relay]\n{}\n"
        for text, key, word in (
            ('ports = "none"', "relay.gateway", "must be set"),
            ('gateway = "6090"', "relay.gateway", "one of relay.ports (6081-6200)"),
            ('gateway = "5901"\n[displays]\nvnc = "tcp"', "relay.gateway", "displays.range"),
            ('public-url = "https://a.example"', "relay.public_url", "needs relay.gateway"),
            ('key = "/k.pem"', "relay.key", "needs relay.certificate"),
        ):
            found = problems(relay.format(text))
            self.assertEqual(list(found), [key], text)
            self.assertIn(word, found[key])
        for text in (
            'ports = "none"\ngateway = "6090"',
            'gateway = "5901"',
            'gateway = "6080"\npublic-url = "https://a.example"',
            'certificate = "/c.pem"',
        ):
            parse(relay.format(text))


class FileTests(SynchronousTestCase):
    def problem(self, path: Path) -> tuple[str, str]:
        error = self.assertRaises(ConfigError, load, path)
        [problem] = error.problems
        return problem.key, problem.explanation

    def write(self, content: bytes) -> Path:
        path = scratch(self) / "c.toml"
        path.write_bytes(content)
        return path

    def test_no_such_file(self) -> None:
        told = self.problem(Path("/nonexistent/c"))
        self.assertEqual(told, ("/nonexistent/c", "cannot be read: No such file or directory"))

    def test_a_folder(self) -> None:
        folder = scratch(self)
        self.assertEqual(self.problem(folder), (str(folder), "cannot be read: Is a directory"))

    def test_not_utf8(self) -> None:
        self.assertEqual(self.problem(self.write(b"# one\n# two \xe4\n")), ("line 2", "is not UTF-8 text"))

    def test_not_toml(self) -> None:
        key, explanation = self.problem(self.write(b"[relay]\nports = 6081-6200\n"))
        self.assertEqual(key, "line 2, column 13")
        self.assertIn("not TOML", explanation)
        self.assertEqual(self.problem(self.write(b'[relay]\nports = """'))[0], "at its end")

    def test_a_file_that_is_right(self) -> None:
        self.assertEqual(load(self.write("[log]\r\nlevel = 'debug' # ä\r\n".encode())).log.level, "debug")
