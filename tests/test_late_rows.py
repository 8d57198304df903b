"""Why a scheme that sends rows never lets what has arrived decide who writes a token."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bs_runtime.verify import residual
from draftlink.distribution.sparse import Drafted, SparseRow

P = np.array([0.5, 0.5])
ROW = SparseRow(np.array([0, 1]), np.array([9, 1]), 10)  # q̂ = (.9, .1)


def judged(drafted: Drafted) -> np.ndarray:
    """The law (V,) of the token that a base station writes where this one was drawn."""
    p = torch.from_numpy(P[None])
    wanted = float(residual.wanted(p, [0], [drafted])[0])
    accepted = min(1.0, wanted / (drafted.count / drafted.total))
    left = residual.residuals(p, [drafted])[0].numpy()
    law: np.ndarray = (1.0 - accepted) * left / left.sum()
    law[drafted.token] += accepted
    return law


def law(late: frozenset[int]) -> np.ndarray:
    """Of a token over all draws; where one of ``late`` was drawn the base station writes its own.

    That is the frame which is one packet longer, since its token is rarer.
    """
    found = np.zeros(len(P))
    for index, chance in enumerate(ROW.probabilities()):
        found += chance * (P if index in late else judged(Drafted.of(ROW, index)))
    return found


def test_what_was_drawn_is_checked_or_none_of_it():
    assert law(frozenset()) == pytest.approx(P, abs=1e-12)
    assert law(frozenset({0, 1})) == pytest.approx(P, abs=1e-12)


def test_a_frame_that_is_late_for_what_it_holds_changes_the_law():
    """docs/rows.md states these numbers."""
    assert law(frozenset({1})) == pytest.approx([0.55, 0.45], abs=1e-12)
    assert law(frozenset({0})) == pytest.approx([0.45, 0.55], abs=1e-12)
