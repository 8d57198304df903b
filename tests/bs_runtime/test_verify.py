"""The torch half of verification: the same distributions as the device's, many jobs at once."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bs_runtime.verify import residual, verify
from draftlink.distribution import noise, sampling
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted
from draftlink.schemes import GREEDY
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.dense import Dense
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK
from tests.fake_models import random_logits

SIZE = 40
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
PARAMS = [
    Sampling(),
    Sampling(temperature=0.3),
    Sampling(top_k=3),
    Sampling(top_k=SIZE + 5),
    Sampling(top_p=0.4),
    Sampling(min_p=0.2),
    Sampling(repetition_penalty=1.7),
    Sampling(temperature=2.0, top_k=9, top_p=0.7, min_p=0.05, repetition_penalty=0.6),
]


def job(params: Sampling, scheme, gamma: int, seed: int) -> verify.Job:
    rng = np.random.default_rng(seed)
    key = noise.key_from_seed(seed, "device")
    history = rng.integers(0, SIZE, 1 + seed % 6).tolist()
    q = rng.dirichlet(np.full(SIZE, 0.3), gamma)
    drafted = [scheme.propose(row, key, len(history) + j) for j, row in enumerate(q)]
    if scheme.corrects == "device":
        drafted = [Drafted(d.token, d.count, d.total) for d in drafted]
    return verify.Job(drafted, history, params, scheme, noise.key_from_seed(seed, "bs"))


@pytest.mark.parametrize("device", DEVICES)
def test_distributions_equal_the_device_sides(device):
    """Requests with different parameters in one step, each row after its own drafted prefix."""
    jobs = [job(params, TopK(), 3, seed) for seed, params in enumerate(PARAMS)]
    logits = torch.tensor(random_logits(0, SIZE)[: 4 * len(jobs)], dtype=torch.float32)
    logits[:, 5] = -torch.inf
    found = verify.distributions(logits.to(device), jobs).cpu().numpy()
    for i, one in enumerate(jobs):
        past = list(one.history)
        for j in range(4):
            row = logits[4 * i + j].numpy()
            wanted = sampling.distribution(row, one.sampling, past)
            assert np.abs(found[4 * i + j] - wanted).max() < 1e-12, (one.sampling, j)
            past += [one.drafted[j].token] if j < 3 else []


@pytest.mark.parametrize("device", DEVICES)
def test_jobs_of_a_step_do_not_disturb_each_other(device):
    """Sessions of every scheme, with drafts of every length, judged at once and one by one."""
    kinds = [
        TopK(8, 64),
        TopK(1, 8, tiers=2),
        Dense(),
        Split(8, 64),
        Coupled(),
        GREEDY,
        TopK(4, 1, "fp16"),
    ]
    jobs = [
        replace(job(PARAMS[i % len(PARAMS)], kinds[i % len(kinds)], i % 5, i), surprisals=i % 3 > 0)
        for i in range(120)
    ]
    random = np.random.default_rng(0)
    rows = [
        torch.tensor(
            random.normal(0, 1.5, (len(j.drafted) + 1, SIZE)), dtype=torch.float32, device=device
        )
        for j in jobs
    ]
    together = verify.judge(rows, jobs)
    kinds_seen = set()
    for one, mine, outcome in zip(jobs, rows, together, strict=True):
        # Told of its surprisals, a greedy job is judged by its distribution, not by logits alone.
        (alone,) = verify.judge([mine], [replace(one, surprisals=True)])
        assert (alone.accepted, alone.next) == (outcome.accepted, outcome.next)
        rejected = outcome.accepted < len(one.drafted)
        assert (outcome.next is None) == (rejected and one.scheme.corrects == "device")
        told = alone.surprisals if one.surprisals else []
        assert np.allclose(told, outcome.surprisals)
        assert len(told) == one.surprisals * (outcome.accepted + (outcome.next is not None))
        kinds_seen.add((type(one.scheme), rejected, one.surprisals))
    assert len(kinds_seen) >= 4 * len({type(k) for k in kinds})


def test_on_a_cpu_rows_are_judged_in_parts_that_fit_its_cache(monkeypatch):
    sizes = []
    judge = verify._judge
    monkeypatch.setattr(
        verify, "_judge", lambda logits, jobs: sizes.append(len(jobs)) or judge(logits, jobs)
    )
    monkeypatch.setattr(verify, "CPU_ELEMENTS", 12 * SIZE)
    bare = [replace(job(PARAMS[0], GREEDY, 4, i), surprisals=False) for i in range(3)]
    jobs = [*(job(PARAMS[0], Dense(), 4, i) for i in range(5)), *bare]
    rows = [torch.tensor(random_logits(i, SIZE)[:5]) for i in range(len(jobs))]
    assert len(verify.judge(rows, jobs)) == len(jobs)
    assert sizes == [2, 1, 2, 2, 1]


@pytest.mark.parametrize("device", DEVICES)
def test_each_job_suppresses_its_own_ids(device):
    """As if their logits had been −∞; the target's rows are kept as they are."""
    kinds = [TopK(8, 64), Dense(), Split(8, 64), Coupled(), GREEDY]
    random = np.random.default_rng(0)
    jobs, rows, left = [], [], []
    for i in range(40):
        one = job(PARAMS[i % len(PARAMS)], kinds[i % len(kinds)], i % 4, i)
        mine = torch.tensor(random.normal(0, 1.5, (len(one.drafted) + 1, SIZE)), device=device)
        ids = torch.tensor(sorted(random.choice(SIZE, i % 7 * 5, replace=False).tolist()))
        rows.append(mine)
        left.append(mine.clone())
        if len(ids):
            left[-1][:, ids] = -torch.inf
        jobs.append(replace(one, surprisals=i % 2 > 0, suppressed=ids if len(ids) else None))
    before = [mine.clone() for mine in rows]
    free = [replace(one, suppressed=None) for one in jobs]
    found = verify.judge(rows, jobs)
    assert found == verify.judge(left, free) != verify.judge(rows, free)
    assert all(torch.equal(a, b) for a, b in zip(before, rows, strict=True))


@pytest.mark.parametrize("scheme", [TopK(8, 64), Split(8, 64), Coupled(), GREEDY])
def test_nothing_is_drawn_where_all_that_could_be_is_suppressed(scheme):
    one = replace(job(PARAMS[0], scheme, 0, 1), suppressed=torch.arange(3, SIZE))
    rows = torch.zeros(1, SIZE)
    rows[:, :3] = -torch.inf
    (outcome,) = verify.judge([rows], [one])
    assert outcome.broken and outcome.next is None
    (outcome,) = verify.judge([rows], [replace(one, suppressed=torch.arange(4, SIZE))])
    assert outcome.next == 3 and not outcome.broken


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, "one nan"])
@pytest.mark.parametrize("scheme", [TopK(8, 64), Dense(), Split(8, 64), Coupled(), GREEDY])
@pytest.mark.parametrize("bare", [True, False])
def test_nothing_is_drawn_from_a_row_without_a_largest_logit(device, bad, scheme, bare):
    """By no rule; what was accepted before it stands, and the jobs beside it are as without it."""
    # ``bare``: greedy by logits alone.
    temperature = 0.0 if scheme is GREEDY else 1.5
    params = Sampling(temperature, 20, 0.9, 0.01, 1.0 if bare else 1.7)
    random = np.random.default_rng(4)
    seen = set()
    for seed in range(30):
        good = [replace(job(params, scheme, 4, 60 + i), surprisals=not bare) for i in range(2)]
        one = replace(job(params, scheme, 4, seed), surprisals=not bare)
        rows = [torch.tensor(random.normal(0, 1, (5, SIZE)), device=device) for _ in range(3)]
        for j, token in enumerate(one.drafted):  # a draft that stands more often than not
            rows[1][j, token.token] += 3.0
        (clean,) = verify.judge([rows[1]], [one])
        place = seed % 5
        spoilt = rows[1].clone()
        if bad == "one nan":
            spoilt[place, 7] = np.nan
        else:
            spoilt[place] = bad
        jobs = [good[0], one, good[1]]
        before, outcome, after = verify.judge([rows[0], spoilt, rows[2]], jobs)
        assert [before, after] == verify.judge([rows[0], rows[2]], good)
        if clean.accepted < place:
            assert outcome == clean  # the row is behind the end of the text
        else:
            assert (outcome.accepted, outcome.next) == (place, None) and outcome.broken
            assert outcome.surprisals == clean.surprisals[:place]
        seen.add(outcome.broken)
    assert seen == {True, False}


def test_surprisals_are_the_targets():
    one = job(Sampling(temperature=0.7), Coupled(), 4, 3)
    logits = torch.tensor(random_logits(1, SIZE)[:5])
    p = verify.distributions(logits, [one]).numpy()
    (outcome,) = verify.judge([logits], [one])
    tokens = [d.token for d in one.drafted[: outcome.accepted]] + [outcome.next]
    assert np.allclose(outcome.surprisals, [-np.log2(p[i, t]) for i, t in enumerate(tokens)])


def test_a_residual_that_rounding_leaves_empty_is_the_target_itself():
    row = TopK(SIZE, 8, tiers=1).row(np.full(SIZE, 1 / SIZE))
    p = torch.zeros(2, SIZE, dtype=torch.float64)
    p[:, row.ids] = torch.from_numpy(row.probabilities())
    p[1] = 1 / SIZE
    rest = verify.residuals(p, [Drafted.of(row, 0), None])
    assert torch.equal(rest, p)


@pytest.mark.parametrize("uniform", [0.0, 0.25, 0.999, np.nextafter(1.0, 0.0)])
def test_a_token_without_mass_is_never_drawn(uniform):
    weights = torch.tensor([[0.0, 0.5, 0.0, 1e-300, 0.0], [0.1, 0.2, 0.3, 0.0, 0.0]]).double()
    for token, row in zip(verify.draw(weights, [uniform] * 2), weights, strict=True):
        assert row[token] > 0
        assert token == sampling.draw(row.numpy(), uniform)


@pytest.mark.parametrize(
    "scheme", [TopK(1, 4, tiers=2), TopK(2, 8), TopK(4, 64, tiers=5), TopK(3, 9, tiers=1)]
)
def test_one_row_at_a_time_is_judged_as_all_at_once(scheme):
    """On a CPU rows go one by one, through numpy, on a GPU together: with the same formulas."""
    size, rng, key = 90, np.random.default_rng(3), noise.key_from_seed(2, "device")
    p = rng.dirichlet(np.full(size, 0.3), 120)
    q = np.stack([rng.dirichlet(np.full(size, c)) for c in rng.choice([0.02, 0.3, 5.0], 120)])
    q[::3] = p[::3]  # all but equal, where rests are passed down whole
    q = (q + 1e-9) / (q + 1e-9).sum(-1, keepdims=True)
    drafted = [scheme.propose(row, key, i) for i, row in enumerate(q)]
    p_all = torch.from_numpy(p)
    rows, below = range(120), [i for i, d in enumerate(drafted) if d.above]
    found = residual.entries(p_all, rows, [d.token for d in drafted])
    together = residual._wanted_below(p_all, rows, drafted, found, below) if below else found
    assert bool(below) == (scheme.tiers > 1)
    alone = residual.wanted(p_all, rows, drafted)
    assert (alone - together).abs().max() < 1e-14
    paths = [d.path(size) for d in drafted]
    assert (
        residual.residuals(p_all, drafted) - residual._residuals(p_all, paths)
    ).abs().max() < 1e-14
    assert torch.equal(p_all, torch.from_numpy(p))  # nothing was written to it
