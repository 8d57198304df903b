"""The shared noise: the published generator, one set of bits everywhere, the law of the picks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from draftlink.distribution import gumbel, philox
from draftlink.distribution.gumbel import BLOCK, Race, pick_many
from draftlink.distribution.noise import key_from_seed

KEY = key_from_seed(1, "coupled")
ONES = 0xFFFF_FFFF


@pytest.fixture(autouse=True)
def nothing_remembered():
    """What one test draws with something broken is not another's noise."""
    gumbel._group.cache_clear()
    yield
    gumbel._group.cache_clear()


DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def block_clocks(positions: int, blocks: int = 2) -> np.ndarray:
    """x (positions, blocks * BLOCK) of the first ids."""
    race = Race(KEY)
    return np.stack([race.entries(t, np.arange(blocks * BLOCK)) for t in range(positions)])


def picks(p: np.ndarray, positions: int, key: bytes = KEY) -> np.ndarray:
    """The picks (positions,) of one row of weights (V,)."""
    return pick_many([key] * positions, range(positions), np.broadcast_to(p, (positions, len(p))))


def brute_force(race: Race, position: int, p: np.ndarray) -> int:
    with np.errstate(divide="ignore", over="ignore"):
        return int(
            np.argmin(np.where(p > 0, race.entries(position, np.arange(len(p))) / p, np.inf))
        )


def weights(seed: int, size: int) -> np.ndarray:
    """Anything from flat to one token that holds nearly everything; some zeros."""
    rng = np.random.default_rng(seed)
    p = np.exp(rng.uniform(0, 20) * rng.standard_normal(size))
    p[rng.random(size) < rng.choice([0.0, 0.5])] = 0.0
    p[rng.integers(size)] = 1.0
    return p


# The generator and the logarithm


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # Random123's kat_vectors, "philox4x32 10"
        ([0] * 4, [0] * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ([ONES] * 4, [ONES] * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
@pytest.mark.parametrize(
    "word", [int, lambda n: np.array([n]), lambda n: torch.tensor([n])], ids=["int", "np", "torch"]
)
def test_philox_gives_the_published_answers(counter, key, expected, word):
    out = philox.philox([word(c) for c in counter], [word(k) for k in key])
    assert " ".join(f"{int(np.ravel(w)[0]):08x}" for w in out) == expected


def test_pairs_of_words_are_the_same_words():
    rng = np.random.default_rng(0)
    counter = rng.integers(0, 1 << 32, (4, 50, 33))
    key = rng.integers(0, 1 << 32, (2, 50, 1))
    for c, k in ((counter, key), ((counter[0], 1, counter[2, :, :1], ONES), key[:, :1])):
        expected = np.stack(np.broadcast_arrays(*philox.philox(c, k)))
        assert np.array_equal(np.concatenate(philox.in_pairs(c, k)), expected[[0, 2, 1, 3]])


def test_logarithm_is_accurate_over_its_whole_range():
    rng = np.random.default_rng(0)
    u = np.concatenate(
        [
            rng.random(50_000),
            1 - 2.0 ** -rng.uniform(1, 53, 50_000),
            2.0 ** -rng.uniform(0, 53, 50_000),
            np.sqrt(0.5) + np.arange(-500, 500) * 2.0**-53,
            2.0 ** -np.arange(1.0, 54.0),
            [1 - 2.0**-53],
        ]
    )
    u = u[(u > 0) & (u < 1)]
    exact = np.log(u.astype(np.longdouble))  # where that is no longer than float64, within 1 ulp
    error_ulp = np.abs(philox.log(u, np) - exact) / np.spacing(np.abs(exact.astype(float)))
    assert error_ulp.max() < 2


def test_exponential_at_its_ends_is_finite_and_above_zero():
    x = philox.exponential(np.array([0, ONES]), np.array([0, ONES]), np)
    assert x == pytest.approx([53 * math.log(2), 2.0**-53], rel=1e-15)


def test_noise_never_changes():
    """Golden vectors: peers of different versions must see the same noise."""
    x = Race(KEY).entries(0, [0, 1, 63, 64, 151_935])
    assert [value.hex() for value in x.tolist()] == [
        "0x1.ec2bf32410fffp-3",
        "0x1.1c84ffcff8c74p-1",
        "0x1.1f531d5c48e9fp+1",
        "0x1.bf79bd5a756d5p-1",
        "0x1.528a032cb0040p-1",
    ]
    assert float(Race(KEY).entries(2**40 + 5, 7)).hex() == "0x1.85494b71c0175p-1"
    expected = [534, 846, 463, 633, 863, 425, 911, 939, 992, 728, 477, 346]
    assert picks(np.arange(1, 1001.0), 12).tolist() == expected


def test_noise_is_what_the_module_says():
    """Block minimum, winner and remainders, again, with Python's integers and its logarithm."""
    words = [int(w[0, 0]) for w in gumbel.words([KEY], [3])]

    def exponential(high: int, low: int) -> float:
        return -math.log((2 * ((high << 20) | (low >> 12)) + 1) / 2**53)

    for block in (0, 5):
        high, low, place, _ = philox.philox((block, 0, *words[2:]), words[:2])
        least = exponential(high, low) / 64
        expected = []
        for i in range(64):
            four = philox.philox((block * 32 + i % 32, 1, *words[2:]), words[:2])
            expected.append(least + exponential(*(four[:2] if i < 32 else four[2:])))
        expected[place >> 26] = least
        assert Race(KEY).entries(3, block * 64 + np.arange(64)) == pytest.approx(
            np.array(expected), rel=1e-14
        )


# One set of bits


@pytest.mark.parametrize("device", DEVICES)
def test_torch_has_numpys_bits(device):
    words = gumbel.words([KEY, key_from_seed(2, "coupled")] * 50, range(100))
    ids = np.random.default_rng(0).integers(0, gumbel.LIMIT, (100, 50))

    def clocks(words, ids, xp):
        return gumbel._clocks(words, ids, gumbel._minima(words, ids // BLOCK, xp), xp)

    ours = clocks(words, ids, np)
    *there, theirs = (torch.from_numpy(a).to(device) for a in (*words, ids))
    theirs = clocks(there, theirs, torch).cpu().numpy()
    assert np.array_equal(ours.view(np.int64), theirs.view(np.int64))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000, 5000])
def test_torch_picks_what_numpy_picks(device, size):
    p = np.stack([weights(i, size) for i in range(24)])
    keys, positions = [key_from_seed(i, "coupled") for i in range(24)], range(1000, 1024)
    ours = pick_many(keys, positions, p)
    assert np.array_equal(ours, pick_many(keys, positions, torch.from_numpy(p).to(device)))
    columns = torch.from_numpy(p.T.copy()).to(device).T  # rows that are not contiguous
    assert np.array_equal(ours, pick_many(keys, positions, columns))


# The rule


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 200, 3000])
def test_pick_is_the_arg_min_over_every_entry(size):
    for position in range(60):
        race, p = Race(key_from_seed(position, "coupled")), weights(position, size)
        assert race.pick(position, p) == brute_force(race, position, p)
        assert race.pick(position, p * 1e-280) == race.pick(position, p * 2.0**200)


@pytest.mark.parametrize("size", [1, 64, 100, 1000])
def test_one_hot_wins_always(size):
    for hot in {0, size // 2, size - 1}:
        assert (picks(np.eye(size)[hot], 20) == hot).all()


def test_ties_go_to_the_lowest_id():
    """Weights equal to the noise make every arrival exactly 1."""
    race = Race(KEY)
    for lowest in (0, 10, 64, 299):
        p = race.entries(7, np.arange(300))
        p[:lowest] = 0.0
        assert race.pick(7, p) == lowest


def test_weights_below_zero_never_win():
    p = np.where(np.arange(200) % 2, 1.0, -1.0)
    assert (picks(p, 200) % 2 == 1).all()


def test_positions_in_any_order_and_beside_other_keys_pick_the_same():
    """Minima are drawn for groups of positions, and kept: not where a step has several keys."""
    places = [5, 4, 40, 31, 32, 5, 2**64 - 1, 0, 1000]
    p = np.stack([weights(seed, 3000) for seed in range(len(places))])
    together = pick_many([KEY] * len(places), places, p).tolist()
    assert together == [Race(KEY).pick(at, row) for at, row in zip(places, p, strict=True)]
    other = key_from_seed(2, "coupled")
    twice = [at for at in places for _ in range(2)]
    mixed = pick_many([KEY, other] * len(places), twice, p.repeat(2, 0))
    assert together == mixed[::2].tolist()
    assert mixed[1::2].tolist() == pick_many([other] * len(places), places, p).tolist()


def test_padding_of_the_vocabulary_changes_nothing():
    race = Race(KEY)
    for position in range(30):
        p = weights(position, 1000)
        assert race.pick(position, p) == race.pick(position, np.pad(p, (0, 217)))
    ids = np.array([[999, 3], [64, 3]])
    assert np.array_equal(race.entries(0, ids), race.entries(0, np.arange(1500))[ids])
    assert race.entries(0, []).shape == (0,)


@pytest.mark.parametrize("scale", [1e-299, 1e-150, 1e150, 1.7e308])
def test_weights_that_are_hardly_numbers_pick_what_others_do(scale):
    """Times are subnormal, or next to infinite: what is rounded off them may be a large part."""
    for position in range(50):
        p = weights(position, 700)
        for row in (np.full(700, scale), p / p.max() * scale):
            assert Race(KEY).pick(position, row) == brute_force(Race(KEY), position, row)


@pytest.mark.parametrize(
    "p",
    [
        np.zeros((1, 70)),
        np.full((1, 70), 1e-301),
        np.full((1, 70), np.nan),
        np.where(np.arange(70) == 69, np.nan, 1.0)[None],
        np.where(np.arange(70) == 3, np.inf, 1.0)[None],
        np.ones((1, 70), dtype=np.float32),
        np.ones((2, 70)),
        np.ones(70),
        np.ones((1, 0)),
    ],
)
@pytest.mark.parametrize("torch_too", [False, True])
def test_bad_weights_are_refused(p, torch_too):
    with pytest.raises(ValueError, match="weights"):
        pick_many([KEY], [0], torch.from_numpy(p) if torch_too else p)


def test_bad_positions_and_ids_are_refused():
    race = Race(KEY)
    for position in (-1, 2**64):
        with pytest.raises(ValueError, match="positions"):
            race.entries(position, [0])
    for token in (-1, 2**32):
        with pytest.raises(ValueError, match="ids"):
            race.entries(0, [token])


# The law. Seeds are fixed; of other seeds one in some hundreds would fail a right program at 1e-4.


def break_purposes(monkeypatch):
    """The remainders of a block use numbers that minima use too."""
    monkeypatch.setattr(gumbel, "REMAINDER", gumbel.MINIMUM)


def break_winner(monkeypatch):
    """Nobody in the block rings at its minimum."""
    minima = gumbel._minima
    monkeypatch.setattr(gumbel, "_minima", lambda *a: (minima(*a)[0], minima(*a)[1] + BLOCK))


def break_minimum(monkeypatch):
    """The minimum is that of one clock."""
    minima = gumbel._minima
    monkeypatch.setattr(gumbel, "_minima", lambda *a: (minima(*a)[0] * 64, minima(*a)[1]))


BREAKS = [break_purposes, break_winner, break_minimum]


def dependence(a: np.ndarray, b: np.ndarray) -> float:
    """Chi-square p-value for independence of two samples, in quarters of Exp(1)."""
    edges = -np.log([0.75, 0.5, 0.25])
    table = np.zeros((4, 4))
    np.add.at(table, (np.searchsorted(edges, a), np.searchsorted(edges, b)), 1)
    return float(stats.chi2_contingency(table).pvalue)


def clock_p_values(x: np.ndarray) -> list[float]:
    """Are x (positions, 2 * BLOCK) independent Exp(1)?"""
    n, first = len(x), np.sort(x[:, :BLOCK], axis=1)
    least = x.reshape(n, 2, BLOCK).min(axis=2)
    tails = [((x > 8).sum(), math.exp(-8)), ((x < 1e-3).sum(), -math.expm1(-1e-3))]
    winners = np.bincount(x[:, :BLOCK].argmin(axis=1), minlength=BLOCK)
    pairs = [(0, 1), (0, 32), (5, 37), (62, 63), (0, 64), (1, 64), (63, 127)]
    return [
        float(stats.kstest(x.ravel(), "expon").pvalue),
        *(float(stats.binomtest(int(k), x.size, tail).pvalue) for k, tail in tails),
        float(stats.kstest(first[:, 0] * BLOCK, "expon").pvalue),
        float(stats.kstest((first[:, 1] - first[:, 0]) * (BLOCK - 1), "expon").pvalue),
        float(stats.chisquare(winners).pvalue),
        *(dependence(x[:, i], x[:, j]) for i, j in pairs),
        # What is left to go after the minimum says nothing about a minimum, its own or another's.
        *(
            dependence((x[:, i] - least[:, 0])[late], (least[:, block] * BLOCK)[late])
            for i, block in ((0, 0), (1, 1), (32, 0))
            for late in [x[:, i] > least[:, 0]]
        ),
        # Who rings first says nothing about when.
        dependence(first[:, 0] * BLOCK, -np.log1p(-x[:, :BLOCK].argmin(axis=1) / BLOCK)),
        dependence(x[: n // 2].ravel(), x[n // 2 : n // 2 * 2].ravel()),
    ]


def test_clocks_are_independent_and_exponential():
    assert min(clock_p_values(block_clocks(3000))) > 1e-4


@pytest.mark.parametrize("spoil", BREAKS)
def test_clocks_test_sees_what_is_broken(monkeypatch, spoil):
    spoil(monkeypatch)
    assert min(clock_p_values(block_clocks(3000))) < 1e-8


def pick_p_value() -> float:
    """Do the picks of a row over three blocks, the last cut short, follow its weights?"""
    p = np.random.default_rng(5).gamma(0.5, size=150) + 0.02
    p[[0, 1, 70]] = 20.0, 20.0, 10.0
    counts = np.bincount(1 + picks(p, 20_000), minlength=151)[1:]  # -1: none
    return float(stats.chisquare(counts, counts.sum() * p / p.sum()).pvalue)


def test_picks_follow_the_weights():
    assert pick_p_value() > 1e-4


@pytest.mark.parametrize("spoil", BREAKS)
def test_picks_test_sees_what_is_broken(monkeypatch, spoil):
    spoil(monkeypatch)
    assert pick_p_value() < 1e-8


def agreement_margins(other: bytes) -> list[float]:
    """Agreement of picks from p and q, less (1 - TV) / (1 + TV), in standard deviations."""
    rng, positions, margins = np.random.default_rng(6), 2000, []
    for _ in range(10):
        p = rng.dirichlet(np.full(200, 0.05))
        share = rng.uniform(0.1, 0.9)
        q = share * p + (1 - share) * rng.dirichlet(np.full(200, 0.05))
        tv = np.abs(p - q).sum() / 2
        bound = (1 - tv) / (1 + tv)
        agreed = (picks(p, positions) == picks(q, positions, other)).mean()
        margins.append((agreed - bound) / math.sqrt(bound * (1 - bound) / positions))
    return margins


def test_two_rows_agree_as_often_as_the_bound_says():
    assert min(agreement_margins(KEY)) > -4


def test_rows_with_noise_of_their_own_do_not():
    assert max(agreement_margins(key_from_seed(1, "bs"))) < -4


def test_keys_roles_and_positions_are_unrelated():
    ids = np.arange(6400)
    here = Race(KEY).entries(5, ids)
    others = [
        Race(KEY).entries(4, ids),
        Race(KEY).entries(5 + 2**32, ids),
        Race(KEY).entries(5, ids + 2**31),
        Race(key_from_seed(2, "coupled")).entries(5, ids),
        Race(key_from_seed(1, "bs")).entries(5, ids),
    ]
    for other in others:
        assert not np.isin(here, other).any()
        assert dependence(here, other) > 1e-4
    # The control: the same noise, but for small change.
    assert dependence(here, here + 0.1 * others[0]) < 1e-8
