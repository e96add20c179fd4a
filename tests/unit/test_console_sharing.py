"""Who may come to a console, what they see of one another, and what the relay asks a console."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred

from ipmiproxyd.console.session import ConsoleSession
from ipmiproxyd.errors import BadValue, BmcState, Forbidden, NotFound
from ipmiproxyd.model import Console, ConsoleState, Device, Grant, Secret, Typing, UnixStream
from tests.support.console_life import NODE, Life
from tests.support.control_fakes import viewer
from tests.support.fake_rooms import FakeEndpoint


class SharingLife(Life):
    def session(self) -> ConsoleSession:
        console = self.relay.opened[-1].console
        assert isinstance(console, ConsoleSession)
        return console

    def come(self, url: str) -> tuple[Grant, str]:
        """What a browser makes of a URL: its grant, and its key."""

        console_id = self.session().id
        key = self.grants.redeem(console_id, url.partition("#t=")[2])
        assert key is not None
        grant = self.grants.check(console_id, key)
        assert grant is not None
        return grant, key


class OwnerTests(SharingLife):
    def test_the_owner_has_all_rights(self) -> None:
        grant, _ = self.come(self.successResultOf(self.begin(user="ann"))["url"])
        self.assertEqual((grant.user, grant.control, grant.credentials), ("ann", True, True))
        self.assertRegex(grant.id, "^[a-z2-9]{6}$")

    def test_without_login_buttons(self) -> None:
        grant, _ = self.come(self.successResultOf(self.begin(login_buttons=False))["url"])
        self.assertEqual((grant.control, grant.credentials), (True, False))

    def test_it_is_the_same_grant_each_time(self) -> None:
        answer = self.successResultOf(self.begin())
        again = self.successResultOf(self.begin())
        self.assertTrue(again["reused"])
        urls = [answer["url"], again["url"], self.manager.url(answer["console"].id)]
        self.assertEqual(len({self.come(url)[0].id for url in urls}), 1)
        self.assertEqual(len(self.manager.grants(answer["console"].id)), 1)

    def test_who_asks_for_less_is_not_given_more(self) -> None:
        first = self.opened()
        less = self.successResultOf(self.begin(clipboard="off"))
        self.assertEqual((less["reused"], less["console"].clipboard), (False, "off"))
        self.assertNotEqual(less["console"].id, first.id)
        self.assertTrue(self.successResultOf(self.begin(clipboard="off"))["reused"])
        self.assertFalse(self.successResultOf(self.begin(login_buttons=False))["reused"])
        replaced = self.opened(existing="replace", clipboard="in")
        self.assertEqual([console.id for console in self.manager.list()], [replaced.id])

    def test_warnings_of_the_relay(self) -> None:
        self.relay.hindrances = ["A page by https cannot show it."]
        self.assertEqual(self.successResultOf(self.begin())["warnings"], ["A page by https cannot show it."])

    def test_gateway_alone(self) -> None:
        self.relay.gateway = True
        answer = self.successResultOf(self.begin(wait=False))
        self.assertIsNone(answer["console"].relay_port)
        self.assertTrue(self.manager.url(answer["console"].id).startswith("http://relay.example:6080/#t="))
        self.settle()
        self.close(answer["console"])
        self.assert_nothing_left()


class ShareTests(SharingLife):
    def setUp(self) -> None:
        super().setUp()
        self.url = self.successResultOf(self.begin(user="ann"))["url"]
        self.console_id = self.session().id

    def test_rights(self) -> None:
        watcher = self.manager.share(self.console_id, user="bob")
        helper = self.manager.share(self.console_id, user="eve", control=True, credentials=True)
        self.assertEqual((watcher.control, watcher.credentials), (False, False))
        for grant in (watcher, helper):
            self.assertEqual(self.come(self.manager.grant_url(grant))[0], grant)
            self.assertEqual(self.come(self.manager.grant_url(grant))[0], grant)
        users = [grant.user for grant in self.manager.grants(self.console_id)]
        self.assertEqual(users, ["ann", "bob", "eve"])
        self.assertEqual(len({grant.id for grant in self.manager.grants(self.console_id)}), 3)

    def test_rights_that_the_console_does_not_give(self) -> None:
        with self.assertRaisesRegex(BadValue, "only watches"):
            self.manager.share(self.console_id, credentials=True)
        self.opened(login_buttons=False)
        with self.assertRaisesRegex(BadValue, "are off"):
            self.manager.share(self.session().id, control=True, credentials=True)

    def test_a_grant_that_nobody_uses_goes_with_its_token(self) -> None:
        self.manager.grant_url(self.manager.share(self.console_id, user="bob"))
        self.come(self.url)
        self.session().viewers_changed([viewer()])
        self.clock.advance(300)
        self.assertEqual([grant.user for grant in self.manager.grants(self.console_id)], ["ann", "alice"])

    def test_somebody_is_expected(self) -> None:
        self.clock.advance(119)
        self.manager.grant_url(self.manager.share(self.console_id, user="bob"))
        self.clock.advance(119)
        self.assertIs(self.manager.show(self.console_id).state, ConsoleState.READY)

    def test_unknown_and_closed(self) -> None:
        grant = self.manager.share(self.console_id)
        for console_id in ("nope", self.console_id):
            if console_id == self.console_id:
                self.close(self.manager.show(self.console_id))
            with self.assertRaises(NotFound):
                self.manager.share(console_id)
            with self.assertRaises(NotFound):
                self.manager.grants(console_id)
            with self.assertRaises(NotFound):
                self.manager.revoke(console_id)
        with self.assertRaises(NotFound):
            self.manager.grant_url(grant)


class RevokeTests(SharingLife):
    def setUp(self) -> None:
        super().setUp()
        self.owner, self.owner_key = self.come(self.successResultOf(self.begin(user="ann"))["url"])
        self.console_id = self.session().id
        shared = [self.manager.share(self.console_id, user=user) for user in ("bob", "bob", "eve")]
        self.bob, self.bob_too, self.eve = shared
        self.keys = [self.come(self.manager.grant_url(grant))[1] for grant in shared]

    def good(self) -> list[bool]:
        return [self.grants.check(self.console_id, key) is not None for key in (self.owner_key, *self.keys)]

    def test_one(self) -> None:
        url = self.manager.grant_url(self.eve)
        self.assertEqual(self.manager.revoke(self.console_id, viewer=self.eve.id), [self.eve])
        self.assertEqual(self.good(), [True, True, True, False])
        self.assertIsNone(self.grants.redeem(self.console_id, url.partition("#t=")[2]))
        self.assertEqual(self.relay.opened[-1].cut_off, [self.eve.id])

    def test_a_user(self) -> None:
        self.assertEqual(self.manager.revoke(self.console_id, user="bob"), [self.bob, self.bob_too])
        self.assertEqual(self.good(), [True, False, False, True])
        self.assertEqual(self.relay.opened[-1].cut_off, [self.bob.id, self.bob_too.id])

    def test_everybody(self) -> None:
        self.assertEqual(len(self.manager.revoke(self.console_id)), 4)
        self.assertEqual(self.good(), [False] * 4)
        self.assertEqual(self.manager.grants(self.console_id), [])
        self.assertEqual(self.manager.revoke(self.console_id), [])

    def test_the_owner_may_come_again_by_another_grant(self) -> None:
        self.manager.revoke(self.console_id, viewer=self.owner.id)
        again, _ = self.come(self.manager.url(self.console_id))
        self.assertNotEqual(again.id, self.owner.id)
        self.assertEqual((again.user, again.control), ("ann", True))

    def test_whoever_is_not_there(self) -> None:
        for which in ({"viewer": "nope"}, {"user": "nobody"}):
            with self.assertRaises(NotFound):
                self.manager.revoke(self.console_id, **which)
        self.manager.revoke(self.console_id, viewer=self.eve.id)
        with self.assertRaises(NotFound):
            self.manager.revoke(self.console_id, viewer=self.eve.id)

    def test_a_browser_whose_key_was_forgotten_is_cut_all_the_same(self) -> None:
        self.session().viewers_changed([viewer(id="lost99", user="mallory", control=True)])
        revoked = self.manager.revoke(self.console_id, user="mallory")
        self.assertEqual([grant.id for grant in revoked], ["lost99"])
        self.assertEqual(self.relay.opened[-1].cut_off, ["lost99"])


class RelayedTests(SharingLife):
    """What the relay asks and tells."""

    def open(self, device: Device = NODE, **how: bool) -> ConsoleSession:
        self.opened(device=device, **how)
        return self.session()

    def test_screen(self) -> None:
        session = self.open()
        server = session.screen()
        self.assertEqual(server.endpoint, FakeEndpoint(UnixStream(f"/vnc/{session.id}")))
        self.assertEqual((server.host, server.password, server.fingerprint), ("", Secret(""), ""))
        self.close(session.snapshot())
        with self.assertRaisesRegex(BmcState, "closed"):
            session.screen()

    def test_viewers(self) -> None:
        session = self.open()
        late, early = viewer(id="b", joined_at=9.0), viewer(id="a", joined_at=3.0)
        serial = session.snapshot().serial
        changed = session.when_changed(serial)
        session.viewers_changed([late, early])
        self.settle()
        self.successResultOf(changed)
        self.assertEqual(session.snapshot().viewers, (early, late))

    def test_typing(self) -> None:
        session = self.open()
        typing = Typing(what="password", by="a", done=1, of=8)
        changed = session.when_changed(session.snapshot().serial)
        session.typing_changed(typing)
        self.settle()
        self.successResultOf(changed)
        self.assertEqual(session.snapshot().typing, typing)
        session.typing_changed(None)
        self.settle()
        self.assertIsNone(session.snapshot().typing)

    def test_clipboard_reaches_the_display(self) -> None:
        self.opened(clipboard="in")
        self.assertEqual(self.session().snapshot().clipboard, "in")
        server = self.agent.launched[-1].programs[0]
        self.assertIn("-SendCutText=0", server.argv)
        self.assertNotIn("-AcceptCutText=0", server.argv)

    def test_credentials(self) -> None:
        ipmi = Device(address="192.0.2.1", username="ADMIN", password=Secret("one"))
        session = self.open(ipmi)
        self.assertEqual(session.credential("username"), Secret("ADMIN"))
        self.assertEqual(session.credential("password"), Secret("one"))

    def test_credentials_of_the_panel(self) -> None:
        ipmi = Device(address="192.0.2.2", username="ADMIN", password=Secret("one"))
        session = self.open(replace(ipmi, web_username="web", web_password=Secret("two")))
        self.assertEqual(session.credential("username"), Secret("web"))
        self.assertEqual(session.credential("password"), Secret("two"))

    def test_no_credentials(self) -> None:
        session = self.open()
        for which in ("username", "password"):
            with self.assertRaises(BadValue):
                session.credential(which)

    def test_login_buttons_off(self) -> None:
        session = self.open(Device(address="192.0.2.1", password=Secret("one")), login_buttons=False)
        with self.assertRaises(Forbidden) as caught:
            session.credential("password")
        self.assertNotIn("one", caught.exception.message)


class ScreenshotTests(SharingLife):
    def take(self, console: Console) -> Deferred[bytes]:
        return Deferred.fromCoroutine(self.manager.screenshot(console.id))

    def test_taken(self) -> None:
        console = self.opened()
        self.assertEqual(self.successResultOf(self.take(console)), b"PNG")
        self.assertEqual(self.captured, [self.session().screen()])

    def test_four_at_a_time(self) -> None:
        console = self.opened()
        self.slow_capture = True
        taken = [self.take(console) for _ in range(7)]
        self.assertEqual(len(self.captured), 4)
        taken[0].cancel()
        self.failureResultOf(taken[0])
        self.assertEqual(len(self.captured), 5)
        taken[6].cancel()
        self.failureResultOf(taken[6])
        for number, one in enumerate(taken[1:6], 1):
            self.capturing[number].callback(None)
            self.assertEqual(self.successResultOf(one), b"PNG")
        self.assertEqual(len(self.captured), 6)

    def test_not_there(self) -> None:
        self.failureResultOf(Deferred.fromCoroutine(self.manager.screenshot("nope")), NotFound)
        self.agent.gate = Deferred()
        answer = self.successResultOf(self.begin(wait=False))
        self.failureResultOf(self.take(answer["console"]), BmcState)

    def test_closed_while_it_waits(self) -> None:
        console, other = self.opened(), self.opened(existing="new")
        self.slow_capture = True
        taken = [self.take(console) for _ in range(4)]
        waiting = self.take(other)
        self.close(other)
        for number, one in enumerate(taken):
            self.capturing[number].callback(None)
            self.successResultOf(one)
        self.failureResultOf(waiting, NotFound)

    def test_a_server_that_says_nothing(self) -> None:
        console = self.opened()
        self.slow_capture = True
        taken = self.take(console)
        self.clock.advance(20)
        self.assertEqual(self.failureResultOf(taken).value.code, "timeout")
