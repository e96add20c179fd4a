"""A family that is described in the configuration file."""

from __future__ import annotations

import json
import tomllib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.config_kinds import KindError
from ipmiproxyd.errors import BmcAuth, BmcError, BmcUnsupported
from ipmiproxyd.model import Secret
from ipmiproxyd.vendors.generic import Generic, read_generic
from ipmiproxyd.vendors.ports import ALL
from ipmiproxyd.vendors.talk import Answer, Site
from tests.simulator.vendors.generic import SECTION, AcmePanel
from tests.support.talk import drive
from tests.support.vendor_suite import FamilySuite

SITE = Site(host="10.0.0.7", address="10.0.0.7", username="a b", password=Secret("x&y"), now=12)
LEAST = {"sign-in-path": "/in", "cookie": "SID", "jnlp-path": "/k.jnlp"}


def acme() -> Generic:
    return read_generic("acme", tomllib.loads(SECTION)["vendor"]["acme"])


class GenericTests(FamilySuite, SynchronousTestCase):
    family = acme()
    kind = AcmePanel
    moods = frozenset({"full", "licence"})

    def test_what_it_offers(self) -> None:
        self.assertEqual((self.family.label, self.family.signs_out), ("Acme BMC-1", "after-viewer"))
        self.assertEqual(self.family.consoles, frozenset({"java"}))
        least = read_generic("least", {"sign-in-path": "/in", "cookie": "SID", "html5-path": "/k"})
        self.assertEqual((least.label, least.signs_out, least.probes), ("least", "none", ()))

    def test_the_jnlp(self) -> None:
        panel = self.panel(kvm_port=99)
        self.assertIn(b"<argument>10.0.0.7</argument>\n    <argument>99<", self.visit(panel))

    def test_no_html5(self) -> None:
        panel = self.panel()
        self.assertRaises(BmcUnsupported, panel.drive, self.family.html5(panel.site(), self.open(panel)))


class FormTests(SynchronousTestCase):
    """Other ways to sign in."""

    def test_json_and_a_header(self) -> None:
        more = {"sign-in-as": "json", "values": {"token": "header:X-Auth-Token", "number": "data.id"}}
        family = read_generic("x", {**LEAST, **more, "jnlp-path": "/{token}/{number}/{now}"})
        log: list[Any] = []
        headers = (("set-cookie", "SID=abc"), ("x-auth-token", "t/1"))
        body = json.dumps({"data": {"id": 7}}).encode()
        session = drive(family.sign_in(SITE), [Answer(200, headers, body)], log=log)
        self.assertEqual(json.loads(log[0].body), {"username": "a b", "password": "x&y"})
        self.assertEqual(log[0].headers["Referer"], "https://10.0.0.7/in")
        drive(family.jnlp(SITE, session), [Answer(200, (), b"<jnlp/>")], log=log)
        self.assertEqual(log[1].path, "/t%2F1/7/12")
        self.assertEqual(dict(log[1].cookies), {"SID": "abc"})

    def test_a_text_that_must_be_there(self) -> None:
        family = read_generic("x", {**LEAST, "accepted": "Welcome"})
        cookie = (("set-cookie", "SID=abc"),)
        drive(family.sign_in(SITE), [Answer(200, cookie, b"Welcome")])
        self.assertRaises(BmcAuth, drive, family.sign_in(SITE), [Answer(200, cookie, b"Sorry")])
        self.assertRaises(BmcError, drive, family.sign_in(SITE), [Answer(200, (), b"Welcome")])

    def test_a_value_that_would_break_a_header_is_none(self) -> None:
        family = read_generic("x", {**LEAST, "values": {"token": "t"}, "headers": {"X-T": "{token}"}})
        answer = Answer(200, (("set-cookie", "SID=abc"),), json.dumps({"t": "a\r\nX-Evil: 1"}).encode())
        self.assertRaises(BmcError, drive, family.sign_in(SITE), [answer])

    def test_html5(self) -> None:
        family = read_generic("x", {**LEAST, "html5-path": "/html5?s={cookie}"})
        session = drive(family.sign_in(SITE), [Answer(200, (("set-cookie", "SID=a/b"),))])
        page = drive(family.html5(SITE, session), [])
        self.assertEqual((page.path, dict(page.cookies)), ("/html5?s=a%2Fb", {"SID": "a/b"}))


    def test_ports(self) -> None:
        self.assertEqual(read_generic("x", LEAST).needed_ports(), {"panel": ALL * 2, "java": ALL})
        named = read_generic("x", {**LEAST, "java-ports": [623, "5900-5901"], "html5-ports": [], "panel-ports": []})
        self.assertEqual(named.needed_ports(), {"java": (623, (5900, 5901))})


class SectionTests(SynchronousTestCase):
    """Mistakes in the configuration file are told, all at once."""

    def mistakes(self, section: object, key: str = "acme") -> dict[str, str]:
        return dict(self.assertRaises(KindError, read_generic, key, section).mistakes)

    def test_mistakes(self) -> None:
        for section, place, words in (
            ({}, "sign-in-path", "is missing"),
            ({}, "cookie", "is missing"),
            ({}, "", "needs jnlp-path or html5-path"),
            ({"sign-in-path": "login"}, "sign-in-path", "begins with one /"),
            ({"sign-in-path": "//other/x"}, "sign-in-path", "begins with one /"),
            ({"sign-in-path": "/a b"}, "sign-in-path", "no spaces"),
            ({"sign-in-path": "/{cookie}"}, "sign-in-path", "{cookie} is not known there"),
            ({"jnlp-path": "/{token}"}, "jnlp-path", "address, cookie, host, now, title, user"),
            ({"headers": {"X-A": "{b}"}}, "headers.X-A", "{b} is not known"),
            ({"headers": {"X A": "b"}}, "headers.X A", "no name"),
            ({"headers": {"X-A": "a\nb"}}, "headers.X-A", "one line"),
            ({"sign-in-as": "xml"}, "sign-in-as", '"form", "json"'),
            ({"sign_in_as": "form"}, "sign_in_as", "no such setting"),
            ({"refused": "no"}, "refused", "list"),
            ({"refused": [""]}, "refused[1]", "empty"),
            ({"manufacturers": [-1]}, "manufacturers[1]", "whole number"),
            ({"cookie": "a;b"}, "cookie", "a cookie's name"),
            ({"wrong-length": "yes"}, "wrong-length", "true or false"),
            ({"values": {"A": "b"}}, "values.A", "no name"),
            ({"java-ports": 5900}, "java-ports", "list"),
            ({"java-ports": [0]}, "java-ports[1]", "from 1 to 65535"),
            ({"html5-ports": ["5901-5900"]}, "html5-ports[1]", "above its last"),
            ({"panel-ports": ["5900", True]}, "panel-ports[1]", "first-last"),
        ):
            found = self.mistakes(section)
            self.assertIn(place, found, section)
            self.assertIn(words, found[place])

    def test_names(self) -> None:
        for key in ("auto", "generic", "Acme", "a b", ""):
            self.assertIn("its name", self.mistakes(LEAST, key)[""])
        self.assertIn("must be a section", self.mistakes([])[""])
