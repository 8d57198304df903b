"""The protocol without I/O: one transition table (see ``states``), two roles.

Bytes come in and go out as values. A frame that the table does not allow, or whose numbers do not
fit, raises ``LocalProtocolError`` when this end wanted to send it and ``RemoteProtocolError`` when
the peer did; the state stays as it was.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from draftlink.protocol import effects, faults, frames
from draftlink.protocol.control import digest
from draftlink.protocol.frames import (
    Draft,
    Frame,
    Phase,
    Propose,
    Replay,
    Resume,
    Resumed,
    Start,
    Switch,
    Switched,
    Tokens,
    Verdict,
    Written,
)
from draftlink.protocol.progress import Progress
from draftlink.protocol.standing import Standing
from draftlink.protocol.states import NUMBERED, SENDER, TABLE, UNDER_WAY, WRITES, State


class ProtocolError(Exception):
    """A frame that the protocol does not allow here."""


class LocalProtocolError(ProtocolError):
    """This end's mistake."""


class RemoteProtocolError(ProtocolError):
    """The peer's mistake."""


def decode(data: bytes) -> Frame:
    """A peer's frame, not yet held against any session. Raises RemoteProtocolError."""
    try:
        return frames.decode(data)
    except ValueError as error:
        raise RemoteProtocolError(str(error)) from None


class Session(Standing):
    """One end's view of a connection, and of the generation that it carries."""

    def send(self, frame: Frame) -> bytes:
        """The frame's bytes, once the table allows it. Raises LocalProtocolError."""
        if SENDER[type(frame)] != self.role:
            raise LocalProtocolError(f"a {self.role} does not send {type(frame).__name__}")
        data = frames.encode(frame)
        self._apply(frame, LocalProtocolError)
        if isinstance(frame, NUMBERED):
            closes = isinstance(frame, Switched) or (isinstance(frame, Verdict) and frame.closes)
            self.progress.frames.add(data, begins=closes)
        return data

    def receive(self, data: bytes) -> Frame | None:
        """The peer's frame; None for one that has been overtaken. Raises RemoteProtocolError."""
        return self.accept(decode(data))

    def accept(self, frame: Frame) -> Frame | None:
        """A frame that the peer has sent, decoded: see ``receive``."""
        if SENDER[type(frame)] == self.role:
            raise RemoteProtocolError(f"the peer of a {self.role} sends no {type(frame).__name__}")
        overtaken = self._overtaken(frame)
        if not overtaken:
            self._apply(frame, RemoteProtocolError)
        elif self.role == "device":
            if self.late == self.progress.outstanding:
                raise RemoteProtocolError("it goes on writing behind the end of the generation")
            self.late += 1
        if isinstance(frame, NUMBERED):
            self.progress.frames.received += 1
            if not overtaken:
                self._acknowledged(frame)
        return None if overtaken else frame

    def _overtaken(self, frame: Frame) -> bool:
        """Whether the peer sent a frame before it knew what makes it void."""
        if self.role == "device":  # it has ended the generation
            written = isinstance(frame, Verdict | Tokens | Switched | Written)
            return self.state is State.FINISHING and written
        if isinstance(frame, Draft):  # it was drafted on from a token that did not stand
            drafting = self.state in (State.READY, State.DRAFTING, State.VERIFYING)
            return drafting and frame.epoch < self.epoch
        if isinstance(frame, Propose):  # the text had ended, or a newer path had begun
            ended = self.state is State.READY and self.generation != 0
            return ended or (self.state is State.WRITING and frame.path < self.progress.path)
        # The generation had ended before its mode could change.
        return (
            isinstance(frame, Switch)
            and self.state is State.READY
            and frame.generation == self.generation != 0
        )

    def _acknowledged(self, frame: Frame) -> None:
        """Forget what the peer must have had when it sent ``frame``."""
        if isinstance(frame, Switch) and frame.mode == "stream":
            return  # it may have crossed a verdict
        kept, drafts = self.progress.frames, len(self.progress.drafts)
        if self.role == "bs":
            kept.in_epoch()
        elif isinstance(frame, Verdict) and not frame.ended:
            kept.keep(drafts)
        else:  # a switch that is not answered yet is the last
            kept.keep_last(int(self.state is State.SWITCHING))

    def _apply(self, frame: Frame, error: type[ProtocolError]) -> None:
        key = (self.state, type(frame))
        if key not in TABLE:
            raise error(f"{type(frame).__name__} is not allowed while {self.state.name}")
        fault = faults.find(self, frame)
        if fault:
            raise error(fault)
        effects.apply(self, frame)
        following = TABLE[key]
        self.state = self._next(frame) if following is None else following

    def _next(self, frame: Frame) -> State:
        progress = self.progress
        if isinstance(frame, Resumed):
            if frame.replay:
                return State.REPLAYING
            return self._goes_on()
        if isinstance(frame, Replay):
            return self._goes_on()
        if isinstance(frame, Start):
            return WRITES[frame.mode]
        if isinstance(frame, Draft):
            return State.VERIFYING if frame.waits else State.DRAFTING
        if isinstance(frame, Switch):
            return State.VERIFYING if progress.drafts else State.STREAMING
        if isinstance(frame, Verdict) and not frame.ended:
            if progress.drafts:
                return self.state
            switched, progress.switching = progress.switching, False
            return State.STREAMING if switched else State.DRAFTING
        assert isinstance(frame, Verdict | Tokens | Written)
        return State.READY if frame.ended else self.state

    def _goes_on(self) -> State:
        stopped, self.stopped_at = self.stopped_at, None
        assert stopped is not None
        return stopped

    # After a lost connection.

    def reopen(self) -> None:
        """A device's session over a new connection, from Hello on."""
        if self.state in UNDER_WAY:
            self.stopped_at = self.state
        elif self.stopped_at is None:  # the base station may know nothing of the history
            self.progress = Progress(self.generation)
        self.state = State.OPENED

    def abandon(self) -> None:
        """A device gives up the generation, and the connection that it was on."""
        self.stopped_at = None
        self.state = State.CLOSED

    def resume(self, history: Sequence[int]) -> Resume:
        """What the device asks for, whose tokens are ``history``."""
        progress = self.progress
        start = progress.start
        assert start is not None
        mode: Phase = "draft"
        if self.stopped_at in (State.STREAMING, State.SWITCHING):
            mode = "stream"
        elif self.stopped_at is State.WRITING:
            mode = "both"
        return Resume(
            start=msgspec.structs.replace(start, base=start.begins, ids=[], mode=mode),
            epoch=progress.epoch,
            length=progress.agreed,
            digest=digest(history[: progress.agreed]),
            owes=progress.owed or progress.first,
            seen=progress.frames.received,
        )

    @property
    def resumes_at(self) -> int:
        """Tokens of the history that a replay brings."""
        assert self.resuming is not None
        return self.resuming.length

    def adopt(self, parked: Session) -> bool:
        """At the base station: go on with the generation of a session whose connection was lost.

        False if that is not the one, or has not what the device asks for.
        """
        progress, asked = parked.progress, self.resuming
        assert asked is not None
        both = asked.start.mode == "both"
        fits = (
            progress.generation == asked.start.generation
            and progress.start is not None
            and (progress.start.mode == "both") == both
            and asked.epoch <= progress.epoch
            and asked.length <= progress.length
            and progress.frames.has(asked.seen)
        )
        behind = progress.length - asked.length
        if both:  # nothing but the text is told again, and no other state has one
            fits = fits and behind <= progress.written
            fits = fits and parked.state in (State.WRITING, State.READY)
        if not fits:
            return False
        self.progress, self.stopped_at = progress, parked.state
        if both and behind:
            progress.rewind(asked.length)
            self.stopped_at = State.WRITING
        return True

    def resend(self, seen: int) -> list[bytes]:
        """The frames that a peer which has dealt with ``seen`` of them has not."""
        return self.progress.frames.lacks(seen)
