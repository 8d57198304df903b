"""Messages to bytes and back. Every WebSocket message is binary and starts with its kind.

Control messages are msgpack (typed by msgspec); the hot frames have a compact layout of their own
(``compact``). Bytes that do not parse raise ``ValueError``.
"""

from __future__ import annotations

import msgspec

from draftlink.protocol import compact
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
from draftlink.protocol.hot import MAX_TOKENS, Draft, Propose, Tokens, Verdict, Written
from draftlink.protocol.varints import Reader

__all__ = [
    "MAX_TOKENS",
    "Control",
    "Done",
    "Draft",
    "Finish",
    "Frame",
    "Hello",
    "Phase",
    "Progress",
    "Propose",
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
    "Written",
]

VERSION = 6  # the highest that is spoken here,
LOWEST = 6  # and the lowest
SUPPRESSED = "suppressed-ids"  # a Start may name ids that are never written
BOTH = "both-write-2"  # a Start may have both ends write at once
PENALTIES = "penalties"  # its sampling may have a bias, and penalties over the output
LOGPROBS = "logprobs"  # it may ask for the target's log-probabilities
LEAVES = "leaves"  # where both write, candidates may stand beside proposed tokens
BRANCHES = "branches"  # and tokens may follow others than the last that was proposed
RECOVERY = "recovery"  # its scheme may have a device correct by pairs instead of a whole row
STREAMED = "streamed-surprisals"  # it may ask how likely the target found what it streams
# Of this version, what only some speak.
FEATURES: tuple[str, ...] = (
    *(SUPPRESSED, BOTH, PENALTIES, LOGPROBS, RECOVERY, LEAVES, STREAMED),
    BRANCHES,
)
MAX_MESSAGE_BYTES = 1 << 20
FENCED = 4001  # WebSocket close code: a newer connection has taken the session
PROGRESS_S = 10.0  # the longest that a base station is silent while something of it is due
PING_TIMEOUT_S = 60.0  # a small board under load can be silent for longer than the usual 20 s


Frame = Control | Draft | Verdict | Tokens | Propose | Written

_CONTROL = 1
_NAMES = {
    compact.DRAFT: "Draft",
    compact.VERDICT: "Verdict",
    compact.TOKENS: "Tokens",
    compact.PROPOSE: "Propose",
    compact.WRITTEN: "Written",
}
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Control)


def encode(frame: Frame) -> bytes:
    """A frame's bytes."""
    if isinstance(frame, Draft | Verdict | Tokens | Propose | Written):
        return compact.encode(frame)
    return bytes((_CONTROL,)) + _encoder.encode(frame)


def kind(data: bytes) -> str:
    """The name of a frame's type, for a ledger; control messages are all "Control"."""
    return _NAMES.get(data[0], "Control")


def decode(data: bytes) -> Frame:
    """The frame in ``data``. Raises ValueError for bytes that are none."""
    if not data:
        raise ValueError("an empty message")
    if data[0] == _CONTROL:
        try:
            control: Frame = _decoder.decode(data[1:])
        # Values nested too deeply in a field that is skipped are a RecursionError.
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError(f"not a control message: {str(error)[:200]}") from None
        return control
    if (decoder := compact.DECODERS.get(data[0])) is not None:
        return decoder(Reader(data, 1))  # after the kind
    raise ValueError(f"a message of unknown kind {data[0]}")
