"""What messages cost on the wire: a ledger per direction and kind of frame.

Four depths, each counting all above it: the payload (a draft's coded bits, any other frame whole),
the frame with its own head, the WebSocket message, and an estimate of the packets under TLS.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

import msgspec

Direction = Literal["up", "down"]

SEGMENT_BYTES = 1448  # of data in a packet: Ethernet's 1500 less IPv4 20, TCP 20, timestamps 12
PACKET_BYTES = 52  # those headers
TLS_BYTES = 22  # a TLS 1.3 record: header 5, content type 1, tag 16 (RFC 8446, section 5.2)
RECORD_BYTES = 16_384  # at most so much data is in one
OTHER = "other"  # in a ledger, in the place of a kind of frame


def websocket_bytes(payload: int, *, masked: bool) -> int:
    """Bytes of a binary message of ``payload`` bytes with its header (RFC 6455, section 5.2).

    A device's messages are masked, a base station's are not.
    """
    extended = 0 if payload < 126 else 2 if payload < 1 << 16 else 8
    return 2 + extended + 4 * masked + payload


def packet_bytes(message: int, *, tls: bool = True) -> int:
    """Bytes of a WebSocket message in packets, under TLS or not: an estimate.

    The message leaves at once in packets of its own, and the answer acknowledges it.
    """
    data = message + TLS_BYTES * -(-message // RECORD_BYTES) * tls
    return data + PACKET_BYTES * -(-data // SEGMENT_BYTES)


class Entry(msgspec.Struct):
    """The frames of one kind in one direction.

    ``OTHER`` is what a kernel counts beyond the packets that are estimated for frames: those that
    only acknowledge, WebSocket pings, packets sent again; less what messages saved that shared a
    packet, and 0 where that was more. The frames' own are estimated under TLS, whether this link
    has it or not.
    """

    direction: Direction
    kind: str
    frames: int = 0
    payload_bits: int = 0
    frame_bytes: int = 0
    websocket_bytes: int = 0
    packet_bytes: int = 0  # TCP/IP and TLS included, estimated


class Ledger:
    """Counts what crosses a link."""

    def __init__(self) -> None:
        self._entries: dict[tuple[Direction, str], Entry] = {}
        # Packet bytes of all frames by direction and whether there is TLS.
        self._known: dict[tuple[Direction, bool], int] = defaultdict(int)

    def record(
        self, direction: Direction, kind: str, frame_bytes: int, payload_bits: int | None = None
    ) -> None:
        """A frame crossed; ``payload_bits`` is the whole of it where there is no coded part."""
        entry = self._entries.setdefault((direction, kind), Entry(direction, kind))
        message = websocket_bytes(frame_bytes, masked=direction == "up")
        entry.frames += 1
        entry.payload_bits += 8 * frame_bytes if payload_bits is None else payload_bits
        entry.frame_bytes += frame_bytes
        entry.websocket_bytes += message
        entry.packet_bytes += packet_bytes(message)
        for tls in (False, True):
            self._known[direction, tls] += packet_bytes(message, tls=tls)

    def crossed(self, direction: Direction, size: int, *, tls: bool) -> None:
        """A kernel has counted ``size`` bytes of packets so far, those of the frames among them.

        ``tls``: whether it was TLS that it counted.
        """
        other = max(0, size - self._known[direction, tls])
        self._entries[direction, OTHER] = Entry(direction, OTHER, packet_bytes=other)

    def entries(self) -> list[Entry]:
        """All entries, copied, the device's first."""
        return [
            msgspec.structs.replace(entry)
            for _, entry in sorted(self._entries.items(), key=lambda kv: (kv[0][0] != "up", kv[0]))
        ]


def total(entries: list[Entry], direction: Direction, *kinds: str) -> Entry:
    """The sum over kinds of frames, all of them where none is named."""
    out = Entry(direction, "+".join(kinds) or "all")
    for entry in entries:
        if entry.direction == direction and (not kinds or entry.kind in kinds):
            out.frames += entry.frames
            out.payload_bits += entry.payload_bits
            out.frame_bytes += entry.frame_bytes
            out.websocket_bytes += entry.websocket_bytes
            out.packet_bytes += entry.packet_bytes
    return out
