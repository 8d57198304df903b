"""Both ends cut a distribution to the same ids, though they add its masses in another order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bs_runtime.verify import distribution, verify
from device_runtime.drafting.drafter import Drafter
from draftlink.distribution import largest, sampling
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.schemes import GREEDY
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.split import Split
from tests.fake_models import FakeModel

SIZE = 40
ROWS = [5_000, pytest.param(50_000, marks=pytest.mark.full)]
CUTS = {
    "top-p": [Sampling(top_p=k / 20) for k in range(1, 20)],
    "min-p": [Sampling(min_p=1 / k) for k in range(2, 12)],
    "top-k": [Sampling(top_k=k) for k in (1, 3, 10, 20)],
    "all": [Sampling(0.7, top_k=20, top_p=k / 10, min_p=0.05) for k in range(1, 10)],
}


def tied(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Logits (rows, SIZE), of few values each, as those of a quantized model are.

    In two of three rows the weights are 1, or 1 to 6, so that masses, their sums and their ratios
    are as round as the numbers of a request.
    """
    levels = rng.normal(0, 2, (rows, 6)).astype(np.float32).astype(np.float64)
    logits = np.take_along_axis(levels, rng.integers(0, 6, (rows, SIZE)), axis=1)
    weights = rng.random((rows, SIZE)) < rng.random((rows, 1))
    weights[:, 0] = True
    kind = rng.integers(0, 3, (rows, 1))
    weights = np.where(kind == 1, weights, rng.integers(1, 7, (rows, SIZE)))
    with np.errstate(divide="ignore"):
        return np.where(kind == 0, logits, np.log(weights))


def nudged(rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
    """p, each entry by up to 2 units in the last place off."""
    return (p.view(np.int64) + np.where(p > 0, rng.integers(-2, 3, p.shape), 0)).view(np.float64)


def supports(
    logits: np.ndarray, params: list[Sampling], p: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which ids are left, (rows, SIZE), at a device and at the base station; p is not yet cut."""
    device = p.copy()
    for row, scores, one in zip(device, logits, params, strict=True):
        sampling.cut(row, scores, one)
    station = distribution.cut(torch.from_numpy(p), torch.from_numpy(logits), params)
    return device > 0, station.numpy() > 0


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", CUTS)
def test_tied_rows_have_one_support_at_both_ends_whatever_the_last_bits(name, rows):
    rng = np.random.default_rng(1)
    logits = tied(rng, rows)
    params = [CUTS[name][i % len(CUTS[name])] for i in range(rows)]
    temperatures = np.array([one.temperature for one in params])[:, None]
    scores = (logits - logits.max(1, keepdims=True)) / temperatures
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    device, station = supports(logits, params, p)
    assert np.array_equal(device, station)
    for _ in range(2):
        a, b = supports(logits, params, nudged(rng, p))
        assert np.array_equal(a, device) and np.array_equal(b, device)


def test_a_cut_without_a_margin_falls_between_equals(monkeypatch):
    """The control: it is the margin that the ends agree by."""
    monkeypatch.setattr(sampling, "MARGIN", 0.0)
    monkeypatch.setattr(distribution, "MARGIN", 0.0)
    for name in ("top-p", "min-p"):
        with pytest.raises(AssertionError):
            test_tied_rows_have_one_support_at_both_ends_whatever_the_last_bits(name, 5_000)


@pytest.mark.parametrize("temperature", [sampling.COLDEST, 1e-3, 0.8, 100.0])
def test_whole_rows_have_one_support_at_both_ends(temperature):
    """From logits on, with penalties, at every temperature; and the first of equals stays."""
    rng = np.random.default_rng(2)
    logits = tied(rng, 2_000) + 30.0
    history = rng.integers(0, SIZE, 12).tolist()
    kinds = [one for kind in CUTS.values() for one in kind]
    jobs = [
        verify.Job(
            (),
            history,
            Sampling(temperature, one.top_k, one.top_p, one.min_p, 1.3),
            Split(),
            bytes(32),
        )
        for one in (kinds[i % len(kinds)] for i in range(len(logits)))
    ]
    found = verify.distributions(torch.from_numpy(logits), jobs).numpy()
    for row, p, job in zip(logits, found, jobs, strict=True):
        expected = sampling.distribution(row, job.sampling, history)
        assert np.array_equal(p > 0, expected > 0), job.sampling
        assert np.abs(p - expected).max() < 1e-12
        best = int(sampling.penalised(row, job.sampling, history).argmax())
        assert expected[best] > 0


def test_of_scores_whose_exponentials_are_equal_the_larger_is_kept():
    """Also among more than are looked at first, and where rounding has turned the order round."""
    logits = np.zeros(5 * sampling.NUCLEUS)
    logits[7::2] = 1e-17  # of which an exponential at temperature 1 shows nothing
    for one in (Sampling(top_k=3), Sampling(top_p=0.4)):
        p = sampling.distribution(logits, one, ())
        assert 0 < (p > 0).sum() < len(logits) / 2 or one.top_k
        assert not p[logits == 0.0].any()
    p = np.full(4, 0.25)
    p[0] = np.nextafter(0.25, 1.0)
    sampling.cut(p, np.array([1.0, 2.0, 3.0, 3.0]), Sampling(top_k=2))
    assert np.flatnonzero(p).tolist() == [2, 3]
    assert len(largest.at_least(p, 2)) == 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_draft_without_a_largest_logit_is_an_error_under_every_rule(bad):
    row = np.full(SIZE, bad)
    for scheme, params in ((GREEDY, Sampling(0.0)), (Split(), Sampling()), (Coupled(), Sampling())):
        start = frames.Start(1, 0, [1], params, scheme, "draft", 9, [], 1)
        drafter = Drafter(FakeModel(np.stack([row] * SIZE), rows=False), start, SIZE, bytes(32))
        with pytest.raises(ValueError, match="no largest number"):
            drafter.propose([1], 1, 1)
