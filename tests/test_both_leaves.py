"""Candidates beside a path's tokens: whatever they are, the text is the base station's own."""

from __future__ import annotations

import dataclasses
from functools import lru_cache, partial

import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from bs_runtime.engine import late, lookup
from bs_runtime.model.commands import Keep
from device_runtime.device import Coupled, LinkError, Sampling
from device_runtime.drafting import leaves
from draftlink.link.shaping import LinkProfile, make_link
from tests.branching import Branching
from tests.bs_runtime.late import Shelf
from tests.fake_models import letters
from tests.fragile import outages
from tests.test_both import PEAKED, SIZE, STEP_S, TABLE, Case, cases, draft_of, noise_behind

PENALTIES = {"repetition_penalty": 1.3, "frequency_penalty": 0.4, "presence_penalty": 0.2}
CUT = {"top_k": 9, "top_p": 0.9, "min_p": 0.02, "temperature": 1.2}


def behind(table, seen):
    return table[seen[-1]] + noise_behind(bytes(seen))


def write(case: Case, mode: str = "both", shaped: bool = False):
    """The generation, ended, and the target that wrote it."""

    async def main():
        profile = LinkProfile(1e7, 1e7, case.rtt_s, jitter_s=case.jitter_s)
        table = PEAKED if case.peaked else TABLE
        target = Branching(table, partial(behind, table))
        world = World(
            draft_of(case.kind, case.seed, table), target, letters(SIZE), 2048, case.draft_s,
            STEP_S, look_up=case.look_up,
        )  # fmt: skip
        sampling = Sampling(0.0) if case.greedy else Sampling(1.0)
        if shaped:
            sampling = Sampling(**PENALTIES, **(CUT if not case.greedy else {"temperature": 0.0}))
        async with world.device(make_link(profile, seed=case.seed)) as device:
            outages(world, device, case.cuts)
            generation = device.generate(
                [1, 2, 3], max_tokens=case.tokens, scheme=Coupled(), sampling=sampling,
                seed=case.seed, mode=mode, eos_ids=case.eos_ids,
            )  # fmt: skip
            async for _ in generation:
                if len(generation.tokens) == case.stop:
                    generation.cancel()
            cached = device.model.cache
            assert cached == device.history[: len(cached)]
            if case.stop is None or not case.cuts:  # else it may not have heard of the end
                slot = target.slots[-1]
                slot.carry_out()
                assert slot.held[: slot.length] == device.history[: slot.length]
            return generation, target

    return run(main())


@lru_cache(maxsize=1000)
def streamed(
    seed: int, greedy: bool, stop: int | None, eos_ids: tuple[int, ...], peaked: bool, shaped: bool
):
    """The text that the base station writes alone, and why it ended."""
    case = Case(seed, greedy=greedy, stop=stop, eos_ids=eos_ids, peaked=peaked)
    found, _ = write(case, "stream", shaped)
    return found.tokens, found.result.stop_reason


def check(each: list[Case], shaped: bool) -> tuple[int, int]:
    """Every text is the stream's; tokens that leaves saved, and rows that they took."""
    won = branched = 0
    follow = late.Late.follow

    def counted(self, job, outcome):
        nonlocal won
        found = follow(self, job, outcome)
        won += found is not None
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(late.Late, "follow", counted)
        for case in each:
            found, target = write(case, shaped=shaped)
            wanted = streamed(case.seed, case.greedy, case.stop, case.eos_ids, case.peaked, shaped)
            assert (found.tokens, found.result.stop_reason) == wanted, case
            branched += target.branched
    return won, branched


@pytest.fixture(params=[1, 3])
def most(request, monkeypatch):
    """All candidates that there are, so many beside each token."""
    monkeypatch.setattr(leaves, "MOST", request.param)
    monkeypatch.setattr(leaves, "LEAST", 0.0)
    return request.param


@pytest.mark.parametrize("shaped", [False, True], ids=["", "shaped"])
@pytest.mark.parametrize("count", [8, pytest.param(400, marks=pytest.mark.full)], ids=["", "full"])
def test_the_text_is_the_streams(most, count, shaped):
    """Right, wrong, random and adversarial drafts, over links with jitter and cuts."""
    check(cases(count), shaped)
    won, branched = check(near(max(3, count // 8)), shaped)
    assert won > 5 and branched > 25


@pytest.mark.parametrize("count", [8, pytest.param(400, marks=pytest.mark.full)], ids=["", "full"])
def test_the_text_is_the_streams_with_look_up_too(most, count, monkeypatch):
    """What the base station finds itself stands behind the device's tokens, and beside no leaf."""
    found = 0
    proposed = lookup.LookUp.proposed

    def counted(self, history, held=(), alpha=1.0):
        nonlocal found
        ids = proposed(self, history, held, alpha)
        found += len(ids)
        return ids

    monkeypatch.setattr(lookup.LookUp, "proposed", counted)
    each = [*cases(count), *near(max(3, count // 8))]
    won, branched = check(
        [dataclasses.replace(case, look_up=True, peaked=True) for case in each], shaped=False
    )
    assert found > count and won and branched > count


def near(count: int) -> list[Case]:
    """Where proposals come in time."""
    return [Case(seed, rtt_s=0.0005, draft_s=0.001, greedy=seed % 2 == 0) for seed in range(count)]


def test_candidates_come_only_where_both_ends_know_them(most, monkeypatch):
    monkeypatch.setattr(Branching, "branches", False)
    assert check(near(3), shaped=False) == (0, 0)


def by_depth(self, job, outcome):
    """Noise of the place in the block, not in the text."""
    found = FOLLOW(self, job, outcome)
    return found and dataclasses.replace(found, history=found.history[: len(job.drafted) + 1])


def by_row(self, job, outcome):
    """Noise of the row: leaves stand behind the chain."""
    found = FOLLOW(self, job, outcome)
    return found and dataclasses.replace(found, history=[*job.history, 0, *found.history[-2:]])


def others_penalties(self, job, outcome):
    """Penalties of the refuted token, not of the leaf in its place."""
    found = FOLLOW(self, job, outcome)
    if found is None:
        return None
    refuted = job.drafted[outcome.accepted].token
    return dataclasses.replace(found, history=[*found.history[:-1], refuted])


def stays(self, path):
    """The keys and values of the refuted token stay where they are."""
    KEEP(self, path)
    self._commands = [one for one in self._commands if not isinstance(one, Keep)]


FOLLOW, KEEP = late.Late.follow, Shelf.keep
BROKEN = [
    (late.Late, "follow", by_depth, False),
    (late.Late, "follow", by_row, False),
    (late.Late, "follow", others_penalties, True),
    (Shelf, "keep", stays, False),
]


@pytest.mark.parametrize(
    ("where", "name", "how", "shaped"), BROKEN, ids=lambda x: getattr(x, "__name__", "")
)
def test_where_a_rule_is_broken_the_text_is_another(most, monkeypatch, where, name, how, shaped):
    """The controls of those above."""
    monkeypatch.setattr(where, name, how)
    with pytest.raises((AssertionError, LinkError)):
        check(near(8), shaped)
