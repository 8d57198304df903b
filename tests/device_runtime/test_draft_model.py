"""The KV cache on the device: rollback is a length, and what lies behind it is never read."""

from __future__ import annotations

import numpy as np
import pytest

from device_runtime.bundle import BundleError
from device_runtime.draft_model import DraftModel

IDS = [5, 9, 40, 7, 100, 3, 77, 21]


def test_rollback_and_go_on_equals_a_fresh_run_bit_for_bit(bundle):
    fresh, model = DraftModel(bundle()), DraftModel(bundle())
    fresh.forward(IDS[:4])
    expected = [fresh.forward([token]).copy() for token in IDS[4:]]
    model.forward(IDS[:4])
    model.forward([200, 201, 202])
    model.rollback(4)
    for buffer in model._buffers:
        buffer[:, :, 4:] = np.nan  # stale entries that were read would show
    found = [model.forward([token]).copy() for token in IDS[4:]]
    assert np.array_equal(found, expected)
    assert model.length == len(IDS)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_random_histories_equal_a_fresh_run(bundle, architecture):
    """Accepted and rejected tokens in any order leave the cache of the tokens that stand."""
    rng = np.random.default_rng(3)
    model, fresh = DraftModel(bundle(architecture)), DraftModel(bundle(architecture))
    history: list[int] = []
    for _ in range(40):
        ids = rng.integers(0, 300, size=rng.integers(1, 6)).tolist()
        if len(history) + len(ids) > model.context:
            model.rollback(0)
            history.clear()
        logits = model.forward(ids).copy()
        history += ids
        fresh.rollback(0)
        assert np.abs(fresh.forward(history) - logits).max() < 1e-5
        keep = int(rng.integers(max(0, len(history) - 4), len(history) + 1))
        model.rollback(keep)
        del history[keep:]


def test_limits_are_errors_and_change_nothing(bundle):
    model = DraftModel(bundle())
    model.forward(IDS)
    for ids in ([], [1] * model.context):
        with pytest.raises(ValueError, match="where the context is 128"):
            model.forward(ids)
    for length in (-1, len(IDS) + 1):
        with pytest.raises(ValueError, match="cannot roll"):
            model.rollback(length)
    assert model.length == len(IDS)


def test_a_missing_provider_lists_those_present(bundle):
    with pytest.raises(BundleError, match=r"no execution provider 'qnn'; it has .*cpu"):
        DraftModel(bundle(), provider="qnn")
