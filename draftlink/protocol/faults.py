"""What is wrong with a frame's numbers, where the transition table allows its kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from draftlink.protocol.control import digest, packed
from draftlink.protocol.frames import (
    SUPPRESSED,
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
from draftlink.schemes.base import MAX_DRAFT, MAX_IN_FLIGHT

if TYPE_CHECKING:
    from draftlink.protocol.session import Session

MAX_FEATURES = 64  # that are told, and schemes
MAX_NAME = 256  # characters; a session keeps its Hello
MAX_TICKET = 4096  # bytes; it comes back with every Hello
MAX_BOS, MAX_SUPPRESSED = 16, 1 << 16  # ids that the target's own files name
MAX_UNAPPLIED = 64  # settings that are named, each with up to MAX_NAME characters
MAX_EOS = 256  # EOS ids of a generation: each token is looked up among them
MAX_CONTEXT = 1 << 31  # of a target; positions are 32-bit numbers
MAX_VOCAB = 1 << 20  # of a target: rows of this size are made, whatever a frame's own size
MAX_EPOCH = 1 << 31


def find(session: Session, frame: Frame) -> str | None:
    """The fault of a frame that a session is about to send or has received, or None."""
    if isinstance(frame, Hello):
        return _hello(frame)
    if isinstance(frame, Welcome):
        return _welcome(session, frame)
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


def _hello(frame: Hello) -> str | None:
    if len(frame.schemes) > MAX_FEATURES or len(frame.features) > MAX_FEATURES:
        return f"more than {MAX_FEATURES} schemes or features"
    if max(len(frame.agent), len(frame.tokenizer_hash)) > MAX_NAME:
        return f"an agent or a tokenizer's hash of more than {MAX_NAME} characters"
    return None


def _welcome(session: Session, frame: Welcome) -> str | None:
    hello = session.hello
    assert hello is not None
    lowest = hello.lowest or hello.version
    if not lowest <= frame.version <= hello.version:
        return f"version {frame.version}, where {lowest} to {hello.version} were offered"
    if frame.tokenizer_hash != hello.tokenizer_hash:
        return "a welcome to a tokenizer that is not this one"
    if len(frame.features) > MAX_FEATURES or not set(frame.features) <= set(hello.features):
        return "features that were not offered"
    size = frame.vocab_size
    if not 1 <= size <= MAX_VOCAB or not 1 <= frame.context < MAX_CONTEXT:
        return f"a target of {size} logits and a context of {frame.context}"
    if not set(frame.schemes) <= set(hello.schemes) or len(frame.schemes) > len(hello.schemes):
        return "schemes that were not offered"
    if len(frame.ticket) > MAX_TICKET:
        return f"a ticket of {len(frame.ticket)} bytes, where {MAX_TICKET} are the most"
    if not 1 <= frame.frame_entries <= frame.flight_entries:
        return f"at most {frame.frame_entries} entries a draft, {frame.flight_entries} in flight"
    return _facts(frame)


def _facts(frame: Welcome) -> str | None:
    """What is wrong with what a target's own files say."""
    lists = (
        ("EOS", frame.eos_ids, MAX_EOS),
        ("BOS", frame.bos_ids, MAX_BOS),
        ("suppressed", frame.suppressed_ids, MAX_SUPPRESSED),
    )
    for name, ids, most in lists:
        if len(ids) > most or not all(0 <= i < frame.vocab_size for i in ids):
            return f"{len(ids)} {name} ids, where {most} are the most, or ids out of range"
    if len(frame.unapplied) > MAX_UNAPPLIED or any(len(s) > MAX_NAME for s in frame.unapplied):
        return f"more than {MAX_UNAPPLIED} settings, or {MAX_NAME} characters of one"
    try:
        if frame.sampling is not None:
            frame.sampling.check()
    except ValueError as error:
        return f"a suggested sampling that cannot be ({error})"
    return None


def _progress(session: Session, frame: Progress) -> str | None:
    if frame.generation != session.generation:
        return f"progress of generation {frame.generation}, not of {session.generation}"
    if not 0 <= frame.fed <= frame.total or frame.ahead < 0:
        return f"{frame.fed} tokens fed of {frame.total}, {frame.ahead} rounds ahead"
    return None


def _start(session: Session, frame: Start) -> str | None:
    if not 0 <= frame.base <= session.length:
        return f"base {frame.base}, where the slot has {session.length} tokens"
    assert session.welcome is not None
    # One that is longer than the context is refused for that: its ids need not be looked at.
    fits = frame.begins < session.welcome.context
    if not frame.ids or (fits and _numbers(frame.ids, session.vocab_size) is None):
        return "the prompt is empty or has ids out of range"
    if frame.generation <= session.generation or frame.max_tokens < 1:
        return "generation numbers rise, and max_tokens is at least 1"
    return _ends(session, frame)


def _numbers(ids: Sequence[int], vocab_size: int) -> NDArray[np.uint32] | None:
    """Ids of a whole history, or None if there are others among them."""
    try:
        numbers = packed(ids)
    except OverflowError:
        return None
    return numbers if int(numbers.max(initial=0)) < vocab_size else None


def _ends(session: Session, start: Start) -> str | None:
    """What is wrong with the ids that end a text, or that are never in it."""
    if len(start.eos_ids) > MAX_EOS:
        return f"{len(start.eos_ids)} EOS ids, where {MAX_EOS} is the most"
    ids, welcome = start.suppressed_ids, session.welcome
    assert welcome is not None
    if ids is msgspec.UNSET:
        return None
    if SUPPRESSED not in welcome.features:
        return f"suppressed ids, and the feature {SUPPRESSED} was not agreed on"
    if len(ids) > MAX_SUPPRESSED:
        return f"{len(ids)} suppressed ids, where {MAX_SUPPRESSED} are the most"
    # Of the target's logits: a draft may have fewer.
    numbers = _numbers(ids, welcome.vocab_size)
    if numbers is None or (numbers[1:] <= numbers[:-1]).any():
        return "suppressed ids that do not ascend, or are out of range"
    if len(ids) == welcome.vocab_size:
        return "all ids are suppressed, and none is left to be written"
    return None


def _resume(session: Session, frame: Resume) -> str | None:
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
    return _ends(session, start)


def _control(
    session: Session, frame: Finish | Switch | Switched | Done | Resumed | ReplayFrame
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
        numbers = _numbers(frame.ids, session.vocab_size) if fits else None
        if numbers is None:
            return f"{len(frame.ids)} tokens, where {asked.length} are needed, or ids out of range"
        if digest(numbers) != asked.digest:
            return "the history is not the one that was to be resumed"
    return None


def _switch(session: Session, frame: Switch) -> str | None:
    progress = session.progress
    streams = session.state.name == "STREAMING"
    if streams == (frame.mode == "stream") or progress.switching:
        return f"a switch to {frame.mode}, which is so already"
    if progress.owed or (_device_corrects(session) and progress.drafts):
        return "the token after a rejection is, or may be, owed"
    return None


def _draft(session: Session, frame: Draft) -> str | None:
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


def _verdict(session: Session, frame: Verdict) -> str | None:
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


def _device_corrects(session: Session) -> bool:
    start = session.progress.start
    assert start is not None
    return start.scheme.corrects == "device" and not start.sampling.greedy


def _limit(session: Session, count: int, ended: bool) -> str | None:
    progress = session.progress
    assert progress.start is not None
    left = progress.start.max_tokens - progress.written
    if count > left or (count == left and not ended):
        return f"{count} more tokens, where {left} are left"
    return None
