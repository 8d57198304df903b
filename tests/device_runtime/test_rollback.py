"""Whatever was accepted and rejected, the cache is that of the tokens that stand."""

from __future__ import annotations

import numpy as np
import pytest

import tinypair
from device_runtime.model.draft_model import DraftModel
from tests.fake_models import softmax

ROUNDS = 6
MOST_TV = 0.02  # between chunkings, of quantized weights: activations are rounded too


class Played:
    """One random history of drafting, as ``Drafter`` feeds it, and the chunks that stand."""

    def __init__(self, model: DraftModel, rng: np.random.Generator, ids: int) -> None:
        model.rollback(0)
        self.chunks: list[list[int]] = []
        unfed = rng.integers(0, ids, rng.integers(2, 20)).tolist()
        for _ in range(ROUNDS):
            drafted = rng.integers(0, ids, rng.integers(1, 6)).tolist()
            fed = [unfed, *([token] for token in drafted[:-1])]
            for chunk in fed:
                self.logits = model.forward(chunk).copy()
            accepted = int(rng.integers(0, len(drafted) + 1))
            stand = fed[: 1 + min(accepted, len(drafted) - 1)]
            self.chunks += stand
            self.length = sum(map(len, self.chunks))
            model.rollback(self.length)
            # The last drafted token was not fed; after it, or in a rejected one's place, another.
            whole = accepted == len(drafted)
            unfed = [*(drafted[-1:] if whole else []), int(rng.integers(0, ids))]
        self.chunks.append(unfed)
        self.logits = model.forward(unfed).copy()

    def replayed(self, fresh: DraftModel) -> np.ndarray:
        """The logits of a run that never strayed, fed in the same chunks."""
        fresh.rollback(0)
        for chunk in self.chunks:
            logits = fresh.forward(chunk)
        return logits

    def at_once(self, fresh: DraftModel) -> np.ndarray:
        """The logits of a run that is fed all of it as one chunk."""
        fresh.rollback(0)
        return fresh.forward([token for chunk in self.chunks for token in chunk])


def check(made, histories: int) -> tuple[float, float]:
    """Bit for bit in the same chunks; the largest difference, in logits and in TV, across them."""
    model, fresh = DraftModel(made, threads=1), DraftModel(made, threads=1)
    rng = np.random.default_rng(11)
    logit = variation = 0.0
    for _ in range(histories):
        played = Played(model, rng, made.manifest.vocab_size)
        assert np.array_equal(played.logits, played.replayed(fresh))
        other = played.at_once(fresh)
        logit = max(logit, float(np.abs(other - played.logits).max()))
        apart = np.abs(softmax(other.astype(float)) - softmax(played.logits.astype(float)))
        variation = max(variation, float(apart.sum() / 2))
    print(f"{made.manifest.precision}: {histories} histories, across chunkings {logit:.2g} in a")
    print(f"logit, {variation:.2g} in total variation")
    return logit, variation


@pytest.mark.parametrize("histories", [40, pytest.param(1000, marks=pytest.mark.full)])
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_random_histories_of_a_random_model(bundle, precision, histories):
    logit, variation = check(bundle("llama", precision), histories)
    assert variation <= MOST_TV and (precision != "fp32" or logit <= 1e-5)


@pytest.mark.full
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_random_histories_of_the_embedded_draft(tmp_path, precision):
    pytest.importorskip("torch")
    from export.bundle import export_bundle

    made = export_bundle(tinypair.DRAFT, tmp_path / "draft", precision)
    logit, variation = check(made, 1000)
    assert variation <= MOST_TV and (precision != "fp32" or logit <= 1e-5 * LARGEST)


LARGEST = 10  # logits of a trained model are some ten times those of a random one


def test_a_hole_in_the_cache_would_show(bundle):
    """The negative control: the last drafted token, accepted and never fed."""
    model, fresh = DraftModel(bundle(), threads=1), DraftModel(bundle(), threads=1)
    model.forward([5, 9, 40])
    fresh.forward([5, 9, 40])
    fresh.forward([7])
    assert np.abs(model.forward([100]) - fresh.forward([100])).max() > 1e-3


def test_a_long_prompt_is_fed_in_parts(bundle, monkeypatch):
    monkeypatch.setattr("device_runtime.model.draft_model.PREFILL", 16)
    model, fresh = DraftModel(bundle(), threads=1), DraftModel(bundle(), threads=1)
    ids = np.random.default_rng(0).integers(0, 300, 100).tolist()
    found = model.forward(ids).copy()
    assert model.length == 100
    for begin in range(0, 100, 16):
        wanted = fresh.forward(ids[begin : begin + 16])
    assert np.array_equal(found, wanted)
