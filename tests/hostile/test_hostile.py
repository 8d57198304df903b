"""Mutated frames against both ends: refused with a reason, or a conversation that goes on legally.

Nothing else may come out: no other exception, no token that could not have been drafted, no work
beyond what one frame may ask for, and no memory that grows.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import tracemalloc
import zlib
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import pytest
import torch

import bs_runtime.engine.step
from bs_runtime.operations.limits import Limits
from bs_runtime.verify import verify
from bs_runtime.verify.job import Outcome
from draftlink.protocol import faults, frames
from draftlink.schemes.base import MAX_DRAFT
from draftlink.schemes.topk import TopK
from tests.draftlink.test_frames import START
from tests.hostile.conversations import Recording, record
from tests.hostile.harness import (
    Raised,
    Report,
    against_device,
    against_station,
    run_device,
    run_station,
)
from tests.hostile.plans import PLANS, SIZE

FULL_PER_ROLE = 500_000


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

    def watched(rows: Sequence[torch.Tensor], jobs: Sequence[verify.Job]) -> list[Outcome]:
        for job in jobs:
            for drafted in job.drafted:
                _drawable(drafted, job.scheme.rule)
        outcomes = judge(rows, jobs)
        assert all(o.next is None or 0 <= o.next < SIZE for o in outcomes)
        return outcomes

    monkeypatch.setattr(bs_runtime.engine.step.verify, "judge", watched)
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
        assert (
            counts.min() >= 1
            and counts.sum() + drafted.row.rest == drafted.row.total == drafted.total
        )
        assert counts[ids == drafted.token] == [drafted.count]


def _holds(report: Report, count: int) -> None:
    print(report)
    assert sum(report.outcomes.values()) == count
    assert statistics.median(report.seconds) < 0.05
    assert report.growth < 16 << 20


@pytest.mark.parametrize("count", [5000, pytest.param(FULL_PER_ROLE, marks=pytest.mark.full)])
def test_base_station(recordings, raised, count):
    report = asyncio.run(run_station(recordings, count, 1, raised))
    _holds(report, count)
    # Most frames are refused; but where none were taken, the states behind would go untested.
    assert report.outcomes["refused"] > count / 2
    taken = ("Start", "Draft", "Propose", "Finish", "Switch", "Resume", "Replay")
    assert all(report.outcomes[kind] > count / 2000 for kind in taken)


@pytest.mark.parametrize("count", [5000, pytest.param(FULL_PER_ROLE, marks=pytest.mark.full)])
def test_device(recordings, count):
    report = asyncio.run(run_device(recordings, count, 1))
    _holds(report, count)
    assert report.outcomes["broke"] > count / 2
    assert report.outcomes["went on"] > count / 100


def test_a_start_over_the_limits_costs_nothing(recordings, raised):
    # Found at random: a worker that looked at the session's state before the limits had been
    # looked at wrote a token, of the generation before.
    above = int(Limits().max_tokens) + 1
    tried = 0
    for situation in (s for r in recordings for s in r.situations if s.kept.quiet):
        if isinstance(start := frames.decode(situation.next), frames.Start):
            start = msgspec.structs.replace(start, mode="stream", max_tokens=above)
            run = against_station(situation, frames.encode(start), 0, raised)
            assert asyncio.run(run) == "refused"
            tried += 1
    assert tried > 5


@pytest.mark.parametrize("broken", ["counts", "keep", "history"])
def test_a_missing_check_is_noticed(recordings, raised, monkeypatch, broken):
    """Negative controls: the same run, with one check of the base station taken out."""
    if broken == "counts":
        decoding = TopK.decoding

        def wrong(*args):
            drafted = yield from decoding(*args)
            return [msgspec.structs.replace(d, count=d.count - 1) for d in drafted]

        monkeypatch.setattr(TopK, "decoding", wrong)
    else:
        find, kind = faults.find, frames.Finish if broken == "keep" else frames.Replay
        monkeypatch.setattr(
            faults, "find", lambda s, f: None if isinstance(f, kind) else find(s, f)
        )
    with pytest.raises(AssertionError):
        asyncio.run(run_station(recordings, 2500, 1, raised))


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
        asyncio.run(against_station(situation, data, 0, raised))
        asyncio.run(against_device(recordings[4], 0, 1, data))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # A list entry of one byte takes 8, and a BitReader a byte for each bit; both with copies.
    assert peak < 40 * len(data) + (4 << 20)
