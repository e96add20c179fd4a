"""SSH's packets: whole in whatever pieces they come, and refused when a bit of them is another one."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from ipmiproxyd.agents import ssh_packets
from ipmiproxyd.agents.ssh_packets import (
    AUTHENTICATE,
    CIPHERS,
    LONGEST,
    MAC_ERROR,
    MACS,
    PROTOCOL_ERROR,
    Agreed,
    BadPacket,
    Mode,
    PacketReader,
    PacketWriter,
    Plain,
)
from tests.support.chunks import PLACES, cut

KEYS = tuple(bytes(range(start, start + 128)) for start in (1, 33, 65))
COMBINATIONS = (
    *((cipher, b"none") for cipher in AUTHENTICATE),
    *((cipher, mac) for cipher in CIPHERS if cipher not in AUTHENTICATE for mac in MACS),
)
MODES: tuple[Callable[[], Mode], ...] = (
    Plain,
    *((lambda cipher=cipher, mac=mac: Agreed(cipher, mac).mode(*KEYS)) for cipher, mac in COMBINATIONS),
)
quickly = settings(max_examples=60)


class SshPacketTests(SynchronousTestCase):
    @quickly
    @given(
        st.lists(st.tuples(st.binary(min_size=1, max_size=300), st.sampled_from((None, None, *MODES))), max_size=12),
        PLACES,
        st.booleans(),
    )
    def test_pieces_and_new_keys(self, sent: list[tuple[bytes, Any]], places: list[int], restart: bool) -> None:
        """Keys change after a packet, as after a NEWKEYS."""

        writer, reader = PacketWriter(), PacketReader()
        wire, changes = b"", []
        for payload, make in sent:
            wire += b"".join(writer.packet(payload[:1], payload[1:]))
            changes.append(make)
            if make is not None:
                writer.use(make(), restart=restart)
        heard: list[bytes] = []
        for piece in cut(wire, places):
            for found in reader.read(piece):
                if (make := changes[len(heard)]) is not None:
                    reader.use(make(), restart=restart)
                heard.append(bytes(found))
        self.assertEqual(heard, [payload for payload, _ in sent])
        self.assertEqual(reader.sequence, writer.sequence)

    def pair(self, make: Callable[[], Mode]) -> tuple[PacketWriter, PacketReader]:
        writer, reader = PacketWriter(), PacketReader()
        writer.use(make(), restart=False)
        reader.use(make(), restart=False)
        return writer, reader

    def refused(self, reader: PacketReader, wire: bytes) -> int:
        with self.assertRaises(BadPacket) as refused:
            list(reader.read(wire))
        bad: BadPacket = refused.exception
        return bad.code

    @quickly
    @given(st.sampled_from(MODES[1:]), st.integers(0, 10**6), st.integers(1, 255))
    def test_no_other_bit_is_taken(self, make: Callable[[], Mode], place: int, flip: int) -> None:
        writer, reader = self.pair(make)
        for _ in range(3):
            list(reader.read(b"".join(writer.packet(b"before"))))
        wire = bytearray(b"".join(writer.packet(b"x" * 100)))
        wire[place % len(wire)] ^= flip
        try:
            heard = list(reader.read(bytes(wire)))
        except BadPacket:
            return
        self.assertEqual(heard, [])  # a longer one, it now says: refused when the rest is there
        self.refused(reader, bytes(LONGEST + 100))

    def test_packet_that_comes_twice_is_refused(self) -> None:
        for make in MODES[1:]:
            writer, reader = self.pair(make)
            wire = b"".join(writer.packet(b"once"))
            self.assertEqual(len(list(reader.read(wire))), 1)
            self.assertIn(self.refused(reader, wire), (MAC_ERROR, PROTOCOL_ERROR))

    def test_absurd_lengths(self) -> None:
        for length in (0, 4, 13, LONGEST + 4, 0xFFFFFFFC):
            self.assertEqual(self.refused(PacketReader(), struct.pack(">L", length) + bytes(40)), PROTOCOL_ERROR)
            for make in MODES[1:3]:
                _, reader = self.pair(make)
                self.assertEqual(self.refused(reader, struct.pack(">L", length) + bytes(40)), PROTOCOL_ERROR)

    def test_padding(self) -> None:
        for padding in (0, 3, 11, 12, 255):
            wire = struct.pack(">LB", 12, padding) + bytes(11)
            self.assertEqual(self.refused(PacketReader(), wire), PROTOCOL_ERROR)

    def test_what_is_kept_is_less_than_a_packet(self) -> None:
        for make in MODES:
            writer, reader = self.pair(make)
            wire = b"".join(writer.packet(bytes(200_000)))
            self.assertEqual(list(reader.read(wire[:-1])), [])
            self.assertEqual([len(payload) for payload in reader.read(wire[-1:] + wire[:3])], [200_000])

    def test_worn_keys(self) -> None:
        self.patch(ssh_packets, "REKEY_BYTES", 1000)
        writer, reader = self.pair(MODES[1])
        wire = b"".join(writer.packet(bytes(900)))
        list(reader.read(wire))
        self.assertFalse(writer.is_worn)
        list(reader.read(b"".join(writer.packet(bytes(100)))))
        self.assertTrue(writer.is_worn and reader.is_worn)
        writer.use(MODES[1](), restart=True)
        self.assertEqual((writer.is_worn, writer.sequence), (False, 0))

    def test_sequence_goes_round(self) -> None:
        for make in MODES[3:]:
            writer, reader = self.pair(make)
            writer.sequence = reader.sequence = 0xFFFFFFFF
            for number in range(3):
                wire = b"".join(writer.packet(b"%d" % number))
                self.assertEqual([bytes(one) for one in reader.read(wire)], [b"%d" % number])
            self.assertEqual(reader.sequence, 2)
