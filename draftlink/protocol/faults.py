"""What is wrong with a frame's numbers, where the transition table allows its kind."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from draftlink.protocol import both, logprobs, validate
from draftlink.protocol.control import digest
from draftlink.protocol.frames import (
    Done,
    Draft,
    Finish,
    Frame,
    Hello,
    Progress,
    Propose,
    Resume,
    Resumed,
    Start,
    Switch,
    Switched,
    Tokens,
    Verdict,
    Welcome,
    Written,
)
from draftlink.protocol.frames import Replay as ReplayFrame
from draftlink.protocol.standing import Standing
from draftlink.schemes.base import MAX_DRAFT, MAX_IN_FLIGHT

MAX_EPOCH = 1 << 31

_Finder = Callable[[Standing, Any], str | None]


def find(session: Standing, frame: Frame) -> str | None:
    """The fault of a frame that a session is about to send or has received, or None."""
    finder = _FINDERS.get(type(frame))
    return None if finder is None else finder(session, frame)


def _in_order(session: Standing, frame: Draft | Verdict | Tokens) -> str | None:
    """The fault of a frame whose epoch or position is not the one that comes next."""
    progress = session.progress
    base = progress.expected if isinstance(frame, Draft) else progress.length
    if (frame.epoch, frame.base) != (progress.epoch, base):
        return (
            f"{type(frame).__name__} for epoch {frame.epoch}, position {frame.base}, where"
            f" epoch {progress.epoch}, position {base} is next"
        )
    return None


def _tokens(session: Standing, frame: Tokens) -> str | None:
    if not frame.ids or max(frame.ids) >= session.vocab_size:
        return "no tokens, or ids out of range"
    start = session.progress.start
    assert start is not None
    if len(frame.surprisals) != len(frame.ids) * start.streams_surprisals:
        return f"{len(frame.surprisals)} surprisals for {len(frame.ids)} tokens"
    return logprobs.fault(session, frame.logprobs, len(frame.ids)) or validate.limit(
        session.progress, len(frame.ids), frame.ended
    )


def _progress(session: Standing, frame: Progress) -> str | None:
    if frame.generation != session.generation:
        return f"progress of generation {frame.generation}, not of {session.generation}"
    if not 0 <= frame.fed <= frame.total or frame.ahead < 0:
        return f"{frame.fed} tokens fed of {frame.total}, {frame.ahead} rounds ahead"
    return None


def _start(session: Standing, frame: Start) -> str | None:
    if not 0 <= frame.base <= session.length:
        return f"base {frame.base}, where the slot has {session.length} tokens"
    assert session.welcome is not None
    # One that is longer than the context is refused for that: its ids need not be looked at.
    fits = frame.begins < session.welcome.context
    if not frame.ids or (fits and validate.numbers(frame.ids, session.vocab_size) is None):
        return "the prompt is empty or has ids out of range"
    if frame.generation <= session.generation or frame.max_tokens < 1:
        return "generation numbers rise, and max_tokens is at least 1"
    return validate.options(session.welcome, frame)


def _resume(session: Standing, frame: Resume) -> str | None:
    start = frame.start
    if session.role == "bs" and session.generation:
        return "a generation is resumed in a session that has had one"
    if session.role == "device" and not session.stopped:
        return "no generation is to be resumed"
    if start.ids or not 1 <= start.base <= frame.length or start.generation < 1:
        return "a resumed generation has a prompt, and brings no ids"
    if not frame.length - start.base < start.max_tokens:
        return f"{frame.length - start.base} tokens of at most {start.max_tokens} are written"
    if not 1 <= frame.epoch < MAX_EPOCH or frame.seen < 0 or len(frame.digest) != 16:
        return "an epoch, a count of frames or a digest that cannot be"
    return validate.options(session.welcome, start)


def _of_current(
    session: Standing, frame: Finish | Switch | Switched | Done | Resumed | ReplayFrame
) -> str | None:
    """The fault of a frame that is about another generation than the current one."""
    asked = session.resuming
    resuming = isinstance(frame, Resumed | ReplayFrame) and asked is not None
    current = asked.start.generation if resuming and asked else session.generation
    if frame.generation != current:
        return f"generation {frame.generation}, where {current} is current"
    return None


def _finish(session: Standing, frame: Finish) -> str | None:
    if not 0 <= frame.keep <= session.length:
        return f"{frame.keep} tokens to keep, of {session.length}"
    return None


def _done(session: Standing, frame: Done) -> str | None:
    if frame.length != session.kept:
        return f"{frame.length} tokens kept, where {session.kept} were to be"
    # Each frame that crossed Finish may have begun one, and a switch that crossed a verdict.
    if not session.epoch < frame.epoch <= session.epoch + session.late + 2:
        return f"epoch {frame.epoch}, where {session.epoch} was the last"
    return None


def _switched(session: Standing, frame: Switched) -> str | None:
    if (frame.epoch, frame.base) != (session.epoch + 1, session.length):
        return f"a switch to epoch {frame.epoch}, position {frame.base}"
    return None


def _resumed(session: Standing, frame: Resumed) -> str | None:
    sent = session.progress.frames.sent
    if session.role == "device" and not 0 <= frame.handled <= sent:
        return f"{frame.handled} frames were handled, of {sent}"
    if session.role == "bs" and frame.replay == session.stopped:
        return "a generation is replayed exactly if it is not known"
    return None


def _replay(session: Standing, frame: ReplayFrame) -> str | None:
    asked = session.resuming
    assert asked is not None
    fits = len(frame.ids) == asked.length
    numbers = validate.numbers(frame.ids, session.vocab_size) if fits else None
    if numbers is None:
        return f"{len(frame.ids)} tokens, where {asked.length} are needed, or ids out of range"
    if digest(numbers) != asked.digest:
        return "the history is not the one that was to be resumed"
    return None


def _switch(session: Standing, frame: Switch) -> str | None:
    progress = session.progress
    streams = session.state.name == "STREAMING"
    if streams == (frame.mode == "stream") or progress.switching:
        return f"a switch to {frame.mode}, which is so already"
    if progress.owed or (_device_corrects(session) and progress.drafts):
        return "the token after a rejection is, or may be, owed"
    return None


def _draft(session: Standing, frame: Draft) -> str | None:
    progress, welcome = session.progress, session.welcome
    start = progress.start
    assert start is not None and welcome is not None
    if frame.length > MAX_DRAFT:
        return f"{frame.length} drafted tokens, where {MAX_DRAFT} is the most"
    if not frame.length and (progress.drafts or not frame.waits):
        return "an empty draft that does not wait, or behind others"
    flight = sum(progress.drafts) + frame.positions
    if flight > MAX_IN_FLIGHT:
        return f"more than {MAX_IN_FLIGHT} drafted tokens without a verdict"
    # From the head alone: what the payload makes this end decode is bounded before it is looked at.
    assert progress.scheme is not None
    entries = progress.scheme.entries(welcome.vocab_size)
    if frame.length * entries > welcome.frame_entries:
        return (
            f"{frame.length} drafted tokens of up to {entries} entries each, where a draft may"
            f" carry {welcome.frame_entries} entries"
        )
    if flight * entries > welcome.flight_entries:
        return (
            f"{flight} drafted tokens of up to {entries} entries each without a verdict, where"
            f" {welcome.flight_entries} entries may be in flight"
        )
    if frame.had:
        return _asks(session, frame)
    if (frame.first is not None) != progress.owed:
        return "the token after a rejection is owed" if progress.owed else "no token is owed"
    if frame.first is not None:
        if frame.first >= session.vocab_size:
            return f"the first token {frame.first} is out of range"
        # One that ends the text comes with no draft behind it; the device finishes instead.
        if frame.first in start.eos_ids or start.max_tokens - progress.written < 2:
            return "the token that was owed ends the generation, and a draft follows it"
    return None


def _asks(session: Standing, frame: Draft) -> str | None:
    """The fault of a draft that asks for more pairs, or the row, to correct by."""
    progress = session.progress
    assert progress.scheme is not None
    if not progress.owed or progress.drafts:
        return "what a token is drawn by is asked for, and no token is owed"
    if frame.length or frame.payload or frame.first is not None or not frame.waits:
        return "a draft that asks for what a token is drawn by, and brings something"
    if frame.had > progress.scheme.recovers:
        return f"{frame.had} pairs of at most {progress.scheme.recovers} have been had"
    return None


def _verdict(session: Standing, frame: Verdict) -> str | None:
    progress = session.progress
    assert progress.start is not None
    drafted = sum(progress.drafts)  # positions
    if not progress.drafts:
        return "a verdict, and no draft waits for one"
    if progress.asks:
        bare = Verdict(
            frame.epoch, frame.base, 0, None, False, frame.queue_us, frame.verify_us, frame.row
        )
        return None if frame.row and frame == bare else "an answer that is not what was asked for"
    if frame.accepted > drafted:
        return f"{frame.accepted} accepted of {drafted} drafted"
    if frame.next is not None and frame.next >= session.vocab_size:
        return f"the next token {frame.next} is out of range"
    if (fault := _behind_accepted(session, frame, rejected=frame.accepted < drafted)) is not None:
        return fault
    emitted = frame.accepted + (frame.next is not None)
    if len(frame.surprisals) != emitted * progress.start.surprisals:
        return f"{len(frame.surprisals)} surprisals for {emitted} tokens"
    return logprobs.fault(session, frame.logprobs, emitted) or validate.limit(
        session.progress, emitted, frame.ended
    )


def _behind_accepted(session: Standing, frame: Verdict, *, rejected: bool) -> str | None:
    """The fault of what a verdict brings, or does not bring, behind the accepted tokens."""
    progress = session.progress
    if frame.row:
        if not _device_corrects(session) or not rejected:
            return "a target row that this scheme has no use for"
        if frame.next is not None or frame.ended:
            return "a target row, and a next token or an end beside it"
    elif frame.next is not None:
        if rejected and _device_corrects(session):
            return "a rejection without the target's row"
        if not rejected and not progress.waits:
            return "a token of the base station behind a draft that does not wait"
    elif not frame.accepted:
        return "a verdict without any token"
    elif not frame.ended:
        if not rejected and progress.waits:
            return "a verdict without the token that was waited for"
        if frame.accepted not in itertools.accumulate(progress.drafts):
            return "a verdict that ends within a draft, without a correction"
    return None


def _device_corrects(session: Standing) -> bool:
    start = session.progress.start
    assert start is not None
    return start.scheme.corrects == "device" and not start.sampling.greedy


def _both(first: _Finder, second: _Finder) -> _Finder:
    """The first fault of two finders."""

    def either(session: Standing, frame: Any) -> str | None:
        fault = first(session, frame)
        return second(session, frame) if fault is None else fault

    return either


_FINDERS: dict[type[Frame], _Finder] = {
    Hello: lambda session, frame: validate.hello(frame),
    Welcome: lambda session, frame: validate.welcome(session.hello, frame),
    Start: _start,
    Resume: _resume,
    Progress: _progress,
    Draft: _both(_in_order, _draft),
    Verdict: _both(_in_order, _verdict),
    Tokens: _both(_in_order, _tokens),
    Propose: both.propose,
    Written: both.written,
    Finish: _both(_of_current, _finish),
    Done: _both(_of_current, _done),
    Switch: _both(_of_current, _switch),
    Switched: _both(_of_current, _switched),
    Resumed: _both(_of_current, _resumed),
    ReplayFrame: _both(_of_current, _replay),
}
