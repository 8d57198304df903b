"""The KV cache on the device: rollback is a length, and what lies behind it is never read."""

from __future__ import annotations

import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest

from device_runtime.model.bundle import Bundle, BundleError
from device_runtime.model.draft_model import DraftModel
from tests.conftest import GRAPHS

IDS = [5, 9, 40, 7, 100, 3, 77, 21]


@pytest.mark.parametrize("graph", GRAPHS)
def test_rollback_and_go_on_equals_a_fresh_run_bit_for_bit(bundle, graph):
    fresh, model = (
        DraftModel(bundle(graph=graph), threads=1),
        DraftModel(bundle(graph=graph), threads=1),
    )
    fresh.forward(IDS[:4])
    expected = [fresh.forward([token]).copy() for token in IDS[4:]]
    model.forward(IDS[:4])
    model.forward([200, 201, 202])
    model.rollback(4)
    if graph == "shared":
        for buffer in model._graph.cache:
            buffer[:, :, 4:] = np.nan  # stale entries that were read would show
    found = [model.forward([token]).copy() for token in IDS[4:]]
    assert np.array_equal(found, expected)
    assert model.length == len(IDS)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("architecture", ["llama", "gemma", "gpt2"])
def test_random_histories_equal_a_fresh_run(bundle, architecture, graph):
    """Accepted and rejected tokens in any order leave the cache of the tokens that stand."""
    rng = np.random.default_rng(3)
    made = bundle(architecture, graph=graph)
    model, fresh = DraftModel(made, threads=1), DraftModel(made, threads=1)
    history: list[int] = []
    for _ in range(40):
        # Up to 20: both those chunks whose arrays are kept, and longer ones.
        count = rng.integers(1, 21) if rng.random() < 0.2 else rng.integers(1, 6)
        ids = rng.integers(0, 300, size=count).tolist()
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


def test_a_shared_rollback_copies_nothing(bundle):
    model = DraftModel(bundle(), threads=1)
    places = [buffer.ctypes.data for buffer in model._graph.cache]
    model.forward(IDS)
    model.rollback(3)
    model.forward(IDS)
    assert [buffer.ctypes.data for buffer in model._graph.cache] == places
    assert all(buffer[:, :, : 3 + len(IDS)].any() for buffer in model._graph.cache)


@pytest.mark.parametrize("graph", GRAPHS)
def test_models_of_a_bundle_share_weights_and_nothing_else(bundle, graph):
    """Each writes, in a thread of its own, what it writes alone."""

    def write(model, first):
        rows = [model.forward([first + i]).copy() for i in range(60)]
        model.rollback(30)
        return [*rows, model.forward([7, 8]).copy()]

    made = bundle(graph=graph)
    expected = [write(DraftModel(made, threads=1), first) for first in range(4)]
    models = [DraftModel(made, threads=1) for _ in range(4)]
    assert len({id(model._loaded) for model in models}) == 1
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(write, models, range(4)))
    assert all(map(np.array_equal, found, expected))
    assert not np.array_equal(found[0], found[1])


def test_weights_go_with_the_last_model_that_uses_them(bundle):
    one, other = DraftModel(bundle(), threads=1), DraftModel(bundle(), threads=1)
    weights = weakref.ref(one._loaded)
    del one
    assert weights() is other._loaded
    assert DraftModel(bundle(), threads=2)._loaded is not weights()
    del other
    assert weights() is None


@pytest.mark.parametrize("graph", GRAPHS)
def test_the_context_can_be_filled_to_its_last_token(bundle, graph):
    model = DraftModel(bundle(graph=graph), threads=1)
    model.forward([1] * (model.context - 1))
    assert np.isfinite(model.forward([2])).all()
    assert model.length == model.context


@pytest.mark.parametrize("graph", GRAPHS)
def test_limits_are_errors_and_change_nothing(bundle, graph):
    model = DraftModel(bundle(graph=graph), threads=1)
    model.forward(IDS)
    for ids in ([], [1] * model.context):
        with pytest.raises(ValueError, match="where the context is 128"):
            model.forward(ids)
    for length in (-1, len(IDS) + 1):
        with pytest.raises(ValueError, match="cannot roll"):
            model.rollback(length)
    assert model.length == len(IDS)


def test_a_missing_provider_lists_those_present(bundle):
    for provider in ("qnn", "nonsense"):
        with pytest.raises(BundleError, match=rf"no execution provider '{provider}'; it has .*cpu"):
            DraftModel(bundle(), provider=provider)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_is_no_silent_fall_back(bundle, monkeypatch):
    """onnxruntime lists a provider that was built in, and without its libraries takes the CPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(BundleError, match="'cuda' does not start on this machine"):
        DraftModel(bundle(), provider="cuda")


def test_a_graph_that_is_no_graph_is_refused(bundle, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(BundleError, match="onnxruntime cannot load"):
        DraftModel(Bundle(tmp_path, bundle().manifest))
