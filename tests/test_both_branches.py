"""A device that drafts on several paths at once: whatever it drafts, the text is the stream's."""

from __future__ import annotations

from functools import lru_cache, partial

import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from device_runtime.device import Coupled, Sampling
from device_runtime.drafting import leaves
from device_runtime.drafting.drafter import Drafter
from device_runtime.drafting.tree import Tree
from device_runtime.model.block import Block
from draftlink.distribution.sparse import Drafted
from draftlink.link.shaping import LinkProfile, make_link
from draftlink.protocol import frames
from tests.branching import Branching
from tests.fake_models import letters
from tests.fragile import outages
from tests.test_both import SIZE, STEP_S, TABLE, Case, Deep, cases, draft_of, noise_behind
from tests.test_both_leaves import CUT, PENALTIES, behind


class Forked(Deep):
    """Its rows depend on all that their token sees, by what lies in the cache."""

    branches = True

    def __init__(self, *args, **options) -> None:
        super().__init__(*args, **options)
        self.block, self.held = Block(), list[int]()
        self.widest = 0

    def forward(self, ids, *, last=False):
        assert not self.held
        return super().forward(ids, last=last)

    def branch(self, ids, parents):
        sights = self.block.extend(parents)
        self.held += ids
        self.widest = max(self.widest, len(ids))
        assert len(self.cache) + len(self.held) <= self.context
        rows = []
        for sight in sights:
            seen = [*self.cache, *(x for at, x in enumerate(self.held) if sight >> at & 1)]
            rows.append(self.table[seen[-1]] + noise_behind(bytes(seen)))
        return rows

    def keep(self, chain, rest) -> None:
        moved = [self.held[at] for at in self.block.keep(chain, rest)]
        self.cache += moved[: len(chain)]
        self.held = moved[len(chain) :]

    def rollback(self, length: int) -> None:
        super().rollback(length)
        self.block.clear()
        self.held.clear()


def write(case: Case, branches: int | None, mode: str = "both", shaped: bool = False, context=2048):
    """The generation, ended, and the draft that was used."""

    async def main():
        profile = LinkProfile(1e7, 1e7, case.rtt_s, jitter_s=case.jitter_s)
        draft = Forked(draft_of(case.kind, case.seed).table, rows=False, context=context)
        target = Branching(TABLE, partial(behind, TABLE))
        world = World(draft, target, letters(SIZE), context, case.draft_s, STEP_S, draft_row=0.15)
        sampling = Sampling(0.0) if case.greedy else Sampling(1.0)
        if shaped:
            sampling = Sampling(**PENALTIES, **(CUT if not case.greedy else {"temperature": 0.0}))
        async with world.device(make_link(profile, seed=case.seed)) as device:
            outages(world, device, case.cuts)
            generation = device.generate(
                [1, 2, 3], max_tokens=case.tokens, scheme=Coupled(), sampling=sampling,
                seed=case.seed, mode=mode, eos_ids=case.eos_ids, branches=branches,
            )  # fmt: skip
            async for _ in generation:
                if len(generation.tokens) == case.stop:
                    generation.cancel()
            cached = device.model.cache
            assert cached == device.history[: len(cached)] and not draft.held
            return generation, draft

    return run(main())


@lru_cache(maxsize=1000)
def streamed(seed: int, greedy: bool, stop: int | None, eos_ids: tuple[int, ...], shaped: bool):
    """The text that the base station writes alone, and why it ended."""
    case = Case(seed, greedy=greedy, stop=stop, eos_ids=eos_ids)
    found, _ = write(case, 1, "stream", shaped)
    return found.tokens, found.result.stop_reason


def check(each: list[Case], branches: int, shaped: bool = False) -> int:
    """Every text is the stream's; the most rows of a draft forward."""
    widest = 0
    for case in each:
        found, draft = write(case, branches, shaped=shaped)
        wanted = streamed(case.seed, case.greedy, case.stop, case.eos_ids, shaped)
        assert (found.tokens, found.result.stop_reason) == wanted, case
        widest = max(widest, draft.widest)
    return widest


@pytest.mark.parametrize("shaped", [False, True], ids=["", "shaped"])
@pytest.mark.parametrize("leaf", [0, 1], ids=["", "leaves"])
@pytest.mark.parametrize("branches", [2, 4])
@pytest.mark.parametrize("count", [8, pytest.param(300, marks=pytest.mark.full)], ids=["", "full"])
def test_the_text_is_the_streams(monkeypatch, branches, leaf, shaped, count):
    """Right, wrong, random and adversarial drafts, over links with jitter and cuts."""
    monkeypatch.setattr(leaves, "MOST", leaf)
    assert check(cases(count), branches, shaped) == branches


def test_near_the_end_of_a_context_it_drafts_on_its_trunk_alone():
    case = Case(3, tokens=40)
    wanted = streamed(3, False, None, (), False)[0][:40]
    for context in (14, 20, 30):
        found, _ = write(case, 4, context=context)
        assert found.tokens == wanted


@pytest.fixture
def swapped(monkeypatch):
    swap(monkeypatch)


def swap(monkeypatch) -> None:
    """A draft whose second is drafted first at every third position."""
    ranked = Drafter._ranked

    def swaps(self, q, key, positions):
        found = []
        for position, (drafted, later) in zip(
            positions, ranked(self, q, key, positions), strict=True
        ):
            if position % 3 == 0 and drafted.beside:
                second, *others = drafted.beside
                drafted = Drafted(second, beside=(drafted.token, *others))
            found.append((drafted, later))
        return found

    monkeypatch.setattr(Drafter, "_ranked", swaps)


def counting(monkeypatch) -> list[int]:
    """Tokens of texts that a draft had drafted or had beside them, and those that it had not."""
    counts = [0, 0]
    written = Tree.written

    def counted(self, ids):
        for token in ids:
            if self._root.children:
                counts[token not in [child.token for child in self._root.children]] += 1
            written(self, [token])
        return True

    monkeypatch.setattr(Tree, "written", counted)
    return counts


def met(monkeypatch, shaped: bool, seeds: int = 4) -> list[int]:
    """``counting``, of a right draft: where one of the two comes first, none of the latter."""
    counts = counting(monkeypatch)
    for seed in range(seeds):
        case = Case(seed, "right", rtt_s=0.06, draft_s=0.004, greedy=seed % 2 == 0)
        write(case, 3, shaped=shaped)
    return counts


@pytest.mark.parametrize("shaped", [False, True], ids=["", "shaped"])
def test_behind_a_sibling_it_drafts_as_if_nothing_had_branched(monkeypatch, swapped, shaped):
    known, unknown = met(monkeypatch, shaped)
    assert known > 100 and unknown == 0


def elsewhere(position_of):
    """Noise of another position than a token's own."""

    def branching(self, past, made, begins):
        ranked = self._ranked

        def moved(q, key, positions):
            other = [position_of(at, len(past), row) for row, at in enumerate(positions)]
            return ranked(q, key, other)

        self._ranked = moved if made.parents else ranked
        try:
            return (yield from BRANCHING(self, past, made, begins))
        finally:
            del self._ranked

    return branching


def others_penalties(self, past, made, begins):
    """Penalties over the path of another token."""
    weigh = self._weigh
    if made.parents:
        self._weigh = lambda q, row, past: weigh(q, row, [*past[:-1], 0])
    try:
        return (yield from BRANCHING(self, past, made, begins))
    finally:
        self.__dict__.pop("_weigh", None)


def stays(self, chain, rest):
    """A sibling's keys and values stay where they are."""
    order = self.block.keep(chain, rest)
    self.cache += self.held[: len(chain)]
    self.held = self.held[len(chain) : len(order)]


BRANCHING = Drafter.branching
BROKEN = {
    "by_depth": (Drafter, "branching", elsewhere(lambda at, begin, row: at - begin), False),
    "by_row": (Drafter, "branching", elsewhere(lambda at, begin, row: begin + row), False),
    "others_penalties": (Drafter, "branching", others_penalties, True),
    "stays": (Forked, "keep", stays, False),
}


@pytest.mark.parametrize(("where", "name", "how", "shaped"), BROKEN.values(), ids=BROKEN)
def test_where_a_rule_is_broken_it_drafts_something_else(
    monkeypatch, swapped, where, name, how, shaped
):
    """The controls; the text is the same for all that."""
    monkeypatch.setattr(where, name, how)
    try:
        _, unknown = met(monkeypatch, shaped)
    except AssertionError:  # what is cached is not the text
        return
    assert unknown > 0
    assert check([Case(1, "right")], 3, shaped)


def test_a_device_without_branches_says_so():
    case = Case(1)
    with pytest.raises(ValueError, match="between 1 and 8"):
        write(case, 9)
    with pytest.raises(ValueError, match="both ends write"):
        write(case, 2, mode="stream")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Forked, "branches", False)
        with pytest.raises(ValueError, match="export --branches"):
            write(case, 2)


def test_two_are_usual_where_a_draft_can_and_both_ends_write(monkeypatch):
    case = Case(1, rtt_s=0.06, draft_s=0.004)
    assert write(case, None)[1].widest == 2
    assert write(case, None, mode="stream")[1].widest == 0
    monkeypatch.setattr(Forked, "branches", False)
    assert write(case, None)[1].widest == 0


def proposed(monkeypatch, features: tuple[str, ...], branches: int) -> list[bytes]:
    """The bytes of a device's proposals, where both ends know such features."""
    encode, sent = frames.encode, list[bytes]()

    def noted(frame):
        data = encode(frame)
        sent.extend([data] if isinstance(frame, frames.Propose) else [])
        return data

    with monkeypatch.context() as patch:
        patch.setattr(frames, "FEATURES", features)
        patch.setattr(frames, "encode", noted)
        case = Case(2, rtt_s=0.06, draft_s=0.004)
        found, _ = write(case, branches)
        assert found.tokens == streamed(2, False, None, (), False)[0]
    return sent


def test_a_base_station_that_does_not_know_them_is_sent_what_it_was_before(monkeypatch):
    lacking = tuple(name for name in frames.FEATURES if name != frames.BRANCHES)
    plain = proposed(monkeypatch, lacking, 1)
    assert plain and plain == proposed(monkeypatch, frames.FEATURES, 1)
    branch = [[data[1] >> 4 & 1 for data in proposed(monkeypatch, features, 3)]
              for features in (lacking, frames.FEATURES)]  # fmt: skip
    assert branch[0] and not any(branch[0]) and any(branch[1])
