"""Messages to bytes and back. Every WebSocket message is binary and starts with its kind.

Control messages are msgpack (typed by msgspec); the hot frames, Draft, Verdict and Tokens, are a
compact layout of our own: little-endian, integers as LEB128 varints. Bytes that do not parse raise
``ValueError``.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from draftlink.protocol.control import (
    Control,
    Done,
    Finish,
    Hello,
    Phase,
    Progress,
    Refused,
    Replay,
    Resume,
    Resumed,
    Start,
    Switch,
    Switched,
    Welcome,
)

__all__ = [
    "Control",
    "Done",
    "Draft",
    "Finish",
    "Frame",
    "Hello",
    "Phase",
    "Progress",
    "Refused",
    "Replay",
    "Resume",
    "Resumed",
    "Start",
    "Switch",
    "Switched",
    "Tokens",
    "Verdict",
    "Welcome",
]

VERSION = 5  # the highest that is spoken here,
LOWEST = 5  # and the lowest
SUPPRESSED = "suppressed-ids"  # a Start may name ids that are never written
FEATURES: tuple[str, ...] = (SUPPRESSED,)  # of this version that only some speak
MAX_MESSAGE_BYTES = 1 << 20
MAX_TOKENS = 4096  # in a Tokens frame: each is read on its own
FENCED = 4001  # WebSocket close code: a newer connection has taken the session
PROGRESS_S = 10.0  # the longest that a base station is silent while something of it is due
PING_TIMEOUT_S = 60.0  # a small board under load can be silent for longer than the usual 20 s


@dataclass(frozen=True)
class Draft:
    """``length`` drafted tokens for the positions from ``base`` on; ``payload`` is the scheme's.

    ``waits``: the device sends nothing more until the verdict, and if all is accepted the base
    station writes one token of its own behind it; a length of 0 then means "write one token".
    Without it, drafts may follow at once (run-ahead). ``first`` is the token that the device owed
    after a rejection (``split``): it stands at ``base``, is not judged, and the drafted tokens
    follow it.
    """

    epoch: int
    base: int
    length: int
    payload: bytes
    first: int | None = None
    waits: bool = True

    @property
    def positions(self) -> int:
        """Positions behind ``base`` that a verdict may come to fill from it.

        As many as its drafted tokens, since they follow one another; candidates beside one another
        would share a position. What this end has to decode and feed is ``length`` tokens.
        """
        return self.length


@dataclass(frozen=True)
class Verdict:
    """Of the drafts at and behind ``base``, ``accepted`` tokens stand, and ``next`` follows them.

    ``next`` is a correction where fewer were accepted than drafted, else the bonus token; None
    when the generation ended within the accepted tokens, where ``row``, the packed logits of the
    target, comes instead (the device then owes the correction: ``split``), and where whole drafts
    that did not wait were accepted. One verdict may answer several drafts of its epoch. ``ended``:
    an EOS or the token limit was reached; nothing more is drawn. ``surprisals``: where the start
    asked for them, −log2 p of each accepted token and of ``next``, in eighths of a bit, one byte
    each.
    """

    epoch: int
    base: int
    accepted: int
    next: int | None
    ended: bool
    queue_us: int  # how long the frame waited for the model
    verify_us: int  # how long the model and the judging took
    row: bytes = b""
    surprisals: bytes = b""

    @property
    def closes(self) -> bool:
        """Whether the epoch ends with it: something other than drafts was written, or is owed."""
        return self.next is not None or self.ended or bool(self.row)


@dataclass(frozen=True)
class Tokens:
    """Tokens that the streaming base station wrote, for the positions from ``base`` on."""

    epoch: int
    base: int
    ids: tuple[int, ...]
    ended: bool


Frame = Control | Draft | Verdict | Tokens

_CONTROL, _DRAFT, _VERDICT, _TOKENS = 1, 2, 3, 4
_ENDED, _HAS_NEXT, _HAS_ROW, _HAS_SURPRISALS = 1, 2, 4, 8
_HAS_FIRST, _WAITS = 1, 2
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Control)


def _varints(*values: int) -> bytes:
    out = bytearray()
    for value in values:
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 1  # after the kind

    def byte(self) -> int:
        if self._at >= len(self._data):
            raise ValueError("the frame ends too early")
        self._at += 1
        return self._data[self._at - 1]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 32 or (shift and not byte):
                    break  # too large, or not the shortest form
                return value
        raise ValueError("an integer of the frame is longer than 32 bits or padded")

    def rest(self) -> bytes:
        begin, self._at = self._at, len(self._data)
        return self._data[begin:]

    def block(self) -> bytes:
        length = self.varint()
        begin, self._at = self._at, self._at + length
        # An empty block is not sent: a frame has one form.
        if not length or self._at > len(self._data):
            raise ValueError("a block of the frame is empty or ends too early")
        return self._data[begin : self._at]

    def flags(self, known: int) -> int:
        flags = self.byte()
        if flags & ~known:
            raise ValueError(f"unknown flags {flags:#x}")
        return flags

    def finish(self) -> None:
        if self._at != len(self._data):
            raise ValueError("the frame has bytes left over")


def encode(frame: Frame) -> bytes:
    """A frame's bytes."""
    if isinstance(frame, Draft):
        first = () if frame.first is None else (frame.first,)
        head = bytes((_DRAFT, _HAS_FIRST * len(first) | _WAITS * frame.waits))
        return head + _varints(frame.epoch, frame.base, frame.length, *first) + frame.payload
    if isinstance(frame, Verdict):
        flags = _ENDED * frame.ended | _HAS_NEXT * (frame.next is not None)
        flags |= _HAS_ROW * bool(frame.row) | _HAS_SURPRISALS * bool(frame.surprisals)
        fields = (frame.epoch, frame.base, frame.accepted, frame.queue_us, frame.verify_us)
        following = () if frame.next is None else (frame.next,)
        blocks = b"".join(_varints(len(b)) + b for b in (frame.row, frame.surprisals) if b)
        return bytes((_VERDICT, flags)) + _varints(*fields, *following) + blocks
    if isinstance(frame, Tokens):
        head = bytes((_TOKENS, _ENDED * frame.ended))
        return head + _varints(frame.epoch, frame.base, len(frame.ids), *frame.ids)
    return bytes((_CONTROL,)) + _encoder.encode(frame)


def kind(data: bytes) -> str:
    """The name of a frame's type, for a ledger; control messages are all "Control"."""
    return {_DRAFT: "Draft", _VERDICT: "Verdict", _TOKENS: "Tokens"}.get(data[0], "Control")


def decode(data: bytes) -> Frame:
    """The frame in ``data``. Raises ValueError for bytes that are none."""
    if not data:
        raise ValueError("an empty message")
    source = _Reader(data)
    if data[0] == _CONTROL:
        try:
            control: Frame = _decoder.decode(data[1:])
        # Values nested too deeply in a field that is skipped are a RecursionError.
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"not a control message: {str(error)[:200]}") from None
        return control
    if data[0] == _DRAFT:
        flags = source.flags(_HAS_FIRST | _WAITS)
        epoch, base, length = (source.varint() for _ in range(3))
        first = source.varint() if flags & _HAS_FIRST else None
        return Draft(epoch, base, length, source.rest(), first, bool(flags & _WAITS))
    if data[0] == _VERDICT:
        flags = source.flags(_ENDED | _HAS_NEXT | _HAS_ROW | _HAS_SURPRISALS)
        epoch, base, accepted, queue_us, verify_us = (source.varint() for _ in range(5))
        following = source.varint() if flags & _HAS_NEXT else None
        row = source.block() if flags & _HAS_ROW else b""
        surprisals = source.block() if flags & _HAS_SURPRISALS else b""
        source.finish()
        ended = bool(flags & _ENDED)
        return Verdict(
            epoch, base, accepted, following, ended, queue_us, verify_us, row, surprisals
        )
    if data[0] == _TOKENS:
        ended = bool(source.flags(_ENDED))
        epoch, base, count = source.varint(), source.varint(), source.varint()
        if count > MAX_TOKENS:
            raise ValueError(f"{count} tokens in a frame, where {MAX_TOKENS} are the most")
        ids = tuple(source.varint() for _ in range(count))
        source.finish()
        return Tokens(epoch, base, ids, ended)
    raise ValueError(f"a message of unknown kind {data[0]}")
