"""Mutated frames against both ends: refused with a reason, or a conversation that goes on legally.

Nothing else may come out: no other exception, no token that could not have been drafted, no work
beyond what one frame may ask for, and no memory that grows.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import random
import resource
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

import bs_runtime.generation
from bs_runtime import verify
from device_runtime.device import LinkError
from draftlink import frames
from draftlink.session import RemoteProtocolError, Session
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


def test_base_station(recordings, raised):
    report = asyncio.run(_run_station(recordings, 3000, 1, raised))
    print(report)


def test_device(recordings):
    report = asyncio.run(_run_device(recordings, 3000, 1))
    print(report)
