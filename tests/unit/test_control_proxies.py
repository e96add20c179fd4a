"""The commands for proxies, and what a proxy does to the other commands."""

from __future__ import annotations

import dataclasses

from ipmiproxyd.control.commands import Defaults
from ipmiproxyd.control.commands.proxy import NAME, fields
from ipmiproxyd.errors import BadRequest, BadValue, Exists, MissingArgument, NotFound
from ipmiproxyd.model import CertificateFiles, OpenRequest, Proxy
from tests.unit.test_control_commands import CommandsTestCase


class ProxyTests(CommandsTestCase):
    PROXY = "proxy add name=p1 agent=far locations='Rack 4,Z\\, 1' "

    def test_what_is_stored(self) -> None:
        names = [argument.name for argument in (NAME, *fields("east"))]
        self.assertEqual(names, [field.name for field in dataclasses.fields(Proxy)])
        answer = self.ask("proxy add name=p1 locations=a")
        self.assertEqual(self.fakes.proxies.stored["p1"], Proxy(name="p1", agent="east", locations=("a",)))
        self.assertEqual(
            answer,
            {
                "name": "p1",
                "agent": "east",
                "locations": ["a"],
                "type": "java",
                "idle": "default",
                "login_buttons": "default",
                "encrypt": False,
                "certificate": "",
                "key": "",
                "java": "",
                "disable_login_buttons": "default",
                "consoles": 0,
                "warnings": [],
            },
        )

    def test_all_of_it(self) -> None:
        self.ask(f"{self.PROXY} type=panel idle=never login_buttons=no encrypt=yes certificate=/c key=/k java=jdk_7u80")
        self.fakes.proxies.open["p1"] = 2
        shown = self.ask("proxy show name=p1")
        self.assertEqual((shown["locations"], shown["idle"], shown["consoles"]), (["Rack 4", "Z, 1"], None, 2))
        self.assertEqual(self.ask("proxy list"), {"proxies": [shown]})
        changed = self.ask("proxy set name=p1 idle=5m login_buttons=default locations=b,,c")
        self.assertEqual(
            (changed["idle"], changed["login_buttons"], changed["locations"]), (300.0, "default", ["b", "c"])
        )
        self.assertEqual(changed["java"], "jdk_7u80")
        self.assertEqual(self.ask("proxy remove name=p1"), {"removed": "p1", "consoles": 2})
        self.assertEqual(self.ask("proxy list"), {"proxies": []})

    def test_refusals(self) -> None:
        self.ask(self.PROXY)
        self.refused(self.PROXY, Exists)
        self.refused("proxy add name=p2", MissingArgument)
        self.refused("proxy add name=p2 locations=a agent=west", BadValue)
        for wrong in ("locations=", "type=ssh", "idle=soon", "login_buttons=maybe", "certificate=c.pem", "java=-"):
            self.refused(f"proxy set name=p1 {wrong}", BadValue)
        self.refused("proxy set name=p1 idle=1s", BadValue)
        refusal = self.refused("proxy set name=p1 idle=15", BadValue)
        self.assertEqual(getattr(refusal, "hint", ""), "For minutes write 15m.")
        self.refused("proxy set name=p1", MissingArgument)
        for command in ("set name=p2 idle=never", "show name=p2", "remove name=p2"):
            self.refused(f"proxy {command}", NotFound)

    def test_login_buttons_the_way_a_form_has_them(self) -> None:
        self.ask(f"{self.PROXY} disable_login_buttons=yes")
        self.assertIs(self.fakes.proxies.stored["p1"].login_buttons, False)
        for value, stored, shown in (("no", True, False), ("default", "default", "default"), ("yes", False, True)):
            told = self.ask(f"proxy set name=p1 disable_login_buttons={value}")
            self.assertEqual(self.fakes.proxies.stored["p1"].login_buttons, stored)
            self.assertEqual(told["disable_login_buttons"], shown)
        self.refused("proxy set name=p1 login_buttons=yes disable_login_buttons=no", BadRequest)

    def test_a_java_that_is_not_there(self) -> None:
        (warning,) = self.ask("proxy add name=p1 locations=a java=nosuch")["warnings"]
        self.assertIn("no Java nosuch on the agent east", warning)
        self.fakes.javas.installed = [{"name": "nosuch"}]
        self.assertEqual(self.ask("proxy set name=p1 idle=5m")["warnings"], [])
        self.assertEqual(self.ask("proxy add name=p2 agent=far locations=a java=other")["warnings"], [])

    def test_form(self) -> None:
        self.ask("device add name=n1 address=a location=' Rack 4 '")
        self.ask("device add name=n2 address=a location='Z, 1'")
        form = self.ask("proxy form")
        told = {field["name"]: field for field in form["fields"]}
        names = [field.name for field in dataclasses.fields(Proxy)]
        self.assertEqual(list(told), [f"disable_{name}" if name == "login_buttons" else name for name in names])
        self.assertEqual(told["disable_login_buttons"]["label"], "Disable login buttons")
        self.assertIn("java list", told["java"]["help"])
        self.assertEqual(
            {choice["value"]: choice["label"] for choice in told["type"]["choices"]},
            {
                "java": "automatically download and run the Java console",
                "panel": "start a web browser with access to the management panel",
                "html5": "show the panel's HTML5 console, signed in",
                "vnc": "show the server's own VNC server",
            },
        )
        self.assertEqual(told["type"]["type"], "java|panel|html5|vnc")
        self.assertEqual([choice["value"] for choice in told["agent"]["choices"]], ["local", "east"])
        self.assertEqual(
            told["locations"]["choices"],
            [{"value": "Rack 4", "label": "Rack 4"}, {"value": "Z\\, 1", "label": "Z, 1"}],
        )
        self.assertIn({"value": "5m", "label": "5m"}, told["idle"]["choices"])
        self.assertEqual((form["defaults"]["idle"], form["defaults"]["fall_back"]), (300.0, ["java", "html5", "panel"]))
        self.table = self.fakes.table(Defaults(debug=True, limits={"displays": 100}))
        form = self.ask("proxy form")
        labels = [choice["label"] for field in form["fields"] for choice in field["choices"]]
        self.assertIn("start a web browser in debug mode, for local use", labels)
        self.assertEqual(form["limits"], {"displays": 100, "idle_min": 60.0, "idle_max": 31 * 86400.0})


class ByProxyTests(CommandsTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ask(
            "proxy add name=p1 agent=far locations='Rack 4' type=java idle=never login_buttons=yes "
            "encrypt=yes certificate=/c.pem java=jdk_7u80"
        )
        self.ask("device add name=n1 address=a location='Rack 4'")

    def opened(self, words: str = "device=n1") -> OpenRequest:
        self.ask(f"console open {words}")
        return self.fakes.consoles.asked[-1]

    def test_the_devices_location_says_all(self) -> None:
        request = self.opened()
        self.assertEqual((request.proxy, request.agent, request.type), ("p1", "far", "java"))
        self.assertEqual(request.fall_back, ("html5", "panel"))
        self.assertEqual((request.idle, request.login_buttons), (None, True))
        self.assertEqual((request.encrypt, request.certificate), (True, CertificateFiles("/c.pem")))
        self.assertEqual(request.device.java, "jdk_7u80")
        self.assertEqual(self.opened("address=b location='Rack 4'").proxy, "p1")
        self.assertEqual(self.opened("address=b location=elsewhere").proxy, "")

    def test_a_location_that_no_proxy_has(self) -> None:
        told = "No proxy has the location 'Rack4'"
        self.assertEqual(self.ask("device add name=n2 address=b location=Rack4")["warnings"],
                         [f"{told} (proxy list shows theirs)."])  # fmt: skip
        self.assertEqual(self.ask("device set name=n2 notes=x")["warnings"], [])
        self.assertEqual(self.ask("console open device=n2")["warnings"][0], f"{told}; agent east is used.")
        self.assertNotIn(told, str(self.ask("console open device=n2 agent=far")["warnings"]))
        self.assertNotIn(told, str(self.ask("console open device=n2 proxy=p1")["warnings"]))
        self.ask("proxy remove name=p1")
        self.assertEqual(self.ask("device set name=n2 location=Rack5")["warnings"], [])

    def test_what_is_on_the_request_wins(self) -> None:
        request = self.opened("device=n1 agent=near type=panel idle=1m login_buttons=no java=debian_17 user=ann")
        self.assertEqual((request.proxy, request.agent, request.type), ("p1", "near", "panel"))
        self.assertEqual((request.fall_back, request.idle, request.login_buttons), ((), 60.0, False))
        self.assertEqual(request.device.java, "debian_17")
        self.assertEqual(self.fakes.proxies.picked[-1], ("", "near", "ann"))

    def test_java_of_the_device_goes_before_its_proxys(self) -> None:
        self.ask("device set name=n1 java=debian_11")
        self.assertEqual(self.opened().device.java, "debian_11")
        self.assertEqual(self.opened("device=n1 java=debian_17").device.java, "debian_17")
        self.refused("console open device=n1 java=-", BadValue)
        self.refused("console open device=n1 java=debian_17 password=x", BadRequest)

    def test_what_it_leaves_to_the_settings(self) -> None:
        self.ask("proxy set name=p1 idle=default login_buttons=default encrypt=no")
        request = self.opened()
        self.assertEqual((request.idle, request.login_buttons), (300.0, False))
        self.assertEqual((request.encrypt, request.certificate), (False, None))

    def test_by_name(self) -> None:
        self.assertEqual(self.opened("address=b proxy=p1").agent, "far")
        self.refused("console open device=n1 proxy=p2", NotFound)

    def test_its_agent_is_asked_for_everything(self) -> None:
        self.ask("power status device=n1")
        self.ask("power off device=n1")
        self.assertEqual(self.fakes.power.agents, {"far"})
        self.assertIn("from far", self.ask("vendor probe device=n1")["why"])
        self.ask("power status device=n1 agent=near")
        self.ask("power status address=b")
        self.assertEqual(self.fakes.power.agents, {"far", "near", "east"})
        self.ask("vendor forget device=n1")
