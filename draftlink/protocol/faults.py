"""What is wrong with a frame's numbers, where the transition table allows its kind."""

from __future__ import annotations

from draftlink.protocol import validate
from draftlink.protocol.control import digest
from draftlink.protocol.frames import (
    Done,
    Draft,
    Finish,
    Frame,
    Hello,
    Progress,
    Resume,
    Resumed,
    Start,
    Switch,
    Switched,
    Tokens,
    Verdict,
    Welcome,
)
from draftlink.protocol.frames import Replay as ReplayFrame
from draftlink.protocol.standing import Standing
from draftlink.schemes.base import MAX_DRAFT, MAX_IN_FLIGHT

MAX_EPOCH = 1 << 31


def find(session: Standing, frame: Frame) -> str | None:
    """The fault of a frame that a session is about to send or has received, or None."""
    if isinstance(frame, Hello):
        return validate.hello(frame)
    if isinstance(frame, Welcome):
        return validate.welcome(session.hello, frame)
    if isinstance(frame, Start):
        return _start(session, frame)
    if isinstance(frame, Resume):
        return _resume(session, frame)
    if isinstance(frame, Progress):
        return _progress(session, frame)
    if isinstance(frame, Finish | Switch | Switched | Done | Resumed | ReplayFrame):
        return _control(session, frame)
    if isinstance(frame, Draft | Verdict | Tokens):
        progress = session.progress
        base = progress.expected if isinstance(frame, Draft) else progress.length
        if (frame.epoch, frame.base) != (progress.epoch, base):
            return (
                f"{type(frame).__name__} for epoch {frame.epoch}, position {frame.base}, where"
                f" epoch {progress.epoch}, position {base} is next"
            )
        if isinstance(frame, Draft):
            return _draft(session, frame)
        if isinstance(frame, Verdict):
            return _verdict(session, frame)
        if not frame.ids or max(frame.ids) >= session.vocab_size:
            return "no tokens, or ids out of range"
        return _limit(session, len(frame.ids), frame.ended)
    return None


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
    return validate.ends(session.welcome, frame)


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
    return validate.ends(session.welcome, start)


def _control(
    session: Standing, frame: Finish | Switch | Switched | Done | Resumed | ReplayFrame
) -> str | None:
    progress, asked = session.progress, session.resuming
    resuming = isinstance(frame, Resumed | ReplayFrame) and asked is not None
    current = asked.start.generation if resuming and asked else progress.generation
    if frame.generation != current:
        return f"generation {frame.generation}, where {current} is current"
    if isinstance(frame, Finish) and not 0 <= frame.keep <= progress.length:
        return f"{frame.keep} tokens to keep, of {progress.length}"
    if isinstance(frame, Done):
        if frame.length != session.kept:
            return f"{frame.length} tokens kept, where {session.kept} were to be"
        # Each frame that crossed Finish may have begun one, and a switch that crossed a verdict.
        if not progress.epoch < frame.epoch <= progress.epoch + session.late + 2:
            return f"epoch {frame.epoch}, where {progress.epoch} was the last"
    if isinstance(frame, Switched) and (frame.epoch, frame.base) != (
        progress.epoch + 1,
        progress.length,
    ):
        return f"a switch to epoch {frame.epoch}, position {frame.base}"
    if isinstance(frame, Switch):
        return _switch(session, frame)
    if isinstance(frame, Resumed):
        if session.role == "device" and not 0 <= frame.handled <= progress.frames.sent:
            return f"{frame.handled} frames were handled, of {progress.frames.sent}"
        if session.role == "bs" and frame.replay == session.stopped:
            return "a generation is replayed exactly if it is not known"
    if isinstance(frame, ReplayFrame):
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
    flight = sum(progress.drafts) + frame.length
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
    if (frame.first is not None) != progress.owed:
        return "the token after a rejection is owed" if progress.owed else "no token is owed"
    if frame.first is not None:
        if frame.first >= session.vocab_size:
            return f"the first token {frame.first} is out of range"
        # One that ends the text comes with no draft behind it; the device finishes instead.
        if frame.first in start.eos_ids or start.max_tokens - progress.written < 2:
            return "the token that was owed ends the generation, and a draft follows it"
    return None


def _verdict(session: Standing, frame: Verdict) -> str | None:
    progress = session.progress
    assert progress.start is not None
    drafted = sum(progress.drafts)
    if not progress.drafts:
        return "a verdict, and no draft waits for one"
    if frame.accepted > drafted:
        return f"{frame.accepted} accepted of {drafted} drafted"
    if frame.next is not None and frame.next >= session.vocab_size:
        return f"the next token {frame.next} is out of range"
    rejected = frame.accepted < drafted
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
        ends = [sum(progress.drafts[: i + 1]) for i in range(len(progress.drafts))]
        if frame.accepted not in ends:
            return "a verdict that ends within a draft, without a correction"
    emitted = frame.accepted + (frame.next is not None)
    if len(frame.surprisals) != emitted * progress.start.surprisals:
        return f"{len(frame.surprisals)} surprisals for {emitted} tokens"
    return _limit(session, emitted, frame.ended)


def _device_corrects(session: Standing) -> bool:
    start = session.progress.start
    assert start is not None
    return start.scheme.corrects == "device" and not start.sampling.greedy


def _limit(session: Standing, count: int, ended: bool) -> str | None:
    progress = session.progress
    assert progress.start is not None
    left = progress.start.max_tokens - progress.written
    if count > left or (count == left and not ended):
        return f"{count} more tokens, where {left} are left"
    return None
