"""The protocol without I/O: one transition table, two roles.

Bytes come in and go out as values. A frame that the table does not allow, or whose numbers do not
fit, raises ``LocalProtocolError`` when this end wanted to send it and ``RemoteProtocolError`` when
the peer did; the state stays as it was.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal

from draftlink import frames
from draftlink.frames import (
    Done,
    Draft,
    Finish,
    Frame,
    Hello,
    Refused,
    Start,
    Switch,
    Tokens,
    Verdict,
    Welcome,
)
from draftlink.schemes.base import MAX_DRAFT

MAX_EOS = 256  # EOS ids of a generation: each token is looked up among them
MAX_VOCAB = 1 << 20  # of a target: rows of this size are made, whatever a frame's own size


class ProtocolError(Exception):
    """A frame that the protocol does not allow here."""


class LocalProtocolError(ProtocolError):
    """This end's mistake."""


class RemoteProtocolError(ProtocolError):
    """The peer's mistake."""


class State(Enum):
    """Where a session is."""

    OPENED = auto()  # nothing said
    GREETING = auto()  # the device has said hello
    READY = auto()  # no generation
    DRAFTING = auto()  # the device's turn
    VERIFYING = auto()  # a draft waits for its verdict
    STREAMING = auto()  # the base station writes alone
    FINISHING = auto()  # the device has ended the generation, and Done is owed
    CLOSED = auto()


Role = Literal["device", "bs"]
SENDER: dict[type[Frame], Role] = {
    Hello: "device",
    Start: "device",
    Draft: "device",
    Switch: "device",
    Finish: "device",
    Welcome: "bs",
    Refused: "bs",
    Verdict: "bs",
    Tokens: "bs",
    Done: "bs",
}

# Where a frame is allowed, and where it leads; None: that depends on the frame (see _next).
TABLE: dict[tuple[State, type[Frame]], State | None] = {
    (State.OPENED, Hello): State.GREETING,
    (State.GREETING, Welcome): State.READY,
    (State.READY, Start): None,
    (State.DRAFTING, Draft): State.VERIFYING,
    (State.DRAFTING, Switch): State.STREAMING,
    (State.VERIFYING, Verdict): None,
    (State.STREAMING, Tokens): None,
    (State.DRAFTING, Finish): State.FINISHING,
    (State.VERIFYING, Finish): State.FINISHING,
    (State.STREAMING, Finish): State.FINISHING,
    # The base station had already ended the generation when Finish reached it.
    (State.READY, Finish): State.FINISHING,
    # Verdicts and tokens that were under way when the device sent Finish: dropped by the device.
    (State.FINISHING, Verdict): State.FINISHING,
    (State.FINISHING, Tokens): State.FINISHING,
    (State.FINISHING, Done): State.READY,
    **{(state, Refused): State.CLOSED for state in State if state is not State.CLOSED},
}


class Session:
    """One end's view of a connection.

    ``length`` is the number of tokens of the history that both ends agree on; ``epoch`` goes up
    with each Start, Verdict, Switch and Done: drafts for an older one have been overtaken.
    """

    def __init__(self, role: Role, vocab_size: int) -> None:
        self.role = role
        self.vocab_size = vocab_size
        self.state = State.OPENED
        self.generation = 0
        self.epoch = 0
        self.length = 0
        self.written = 0
        self.start: Start | None = None
        self._hello: Hello | None = None
        self._drafted = 0
        self._kept = 0  # tokens that Finish keeps, and Done confirms
        self._owed = False  # the device owes the token after a rejection

    def send(self, frame: Frame) -> bytes:
        """The frame's bytes, once the table allows it. Raises LocalProtocolError."""
        if SENDER[type(frame)] != self.role:
            raise LocalProtocolError(f"a {self.role} does not send {type(frame).__name__}")
        ending = self.role == "bs" and self.state is State.FINISHING
        if ending and not isinstance(frame, Done | Refused):
            raise LocalProtocolError("the device has ended this generation; only Done is owed")
        self._apply(frame, LocalProtocolError)
        return frames.encode(frame)

    def receive(self, data: bytes) -> Frame | None:
        """The peer's frame; None for one that has been overtaken. Raises RemoteProtocolError."""
        try:
            frame = frames.decode(data)
        except ValueError as error:
            raise RemoteProtocolError(str(error)) from None
        if SENDER[type(frame)] == self.role:
            raise RemoteProtocolError(f"the peer of a {self.role} sends no {type(frame).__name__}")
        overtaken = self.state is State.FINISHING and isinstance(frame, Verdict | Tokens)
        self._apply(frame, RemoteProtocolError)
        return None if overtaken else frame

    def _apply(self, frame: Frame, error: type[ProtocolError]) -> None:
        key = (self.state, type(frame))
        if key not in TABLE:
            raise error(f"{type(frame).__name__} is not allowed while {self.state.name}")
        fault = self._fault(frame)
        if fault:
            raise error(fault)
        following = TABLE[key]
        self.state, finishing = following or self._next(frame), self.state is State.FINISHING
        if isinstance(frame, Hello):
            self._hello = frame
        elif isinstance(frame, Start):
            self.start, self.generation = frame, frame.generation
            self.length, self.written = frame.base + len(frame.ids), 0
            self.epoch += 1
            self._owed = False
        elif isinstance(frame, Draft):
            self._drafted = frame.length
            self._grow(self._owed)
            self._owed = False
        elif isinstance(frame, Verdict):
            self.epoch += 1  # of an overtaken one too: the base station has counted it
            if not finishing:
                self._grow(frame.accepted + (frame.next is not None))
                self._owed = bool(frame.row)
        elif isinstance(frame, Tokens) and not finishing:
            self._grow(len(frame.ids))
        elif isinstance(frame, Switch):
            self.epoch += 1
        elif isinstance(frame, Finish):
            self._kept = frame.keep
        elif isinstance(frame, Done):
            self.length = frame.length
            self.epoch += 1
            self._owed = False

    def _grow(self, count: int) -> None:
        self.length += count
        self.written += count

    def _next(self, frame: Frame) -> State:
        if isinstance(frame, Start):
            return State.STREAMING if frame.mode == "stream" else State.DRAFTING
        if isinstance(frame, Verdict):
            return State.READY if frame.ended else State.DRAFTING
        assert isinstance(frame, Tokens)
        return State.READY if frame.ended else State.STREAMING

    def _fault(self, frame: Frame) -> str | None:
        """What is wrong with the frame's numbers, or None."""
        if isinstance(frame, Welcome):
            return self._welcome_fault(frame)
        if isinstance(frame, Start):
            return self._start_fault(frame)
        if isinstance(frame, Finish | Switch | Done) and frame.generation != self.generation:
            return f"generation {frame.generation}, where {self.generation} is current"
        if isinstance(frame, Finish) and not 0 <= frame.keep <= self.length:
            return f"{frame.keep} tokens to keep, of {self.length}"
        if isinstance(frame, Done) and frame.length != self._kept:
            return f"{frame.length} tokens kept, where {self._kept} were to be"
        if isinstance(frame, Switch) and self._owed:
            return "the token after a rejection is owed"
        if self.state is State.FINISHING:
            return None
        if isinstance(frame, Draft | Verdict | Tokens):
            if (frame.epoch, frame.base) != (self.epoch, self.length):
                return (
                    f"{type(frame).__name__} for epoch {frame.epoch}, position {frame.base}, where"
                    f" epoch {self.epoch}, position {self.length} is next"
                )
            if isinstance(frame, Verdict):
                return self._verdict_fault(frame)
            if isinstance(frame, Draft):
                return self._draft_fault(frame)
            if isinstance(frame, Tokens):
                if not frame.ids or max(frame.ids) >= self.vocab_size:
                    return "no tokens, or ids out of range"
                return self._limit_fault(len(frame.ids), frame.ended)
        return None

    def _welcome_fault(self, frame: Welcome) -> str | None:
        assert self._hello is not None
        said = (self._hello.version, self._hello.tokenizer_hash)
        if (frame.version, frame.tokenizer_hash) != said:
            return f"a welcome to version {frame.version}, or to a tokenizer that is not this one"
        if not 1 <= frame.vocab_size <= MAX_VOCAB or frame.context < 1:
            return f"a target of {frame.vocab_size} logits and a context of {frame.context}"
        return None

    def _start_fault(self, frame: Start) -> str | None:
        if not 0 <= frame.base <= self.length:
            return f"base {frame.base}, where the slot has {self.length} tokens"
        if not frame.ids or not all(0 <= i < self.vocab_size for i in frame.ids):
            return "the prompt is empty or has ids out of range"
        if frame.generation <= self.generation or frame.max_tokens < 1:
            return "generation numbers rise, and max_tokens is at least 1"
        if len(frame.eos_ids) > MAX_EOS:
            return f"{len(frame.eos_ids)} EOS ids, where {MAX_EOS} is the most"
        return None

    def _draft_fault(self, frame: Draft) -> str | None:
        assert self.start is not None
        if frame.length > MAX_DRAFT:
            return f"{frame.length} drafted tokens, where {MAX_DRAFT} is the most"
        if (frame.first is not None) != self._owed:
            return "the token after a rejection is owed" if self._owed else "no token is owed"
        if frame.first is not None:
            if frame.first >= self.vocab_size:
                return f"the first token {frame.first} is out of range"
            # One that ends the text comes with no draft behind it; the device finishes instead.
            if frame.first in self.start.eos_ids or self.start.max_tokens - self.written < 2:
                return "the token that was owed ends the generation, and a draft follows it"
        return None

    def _verdict_fault(self, frame: Verdict) -> str | None:
        assert self.start is not None
        device_corrects = self.start.scheme.corrects == "device" and not self.start.sampling.greedy
        if frame.accepted > self._drafted:
            return f"{frame.accepted} accepted of {self._drafted} drafted"
        if frame.next is not None and frame.next >= self.vocab_size:
            return f"the next token {frame.next} is out of range"
        if frame.row:
            if not device_corrects or frame.accepted == self._drafted:
                return "a target row that this scheme has no use for"
            if frame.next is not None or frame.ended:
                return "a target row, and a next token or an end beside it"
        elif (
            device_corrects
            and frame.accepted < self._drafted
            and not (frame.ended and frame.next is None)
        ):
            return "a rejection without the target's row"
        elif frame.next is None and not frame.ended:
            return "a verdict without a next token, and the generation goes on"
        elif frame.next is None and not frame.accepted:
            return "a verdict without any token"
        emitted = frame.accepted + (frame.next is not None)
        if len(frame.surprisals) != emitted * self.start.surprisals:
            return f"{len(frame.surprisals)} surprisals for {emitted} tokens"
        return self._limit_fault(emitted, frame.ended)

    def _limit_fault(self, count: int, ended: bool) -> str | None:
        assert self.start is not None
        left = self.start.max_tokens - self.written
        if count > left or (count == left and not ended):
            return f"{count} more tokens, where {left} are left"
        return None
