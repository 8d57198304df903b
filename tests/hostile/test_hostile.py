"""Mutated frames against both ends: refused with a reason, or a conversation that goes on legally.

Nothing else may come out: no other exception, no token that could not have been drafted, no work
beyond what one frame may ask for, and no memory that grows.
"""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import logging
import random
import resource
import statistics
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
import torch

import bs_runtime.generation
from bs_runtime import verify
from device_runtime.device import LinkError
from draftlink import frames
from draftlink.schemes.topk import TopK
from draftlink.session import MAX_DRAFT, RemoteProtocolError, Session
from tests.draftlink.test_frames import START
from tests.hostile.conversations import (
    CONTEXT,
    PLANS,
    SIZE,
    Recording,
    Script,
    Situation,
    converse,
    record,
)
from tests.hostile.mutations import Mutator

FULL_PER_ROLE = 500_000


class Raised(logging.Handler):
    """Keeps the last exception that the base station logged instead of showing to its peer."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last: BaseException | None = None

    def emit(self, entry: logging.LogRecord) -> None:
        self.last = entry.exc_info[1] if entry.exc_info else None


@pytest.fixture(scope="module")
def recordings() -> list[Recording]:
    return asyncio.run(_record_all())


async def _record_all() -> list[Recording]:
    return [await record(plan) for plan in PLANS]


@pytest.fixture
def raised(monkeypatch) -> Iterator[Raised]:
    """The base station's log, unheard; and every row that is judged is looked at."""
    log, handler = logging.getLogger("draftlink.bs"), Raised()
    level = log.level
    log.setLevel(logging.ERROR)
    log.addHandler(handler)
    judge = verify.judge

    def watched(logits: torch.Tensor, jobs: Sequence[verify.Job]) -> list[verify.Outcome]:
        for job in jobs:
            for drafted in job.drafted:
                _drawable(drafted, job.scheme.rule)
        outcomes = judge(logits, jobs)
        assert all(o.following is None or 0 <= o.following < SIZE for o in outcomes)
        return outcomes

    monkeypatch.setattr(bs_runtime.generation.verify, "judge", watched)
    yield handler
    log.removeHandler(handler)
    log.setLevel(level)


def _drawable(drafted, rule: str) -> None:
    """A token could have been drawn from the row that it says it was drawn from."""
    assert 0 <= drafted.token < SIZE
    if rule == "sample":
        assert 1 <= drafted.count <= drafted.total
    if drafted.row is not None:
        ids, counts = drafted.row.ids, drafted.row.counts
        assert (np.diff(ids) > 0).all() and ids[0] >= 0 and ids[-1] < SIZE
        assert counts.min() >= 1 and counts.sum() == drafted.row.total == drafted.total
        assert counts[ids == drafted.token] == [drafted.count]


@dataclass
class Report:
    """What came of the frames, and what they cost."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    _resident: list[int] = field(default_factory=list)

    def add(self, outcome: str, begun: float) -> None:
        self.outcomes[outcome] += 1
        if len(self.seconds) < 100_000:
            self.seconds.append(time.perf_counter() - begun)

    def watch_memory(self) -> None:
        self._resident.append(_resident_bytes())

    @property
    def growth(self) -> int:
        """Bytes that the second half of the run added to what was resident."""
        half = len(self._resident) // 2
        return max(self._resident[half:]) - max(self._resident[:half])

    def __str__(self) -> str:
        return (
            f"{dict(self.outcomes)}, median {statistics.median(self.seconds) * 1e6:.0f} µs,"
            f" grew {self.growth / 1e6:.1f} MB"
        )


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _corpus(recordings: list[Recording]) -> list[bytes]:
    return [data for recording in recordings for data in (*recording.up, *recording.down)]


async def _against_station(situation: Situation, data: bytes, pauses: int, log: Raised) -> str:
    """Feed one frame to the base station; what became of it."""
    station = situation.station.fork()
    slot = station.slot
    cached, forwards = list(slot.cache), slot.forwards
    log.last = None
    await station.feed([*situation.before, data], pauses)
    answers = [frames.decode(sent) for sent in station.sent]
    if answers and isinstance(answers[-1], frames.Refused):
        refused = answers.pop()
        assert refused.code != "internal", data.hex()[:2000]
        if not situation.before:
            assert not answers and slot.cache == cached and slot.forwards == forwards
        outcome = "refused"
    else:
        outcome = type(frames.decode(data)).__name__
    assert log.last is None
    # One frame makes the base station feed a draft, or a prompt, or stream to its context's end.
    streamed = sum(isinstance(a, frames.Tokens) for a in answers)
    assert slot.forwards - forwards <= 2 + len(situation.before) + streamed
    assert len(slot.cache) <= CONTEXT and len(answers) <= CONTEXT
    return outcome


async def _run_station(recordings: list[Recording], count: int, seed: int, log: Raised) -> Report:
    report, chance = Report(), random.Random(seed)
    mutator = Mutator(seed, _corpus(recordings), SIZE)
    situations = [s for r in recordings for s in r.situations]
    for i in range(count):
        situation = chance.choice(situations)
        data = mutator.mutate(situation.next)
        begun = time.perf_counter()
        try:
            outcome = await _against_station(situation, data, chance.choice((0, 1, 9)), log)
        except BaseException as error:
            error.add_note(f"mutation {i} of seed {seed}: {data.hex()[:2000]}")
            if log.last is not None:
                raise error from log.last
            raise
        report.add(outcome, begun)
        if i % max(1, count // 100) == 0:
            report.watch_memory()
    return report


def _screened(session: Session, data: bytes) -> bool:
    """Whether the device's session takes the frame; where it does not, it stays as it was."""
    tried = copy.copy(session)
    try:
        tried.receive(data)
    except RemoteProtocolError:
        assert vars(tried) == vars(session)
        return False
    return True


async def _against_device(recording: Recording, at: int, message: bytes | str) -> str:
    """The device's whole run, with one message in the place of the base station's ``at``-th."""
    script = [*recording.down[:at], message, *recording.down[at + 1 :]]
    try:
        await converse(recording.plan, Script(script))
    except LinkError as error:
        return "broke" if "broke the protocol" in str(error) else "gone"
    return "went on"


async def _run_device(recordings: list[Recording], count: int, seed: int) -> Report:
    """Frames that the session refuses need no device behind it; some of them get one all the same.

    What the device may show for it is a LinkError: anything else ends the test.
    """
    report, chance = Report(), random.Random(seed)
    mutator = Mutator(seed, _corpus(recordings), SIZE)
    for i in range(count):
        recording = chance.choice(recordings)
        at = chance.randrange(len(recording.down))
        data = mutator.mutate(recording.down[at])
        begun = time.perf_counter()
        try:
            if _screened(recording.sessions[at], data) or chance.random() < 0.02:
                outcome = await _against_device(recording, at, data)
            else:
                outcome = "broke"
        except BaseException as error:
            error.add_note(
                f"mutation {i} of seed {seed}, {recording.plan.name}: {data.hex()[:2000]}"
            )
            raise
        report.add(outcome, begun)
        if i % max(1, count // 100) == 0:
            report.watch_memory()
    return report


def _holds(report: Report, count: int) -> None:
    print(report)
    assert sum(report.outcomes.values()) == count
    assert statistics.median(report.seconds) < 0.05
    assert report.growth < 16 << 20


@pytest.mark.parametrize("count", [5000, pytest.param(FULL_PER_ROLE, marks=pytest.mark.full)])
def test_base_station(recordings, raised, count):
    report = asyncio.run(_run_station(recordings, count, 1, raised))
    _holds(report, count)
    # Most frames are refused; but where none were taken, the states behind would go untested.
    assert report.outcomes["refused"] > count / 2
    assert all(report.outcomes[kind] > count / 2000 for kind in ("Start", "Draft", "Finish"))


@pytest.mark.parametrize("count", [5000, pytest.param(FULL_PER_ROLE, marks=pytest.mark.full)])
def test_device(recordings, count):
    report = asyncio.run(_run_device(recordings, count, 1))
    _holds(report, count)
    assert report.outcomes["broke"] > count / 2
    assert report.outcomes["went on"] > count / 100


@pytest.mark.parametrize("broken", ["counts", "keep"])
def test_a_missing_check_is_noticed(recordings, raised, monkeypatch, broken):
    """Negative controls: the same run, with one check of the base station taken out."""
    if broken == "counts":
        decode = TopK.decode
        monkeypatch.setattr(
            TopK,
            "decode",
            lambda *args: [dataclasses.replace(d, count=d.count - 1) for d in decode(*args)],
        )
    else:
        fault = Session._fault
        monkeypatch.setattr(
            Session, "_fault", lambda s, f: None if isinstance(f, frames.Finish) else fault(s, f)
        )
    with pytest.raises(AssertionError):
        asyncio.run(_run_station(recordings, 2500, 1, raised))


def _large() -> Iterator[tuple[str, bytes]]:
    """The largest frames that the link lets through, and ones that declare more than they hold."""
    start = msgspec.msgpack.decode(frames.encode(START)[1:])
    many = [1] * (frames.MAX_MESSAGE_BYTES - 300)
    for name, changes in {
        "eos": {"eos_ids": many},
        "prompt": {"ids": many},
        "unknown": {"unknown": many},
        "name": {"type": "x" * len(many)},
        "deep": {"unknown": msgspec.Raw(b"\x91" * len(many))},
        "declared": {"ids": msgspec.Raw(b"\xdd\x7f\xff\xff\xff" + bytes(1000))},
    }.items():
        yield name, bytes((1,)) + msgspec.msgpack.encode({**start, **changes})
    yield "tokens", b"\x04\x00\x00\x00\xff\xff\xff\xff\x0f" + bytes(1000)
    yield "draft", frames.encode(frames.Draft(1, 2, MAX_DRAFT, bytes(1 << 20)))
    bomb = b"\x04" + zlib.compress(bytes(1 << 30), 9)[: 1 << 20]
    yield "row", frames.encode(frames.Verdict(1, 2, 0, None, False, 0, 0, bomb))


@pytest.mark.parametrize(("name", "data"), list(_large()), ids=lambda x: x if len(x) < 9 else "")
def test_a_frame_costs_no_more_memory_than_a_multiple_of_its_size(name, data, recordings, raised):
    situation = recordings[0].situations[1]  # greeted
    tracemalloc.start()
    try:
        asyncio.run(_against_station(situation, data, 0, raised))
        asyncio.run(_against_device(recordings[4], 1, data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A list entry of one byte takes 8, and a BitReader a byte for each bit; both with copies.
    assert peak < 40 * len(data) + (4 << 20)
