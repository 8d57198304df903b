"""The law of texts that are written with leaves, enumerated, equals the target's to 1e-9.

Both ends' real code: the device draws its tokens and their candidates, codes them, and the base
station decodes, feeds and judges them. Only what the target draws is scripted. A number belongs to
a position: a position that is asked once more draws what it drew before, as real noise would.
"""

from __future__ import annotations

import dataclasses
import itertools
from functools import lru_cache, partial

import numpy as np
import pytest

from bs_runtime.engine import late
from bs_runtime.engine.generation import Generation
from bs_runtime.engine.late import Late
from bs_runtime.engine.paths import Paths
from bs_runtime.verify import verify
from device_runtime.drafting.drafter import Drafter
from draftlink.coding.slices import whole
from draftlink.distribution import noise, sampling
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.schemes.coupled import Coupled
from tests.branching import Branching
from tests.bs_runtime.late import Shelf
from tests.fake_models import FakeModel, random_logits
from tests.oracle import Oracle, run
from tests.test_both_leaves import FOLLOW, by_row, others_penalties, stays

SIZE, LENGTH, BLOCK = 6, 4, 2
PARAMS = {
    "temperature": Sampling(temperature=0.6, top_k=3),
    "top-k": Sampling(top_k=2),
    "top-p": Sampling(top_p=0.7),
    "min-p": Sampling(temperature=1.3, min_p=0.3),
    "penalties": Sampling(
        top_k=3, repetition_penalty=1.4, frequency_penalty=0.8, presence_penalty=-0.7,
        logit_bias=((2, 0.9), (4, -0.6)),
    ),
    "all": Sampling(
        temperature=1.1, top_k=3, top_p=0.9, min_p=0.05, repetition_penalty=1.3,
        frequency_penalty=-0.5,
    ),
}  # fmt: skip
FREE = Sampling()  # all six ids can be drawn behind each text


@lru_cache(maxsize=100_000)
def row(seed: int, history: tuple[int, ...]) -> np.ndarray:
    """The target's logits behind a text, which depend on all of it."""
    shift = np.random.default_rng([seed, *history]).normal(0.0, 0.7, SIZE)
    return random_logits(seed, SIZE, 1.5)[history[-1]] + shift


def law_by_definition(seed: int, params: Sampling) -> dict[tuple[int, ...], float]:
    """Of ``LENGTH`` tokens behind token 0."""
    law: dict[tuple[int, ...], float] = {(0,): 1.0}
    for _ in range(LENGTH):
        law = {
            (*past, token): chance * share
            for past, chance in law.items()
            for token, share in enumerate(
                sampling.distribution(row(seed, past), params, list(past), 1)
            )
            if share
        }
    return {text[1:]: chance for text, chance in law.items()}


class Numbers:
    """What the target draws: by the oracle, once for each position of a text."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self.drawn: dict[int, int] = {}
        self.chain: list[int] = []  # what is judged; behind a token that is refused no row counts

    def pick_many(self, keys, positions, p) -> np.ndarray:
        found = np.zeros(len(p), dtype=np.int64)
        p = np.asarray(p)
        for at, position in enumerate(positions):
            before = self.drawn.get(position)
            again = before is not None and p[at][before] > 0.0
            found[at] = before if again else self._oracle.choose(p[at])
            self.drawn[position] = int(found[at])
            if found[at] != [*self.chain, -1][at]:
                break
        self.chain = []  # what is judged next is a leaf
        return found


def text(seed: int, params: Sampling, beside: int, numbers: Numbers, met: dict) -> tuple[int, ...]:
    """A text of ``LENGTH`` tokens: unequal numbers of candidates stand beside proposed tokens."""
    numbers.drawn = {}
    start = frames.Start(1, 0, [0], params, Coupled(), "both", LENGTH + 1, [], seed)
    target = Branching(np.zeros((SIZE, SIZE)), lambda seen: row(seed, tuple(seen)))
    station = Generation(target.open(), start, [0], SIZE, 1 << 20, bytes(32))
    draft = random_logits(seed + 50, SIZE, 1.5)  # unrelated
    key = noise.key_from_seed(seed, "coupled")
    drafter = Drafter(FakeModel(draft, rows=False), start, SIZE, key)
    drafter.beside = beside
    paths = Paths(Coupled(), SIZE, station.history)
    run(target, station.prompt())
    for number in itertools.count(1):
        history = list(station.history)
        if station.kept_row() is not None:
            run(target, station.next())
        else:
            proposals = [one.drafted for one in drafter.propose(list(history), BLOCK, len(history))]
            counts = [(number + at) % (beside + 1) or beside * (at == 0) for at in range(BLOCK)]
            drafted = [
                Drafted(one.token, beside=one.beside[:count])
                for one, count in zip(proposals, counts, strict=True)
            ]
            payload, _ = drafter.encode(history, drafted)
            sizes = tuple(len(one.beside) for one in drafted)
            frame = frames.Propose(
                number, len(history), len(history), 0, BLOCK, payload, beside=sizes
            )
            assert frames.decode(frames.encode(frame)) == frame
            whole(paths.adding(frame))
            round = Late(station, partial(paths.following, BLOCK), paths.beside)
            round.bind()
            numbers.chain = [one.token for one in round.drafted]
            run(target, round)
            met["fed"] += len(round.leaves)
            met["won"] += round._path is not None
            if len(station.history) > LENGTH:
                return tuple(station.history[1 : 1 + LENGTH])
            drafter.rollback(len(station.history))


def worst(monkeypatch, seed: int, params: Sampling, beside: int, met: dict) -> float:
    """The largest difference of a text's probability from what the definition says."""
    oracle = Oracle()
    numbers = Numbers(oracle)
    monkeypatch.setattr(verify, "pick_many", numbers.pick_many)
    found = oracle.law(lambda: text(seed, params, beside, numbers, met))
    wanted = law_by_definition(seed, params)
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-12)
    return max(abs(found.get(t, 0.0) - wanted.get(t, 0.0)) for t in {*found, *wanted})


@pytest.mark.parametrize(
    "seeds",
    [range(1), pytest.param(range(1, 8), marks=pytest.mark.full)],
    ids=["", "full"],
)
@pytest.mark.parametrize("beside", [1, 3])
@pytest.mark.parametrize("params", PARAMS.values(), ids=PARAMS)
def test_the_law_is_the_targets(monkeypatch, params, beside, seeds):
    met = {"fed": 0, "won": 0}
    for seed in seeds:
        assert worst(monkeypatch, seed, params, beside, met) < 1e-9, seed
    assert met["won"] > 0 and met["fed"] > met["won"]


@pytest.mark.full
@pytest.mark.parametrize("beside", [1, 2, 3])
def test_the_law_is_the_targets_where_all_ids_are_likely(monkeypatch, beside):
    for seed in range(2):
        assert worst(monkeypatch, seed, FREE, beside, {"fed": 0, "won": 0}) < 1e-9


def by_depth(self, job, outcome):
    """Noise of how deep in the block it is, not of the place in the text."""
    found = FOLLOW(self, job, outcome)
    deep = outcome.accepted + 1
    return found and dataclasses.replace(found, history=found.history[-deep:])


BROKEN = [
    (late.Late, "follow", by_depth),
    (late.Late, "follow", by_row),
    (late.Late, "follow", others_penalties),
    (Shelf, "keep", stays),
]


@pytest.mark.parametrize(("where", "name", "how"), BROKEN, ids=lambda x: getattr(x, "__name__", ""))
def test_where_a_rule_is_broken_the_law_is_another(monkeypatch, where, name, how):
    """The controls of that: each spoils what a leaf that is right is followed by."""
    monkeypatch.setattr(where, name, how)
    met = {"fed": 0, "won": 0}
    assert worst(monkeypatch, 0, PARAMS["penalties"], 3, met) > 1e-3
