"""What GPTQ is for: products, not weights, stay near their own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from export import gptq, rounding
from export.rounding import Rounding, activations, nearest


def correlated(count: int, width: int) -> torch.Tensor:
    """Inputs of which a few directions hold the most."""
    rng = np.random.default_rng(0)
    mix = rng.normal(size=(width, width)) * np.geomspace(1, 0.01, width)
    return torch.from_numpy((rng.normal(size=(count, width)) @ mix.T).astype(np.float32))


@pytest.mark.parametrize("zero_points", [False, True])
@pytest.mark.parametrize(("bits", "block"), [(4, 16), (4, 64), (8, 32), (4, 256)])
def test_products_change_less_than_by_the_nearest_codes(bits, block, zero_points):
    weight = np.random.default_rng(1).normal(size=(40, 96)).astype(np.float32)
    inputs = correlated(400, 96)
    way = Rounding(bits, block, zero_points)
    seen = activations(inputs, block)
    lost = [
        float((seen @ torch.from_numpy(made.values() - weight).T).square().sum())
        for made in (nearest(weight, way), gptq.codes(weight, inputs, way))
    ]
    assert lost[1] < 0.6 * lost[0]


def test_without_correlation_it_is_the_nearest():
    """Each column for itself: there is nothing to make up for."""
    weight = np.random.default_rng(1).normal(size=(8, 64)).astype(np.float32)
    inputs = torch.eye(64)
    way = Rounding(4, 32)
    found = gptq.codes(weight, inputs, way)
    assert np.array_equal(found.code, nearest(weight, way).code)
    assert found.values().shape == weight.shape


def test_rows_are_rounded_alike_in_any_number(monkeypatch):
    weight = np.random.default_rng(1).normal(size=(40, 64)).astype(np.float32)
    inputs, way = correlated(200, 64), Rounding(4, 32, True)
    whole = gptq.codes(weight, inputs, way).values()
    monkeypatch.setattr(gptq, "ROWS", 7)
    assert np.abs(gptq.codes(weight, inputs, way).values() - whole).max() < 1e-4


def test_inputs_that_never_come_are_no_fault():
    """A channel that is always 0, and a text of zeros."""
    weight = np.random.default_rng(1).normal(size=(8, 64)).astype(np.float32)
    inputs = correlated(200, 64)
    inputs[:, 5] = 0
    for given in (inputs, torch.zeros(10, 64)):
        assert np.isfinite(gptq.codes(weight, given, Rounding(8, 32)).values()).all()


def test_activations_are_rounded_as_the_operator_does():
    """To int8, by the largest of a block: one that is 127 takes every integer as it is."""
    x = torch.arange(-60.0, 68.0).reshape(2, 64)
    x[:, ::32] = 127
    assert torch.equal(activations(x, 32), x)
    assert not torch.equal(activations(x + 0.3, 32), x + 0.3)
    assert activations(torch.zeros(1, 40), 32).shape == (1, 40)
    assert rounding.block_for(80, 32) == 16
