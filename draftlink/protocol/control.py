"""The control messages: what is said rarely, as msgpack maps typed by msgspec."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from draftlink.distribution.sampling import Sampling
from draftlink.schemes import AnyScheme

MAX_RETRY_S = 3600  # a device need not believe more
MOST_US = (1 << 32) - 1  # of a step
# What a base station accepts of drafted tokens × the most entries that each of them may carry, in
# one Draft and in all that have no verdict yet, where its Welcome does not say otherwise.
FRAME_ENTRIES, FLIGHT_ENTRIES = 1 << 15, 1 << 17

# Who writes: the device drafts and the base station verifies, or the base station alone. These
# take turns within a generation.
Turn = Literal["draft", "stream"]
Phase = Literal["draft", "stream", "both"]  # or both at once, each on its own, until its end


class Hello(msgspec.Struct, frozen=True, tag="hello", omit_defaults=True):
    """First from the device: what it is, and what it speaks.

    The versions from ``lowest`` to ``version``, where 0 stands for ``version`` alone, and of what
    may be added within a version the ``features``.
    """

    version: int
    tokenizer_hash: str
    vocab_size: int
    schemes: list[str]  # that it can speak
    agent: str
    ticket: bytes = b""  # of the session that this connection goes on with
    lowest: int = 0
    features: list[str] = []


class Welcome(msgspec.Struct, frozen=True, tag="welcome", omit_defaults=True):
    """The base station's answer: what it is, and which of the device's versions is spoken.

    ``features``: those of the device's that this base station has, too; both may use them.
    ``eos_ids``, ``bos_ids`` (which its tokenizer puts before a text), ``suppressed_ids`` (which it
    never writes by itself) and ``sampling`` are what the target's own files say, and ``unapplied``
    names settings in them that this base station cannot apply. Nothing of that is applied unless
    the device asks for it, in Start and in the prompt that it sends. ``step_us``, ``row_us``: what
    a step of one row takes there, and each further row, lately; 0 before the first.
    """

    version: int
    tokenizer_hash: str
    vocab_size: int  # logits of the target; ids at or above the smaller of both are never drafted
    context: int
    schemes: list[str]  # of the device's, those that it accepts here
    model: str
    dtype: str
    ticket: bytes = b""  # for a Hello after this connection is lost; sealed, opaque to the device
    features: list[str] = []
    frame_entries: int = FRAME_ENTRIES  # of drafted tokens × entries, the most in a Draft
    flight_entries: int = FLIGHT_ENTRIES  # and in all Drafts without a verdict
    eos_ids: list[int] = []
    bos_ids: list[int] = []
    suppressed_ids: list[int] = []
    sampling: Sampling | None = None
    unapplied: list[str] = []
    step_us: Annotated[int, msgspec.Meta(ge=0, le=MOST_US)] = 0
    row_us: Annotated[int, msgspec.Meta(ge=0, le=MOST_US)] = 0


class Refused(msgspec.Struct, frozen=True, tag="refused", omit_defaults=True):
    """The base station will not go on; ``reason`` says what differs or is too much.

    ``busy``: the same may be asked again after ``retry_after_s``.
    """

    code: Literal["version", "tokenizer", "request", "protocol", "internal", "busy"]
    reason: str
    retry_after_s: Annotated[int, msgspec.Meta(ge=0, le=MAX_RETRY_S)] | None = None


class Start(msgspec.Struct, frozen=True, tag="start"):
    """A generation begins: keep ``base`` tokens of the history, append ``ids``.

    ``suppressed_ids``, ascending, are written by neither end: their logits are −∞ before all else.
    ``logprobs``: each token that is written comes with the target's log-probability of it, and of
    so many of the likeliest ids. Only where both ends have the feature may either key be there.
    ``streamed_surprisals``: Tokens tell, too, how likely the target found each one; with a feature.
    ``turns``: where both ends write, the device drafts while no step is under way, and rests beside
    one; a hint.
    """

    generation: int
    base: int
    ids: list[int]
    sampling: Sampling
    scheme: AnyScheme
    mode: Phase
    max_tokens: int
    eos_ids: list[int]
    seed: int | None
    surprisals: bool = False  # verdicts are to tell how likely the target found each token
    suppressed_ids: list[int] | msgspec.UnsetType = msgspec.UNSET
    logprobs: int | msgspec.UnsetType = msgspec.UNSET
    turns: bool | msgspec.UnsetType = msgspec.UNSET
    streamed_surprisals: bool | msgspec.UnsetType = msgspec.UNSET

    @property
    def begins(self) -> int:
        """The position of the first token that the generation writes."""
        return self.base + len(self.ids)

    @property
    def suppressed(self) -> NDArray[np.int64]:
        """The suppressed ids; none where the key is not there."""
        ids = () if self.suppressed_ids is msgspec.UNSET else self.suppressed_ids
        return np.array(ids, dtype=np.int64)

    @property
    def streams_surprisals(self) -> bool:
        """Whether Tokens have surprisals; not where the key is not there."""
        return self.streamed_surprisals is True

    @property
    def tells(self) -> int | None:
        """How many of the likeliest ids are told with each token; None where nothing is."""
        return None if self.logprobs is msgspec.UNSET else self.logprobs


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    """The device ends a generation early: roll back to ``keep`` tokens of history."""

    generation: int
    keep: int


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Finish is carried out; nothing of the generation comes after this."""

    generation: int
    length: int
    epoch: int


class Switch(msgspec.Struct, frozen=True, tag="switch"):
    """From here on the base station streams, or the device drafts."""

    generation: int
    mode: Turn


class Switched(msgspec.Struct, frozen=True, tag="switched"):
    """The stream has stopped; drafts start at ``base``, in ``epoch``."""

    generation: int
    epoch: int
    base: int


class Resume(msgspec.Struct, frozen=True, tag="resume"):
    """The device goes on with a generation after a lost connection.

    ``start`` is the generation's own, with ``base`` at the end of its prompt, no ids, and the mode
    that it is in. What both ends agreed on last: ``epoch`` and ``length``, with ``digest`` of that
    history. ``owes``: the device owes the token behind it. ``seen``: numbered frames of the
    generation (verdicts, tokens, switches) that have come from the base station.
    """

    start: Start
    epoch: int
    length: int
    digest: bytes
    owes: bool
    seen: int


class Resumed(msgspec.Struct, frozen=True, tag="resumed"):
    """The base station's answer to Resume.

    It has had ``handled`` numbered frames of the device (drafts, switches); behind this come its
    own that the device has not seen. ``replay``: it knows nothing of the generation any more, and
    needs the history; both number their frames from 0 again.
    """

    generation: int
    handled: int
    replay: bool


class Replay(msgspec.Struct, frozen=True, tag="replay"):
    """The history that both ends had agreed on."""

    generation: int
    ids: list[int]


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """What is due from the base station is still under way; it says so every ``PROGRESS_S``.

    Of the ``total`` tokens that the round has to feed ``fed`` are fed; ``ahead`` other rounds are
    due before it.
    """

    generation: int
    fed: int
    total: int
    ahead: int


Control = (
    Hello
    | Welcome
    | Refused
    | Start
    | Finish
    | Done
    | Switch
    | Switched
    | Resume
    | Resumed
    | Replay
    | Progress
)


def packed(ids: Sequence[int]) -> NDArray[np.uint32]:
    """Ids as 32-bit numbers, in half the time that numpy takes for a list.

    Raises OverflowError for those that are none.
    """
    return np.array(array("I", ids), np.uint32)


def digest(ids: Sequence[int] | NDArray[np.uint32]) -> bytes:
    """16 bytes that stand for a history: BLAKE2b over its ids as 32-bit little-endian numbers."""
    numbers = ids if isinstance(ids, np.ndarray) else packed(ids)
    return hashlib.blake2b(numbers.astype("<u4").tobytes(), digest_size=16).digest()
