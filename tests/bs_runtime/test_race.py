"""Triton's race picks what numpy's picks, to the bit, on a GPU or in its interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from draftlink.distribution import gumbel
from draftlink.distribution.noise import key_from_seed

pytest.importorskip("triton", reason="Triton is not installed: it comes with PyTorch for GPUs")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KEYS = [key_from_seed(i, "coupled") for i in range(3)]


def rows(size: int, count: int, seed: int = 0) -> np.ndarray:
    """From flat to one token that holds nearly everything, with zeros."""
    rng = np.random.default_rng(seed)
    p = np.exp(rng.uniform(0, 20, (count, 1)) * rng.standard_normal((count, size)))
    p[rng.random((count, size)) < 0.3] = 0.0
    p[:, rng.integers(size)] = 1.0
    return p


def both(p: np.ndarray, positions: list[int]) -> tuple[list[int], list[int]]:
    from bs_runtime.verify.race import pick_many

    keys = [KEYS[i % 3] for i in range(len(p))]
    given = torch.from_numpy(p).to(DEVICE)
    return pick_many(keys, positions, given), gumbel.pick_many(keys, positions, p).tolist()


@pytest.mark.parametrize("size", [1, 63, 64, 1025, 5000])
def test_the_same_tokens_are_picked(size):
    positions = [*range(10), 2**32 - 1, 2**32, 2**64 - 1]
    found, expected = both(rows(size, len(positions)), positions)
    assert found == expected


def test_the_clocks_are_the_same_to_the_bit():
    """Each of two tokens wins or loses by its clock alone: one bit off would turn some races."""
    race = gumbel.Race(KEYS[0])
    p, expected = np.zeros((200, 130)), []
    for position in range(len(p)):
        a, b = np.random.default_rng(position).choice(130, 2, replace=False)
        x = race.entries(position, [a, b])
        p[position, [a, b]] = x  # both arrive at 1, or one ulp apart; then the earlier, or lower id
        expected.append(int(gumbel.pick_many([KEYS[0]], [position], p[position][None])[0]))
    from bs_runtime.verify.race import pick_many

    found = pick_many([KEYS[0]] * len(p), range(len(p)), torch.from_numpy(p).to(DEVICE))
    assert found == expected
    assert len(set(found)) > 20


def test_equals_go_to_the_lowest_id_and_what_has_no_weight_never_wins():
    p = np.zeros((2, 3000))
    p[0, 2999] = 1e-299
    p[1, [7, 2100]] = gumbel.Race(KEYS[1]).entries(5, [7, 2100])  # both arrive at 1
    found, expected = both(p, [5, 5])
    assert found == expected == [2999, 7]


@pytest.mark.parametrize("bad", [0.0, 1e-301, np.inf, np.nan])
def test_a_row_without_a_winner_is_refused(bad):
    p = np.zeros((2, 70))
    p[0, 0], p[1, 3] = 1.0, bad
    from bs_runtime.verify.race import pick_many

    with pytest.raises(ValueError, match="every row needs finite weights"):
        pick_many(KEYS[:2], [0, 0], torch.from_numpy(p).to(DEVICE))
