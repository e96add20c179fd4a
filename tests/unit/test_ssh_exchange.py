"""The key exchange with another implementation of SSH, Conch's server, and hosts that say what they may not."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from twisted.conch.ssh.common import NS
from twisted.conch.ssh.connection import MSG_CHANNEL_DATA, MSG_GLOBAL_REQUEST
from twisted.conch.ssh.factory import SSHFactory
from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.transport import MSG_IGNORE, MSG_KEXINIT, MSG_NEWKEYS, SSHServerTransport
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.test.iosim import IOPump, connect, makeFakeClient, makeFakeServer
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents import ssh_exchange, ssh_packets
from ipmiproxyd.agents.ssh_channel import QUIET, Connection
from ipmiproxyd.agents.ssh_exchange import PacketTransport
from ipmiproxyd.agents.ssh_packets import CHACHA

HOST_KEY: Final = Key(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
Message = tuple[int, bytes] | None
ASK: Final = NS(b"are-you-there@example.org") + b"\x01"


class Client(PacketTransport):
    """Notes how often keys were exchanged, and what it was told or says of an end."""

    def __init__(self) -> None:
        super().__init__(Connection())
        self.exchanges = 0
        self.said: list[bytes] = []

    def verifyHostKey(self, _host_key: bytes, _md5: bytes) -> Deferred[bool]:
        return succeed(True)

    def connectionSecure(self) -> None:
        self.exchanges += 1
        if self.service is None:
            self.setService(self.connection)

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        self.said.append(desc)
        super().sendDisconnect(reason, desc)

    def receiveError(self, _reason: int, description: bytes) -> None:
        self.said.append(description)


class Server(SSHServerTransport):
    """Notes the messages of the connection.

    :param strict: says that its key exchange is, which it is not.
    :param before: a message in front of its first KEXINIT, ``after`` behind, and ``last`` in front of its NEWKEYS.
    """

    _log = QUIET
    supportedPublicKeys = [b"ssh-ed25519"]  # noqa: RUF012 - Conch's attribute

    def __init__(
        self, *, strict: bool = False, before: Message = None, after: Message = None, last: Message = None
    ) -> None:
        self.heard: list[int] = []
        self._around = [before, after]
        self._last = last
        if strict:
            self.supportedKeyExchanges = [*self.supportedKeyExchanges, b"kex-strict-s-v00@openssh.com"]
        self.factory = SSHFactory()
        self.factory.publicKeys = {b"ssh-ed25519": HOST_KEY.public()}
        self.factory.privateKeys = {b"ssh-ed25519": HOST_KEY}

    def sendKexInit(self) -> None:
        before, after = self._around
        self._around = [None, None]
        if before is not None:
            self.say(*before)
        super().sendKexInit()
        if after is not None:
            self.say(*after)

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        if messageType == MSG_NEWKEYS and self._last is not None:
            self.say(*self._last)
        super().sendPacket(messageType, payload)

    def dispatchMessage(self, messageNum: int, payload: bytes) -> None:
        if messageNum >= 50:
            self.heard.append(messageNum)
        else:
            super().dispatchMessage(messageNum, payload)

    def say(self, number: int, payload: bytes) -> None:
        """Now, whether it is its turn or not."""

        state, self._keyExchangeState = self._keyExchangeState, self._KEY_EXCHANGE_NONE
        self.sendPacket(number, payload)
        self._keyExchangeState = state


class SshExchangeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.meet(Server())

    def meet(self, server: Server) -> None:
        self.client, self.server = Client(), server
        self.pump: IOPump = connect(
            server, makeFakeServer(server), self.client, makeFakeClient(self.client), clock=Clock()
        )

    def run_on(self) -> None:
        self.pump.flush()

    def up(self) -> None:
        self.run_on()
        self.assertEqual((self.client.exchanges, self.client.said), (1, []))

    def refused(self, words: bytes) -> None:
        self.run_on()
        self.assertEqual(self.client.said, [words])
        self.assertTrue(self.client.transport.disconnecting or self.client.transport.disconnected)

    def answers(self) -> None:
        """Either side hears the other."""

        self.server.heard.clear()
        for _ in range(3):
            self.server.sendPacket(MSG_GLOBAL_REQUEST, ASK)
        self.run_on()
        self.assertEqual(len(self.server.heard), 3)

    def test_new_keys_by_either_side(self) -> None:
        self.up()
        self.answers()
        self.server.sendKexInit()
        self.answers()
        self.client.sendKexInit()
        self.assertTrue(self.client.connection.is_clogged)
        self.answers()
        self.assertFalse(self.client.connection.is_clogged)
        self.server.sendKexInit()
        self.client.sendKexInit()
        self.answers()
        self.assertEqual(self.client.exchanges, 4)

    def test_new_keys_when_the_old_are_worn(self) -> None:
        self.patch(ssh_packets, "REKEY_PACKETS", 10)
        self.up()
        for _ in range(10):
            self.answers()
        self.assertGreater(self.client.exchanges, 2)

    def test_message_in_the_middle_of_their_exchange(self) -> None:
        self.up()
        self.server.sendKexInit()
        self.server.say(MSG_GLOBAL_REQUEST, ASK)
        self.refused(b"message 80 out of turn")

    def test_data_in_the_middle_of_their_exchange(self) -> None:
        self.up()
        self.server.sendKexInit()
        self.server.say(MSG_CHANNEL_DATA, bytes(8))
        self.refused(b"message 94 out of turn")

    def test_message_before_there_are_keys(self) -> None:
        self.meet(Server(after=(MSG_GLOBAL_REQUEST, ASK)))
        self.refused(b"message 80 out of turn")

    def test_exchange_within_an_exchange(self) -> None:
        self.up()
        self.server.sendKexInit()
        self.server.say(MSG_KEXINIT, self.server.ourKexInitPayload[1:])
        self.refused(b"message 20 out of turn")

    def test_new_keys_out_of_turn(self) -> None:
        self.up()
        self.server.say(MSG_NEWKEYS, b"")
        self.refused(b"message 21 out of turn")

    def test_strict_exchange(self) -> None:
        """Nothing before it, nothing within; only if the host holds to it, too."""

        ignored = (MSG_IGNORE, NS(b""))
        self.meet(Server(before=ignored))
        self.up()
        self.meet(Server(strict=True, before=ignored))
        self.refused(b"the key exchange does not come first")
        self.meet(Server(after=ignored))
        self.up()
        self.meet(Server(last=ignored))
        self.up()
        for server in (Server(strict=True, after=ignored), Server(strict=True, last=ignored)):
            self.meet(server)
            self.refused(b"message 2 out of turn")

    def test_chacha_without_a_strict_exchange(self) -> None:
        self.patch(Server, "supportedCiphers", [CHACHA])
        self.meet(Server())
        self.refused(b"its ChaCha20 needs a strict key exchange")

    def test_host_that_asks_and_does_not_read(self) -> None:
        self.patch(ssh_exchange, "HELD_BACK", 10_000)
        self.up()
        self.client.pauseProducing()
        for _ in range(200):
            self.server.sendPacket(MSG_GLOBAL_REQUEST, ASK)
        self.run_on()
        self.assertEqual(self.client.said, [b"it asks, but does not read the answers"])
        self.assertTrue(self.client.transport.disconnected)
        self.assertLess(len(self.server.heard), 200)

    def test_host_that_never_ends_the_exchange(self) -> None:
        """What waits for the new keys is limited, too."""

        self.patch(ssh_exchange, "HELD_BACK", 10_000)
        self.up()
        self.client.sendKexInit()
        for _ in range(200):
            self.server.say(MSG_GLOBAL_REQUEST, ASK)
        self.pump.pump()
        self.run_on()
        self.assertEqual(self.client.said, [b"it asks, but does not read the answers"])
