"""The first arrivals of a race: the tokens to propose beside its winner."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from draftlink.distribution import gumbel
from draftlink.distribution.gumbel import BLOCK, Race, first_arrivals
from draftlink.distribution.noise import key_from_seed
from draftlink.planning import theory
from tests.draftlink.test_gumbel import weights

KEY = key_from_seed(1, "coupled")
SIZES = (1, 2, 5, 63, 64, 65, 200, 1000, 3000)


def brute_force(
    keys: list[bytes], positions: range, p: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """By every clock of the vocabulary: ids and arrivals (N, count)."""
    ids, times = np.full((len(p), count), -1), np.full((len(p), count), np.inf)
    for row, (key, position) in enumerate(zip(keys, positions, strict=True)):
        with np.errstate(divide="ignore"):
            x = Race(key).entries(position, np.arange(p.shape[1]))
            every = np.where(p[row] > 0, x / p[row], np.inf)
        order = [v for v in np.argsort(every, kind="stable") if every[v] < np.inf][:count]
        ids[row, : len(order)], times[row, : len(order)] = order, every[order]
    return ids, times


def wrong(count: int, sizes: tuple[int, ...], cases: int) -> int:
    """Rows of which the first arrivals are not those of ``brute_force``."""
    bad = 0
    for size in sizes:
        p = np.stack([weights(1000 * count + case, size) for case in range(cases)])
        p[::3, BLOCK:] *= 1e-12  # nearly all weight in the first block
        p[::5, 7:] = 0.0  # and fewer tokens of weight than are asked for
        p[::5, 0] = 1.0
        keys, positions = [key_from_seed(i, "coupled") for i in range(cases)], range(50, 50 + cases)
        expected = brute_force(keys, positions, p, count)
        found = first_arrivals(keys, positions, p, count)
        bad += sum(
            not (np.array_equal(expected[0][i], found[0][i])
                 and np.array_equal(expected[1][i], found[1][i]))
            for i in range(cases)
        )  # fmt: skip
    return bad


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_they_are_the_first_of_every_clock(count):
    """Nine sizes of vocabulary, 250 rows each: 9,000 cases in all."""
    assert wrong(count, SIZES, 250) == 0


def ask_for_more_weight(monkeypatch):
    """Than who arrives in time needs at least."""
    monkeypatch.setattr(gumbel, "BELOW", 10.0)


def stop_at_the_winner(monkeypatch):
    """Who draws a clock is told by the first arrival, however many are asked for."""
    reached = gumbel._reached
    monkeypatch.setattr(gumbel, "_reached", lambda times, count, xp: reached(times, 1, xp))


@pytest.mark.parametrize("spoil", [stop_at_the_winner, ask_for_more_weight])
def test_the_comparison_sees_what_is_broken(monkeypatch, spoil):
    spoil(monkeypatch)
    assert wrong(2, (200, 1000, 3000), 200) > 20


def test_equal_arrivals_come_by_id():
    race = Race(KEY)
    p = race.entries(7, np.arange(300))
    p[:10] = 0.0
    ids, times = first_arrivals([KEY], [7], p[None], 70)
    assert ids[0].tolist() == list(range(10, 80))
    assert (times == 1.0).all()


def test_a_block_with_all_the_weight_gives_as_many_as_it_has():
    p = np.zeros(5 * BLOCK)
    p[BLOCK : 2 * BLOCK] = 1.0
    ids, times = first_arrivals([KEY], [3], p[None], 100)
    assert sorted(ids[0, :BLOCK]) == list(range(BLOCK, 2 * BLOCK))
    assert (ids[0, BLOCK:] == -1).all() and (times[0, BLOCK:] == np.inf).all()


@pytest.mark.parametrize("device", ["cpu", *(["cuda"] if torch.cuda.is_available() else [])])
def test_torch_has_numpys(device):
    for size in (1, 65, 1000):
        p = np.stack([weights(i, size) for i in range(24)])
        keys = [key_from_seed(i, "coupled") for i in range(24)]
        ours = first_arrivals(keys, range(24), p, 3)
        theirs = first_arrivals(keys, range(24), torch.from_numpy(p).to(device), 3)
        assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])


@pytest.mark.parametrize(("count", "blocks"), [(1, 2), (4, 6)])
def test_few_of_a_large_vocabulary_draw_a_clock(monkeypatch, count, blocks):
    """As many as are better than the ``count``-th best of one in BLOCK, of 151,936 here.

    Otherwise a pick costs as much as noise for every id.
    """
    drawn = []
    clocks = gumbel._clocks
    monkeypatch.setattr(
        gumbel, "_clocks", lambda w, ids, *rest: drawn.append(len(ids)) or clocks(w, ids, *rest)
    )
    normal = np.random.default_rng(0).standard_normal((4, 151_936))
    peaked = np.full((4, 151_936), 1e-15)
    peaked[:, 77] = 1.0
    for p in (np.ones_like(normal), *(np.exp(n * normal) for n in (2, 3, 4)), peaked):
        drawn.clear()
        for first in range(0, 80, 4):
            first_arrivals([KEY] * 4, range(first, first + 4), p, count)
        assert sum(drawn) < 80 * blocks * BLOCK
    # The control: who would need no weight at all would draw one.
    monkeypatch.setattr(gumbel, "BELOW", 0.0)
    first_arrivals([KEY] * 4, range(4), np.exp(normal), count)
    assert drawn[-1] == normal.size


def test_none_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        first_arrivals([KEY], [0], np.ones((1, 4)), 0)
    with pytest.raises(ValueError, match="at least 1"):
        theory.candidates_acceptance_bound(np.ones(1), np.ones(1), 0)


def test_candidates_come_at_least_as_often_as_the_bound_says():
    """And it is the acceptance itself for one; were it that for more it would not be below."""
    rng, draws = np.random.default_rng(4), 4000
    for _ in range(3):
        p, q = rng.dirichlet(np.full(12, 0.3), 2)
        q[0] = 0.0
        q /= q.sum()
        keys, at = [KEY] * draws, range(draws)
        own = first_arrivals(keys, at, np.broadcast_to(p, (draws, 12)), 1)[0]
        theirs = first_arrivals(keys, at, np.broadcast_to(q, (draws, 12)), 4)[0]
        slack = 5 * 0.5 / draws**0.5
        bounds = []
        for count in (1, 2, 3, 4):
            seen = float((theirs[:, :count] == own).any(1).mean())
            bounds.append(theory.candidates_acceptance_bound(p, q, count))
            assert seen >= bounds[-1] - slack
        assert bounds[0] == pytest.approx(theory.coupled_acceptance(p, q), rel=1e-12)
        assert bounds == sorted(bounds)
        first = float((theirs[:, 0] == own[:, 0]).mean())
        assert first == pytest.approx(bounds[0], abs=slack)
