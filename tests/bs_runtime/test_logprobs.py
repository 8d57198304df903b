"""What is told of tokens' likelihood: of each job that asks its own rows', as they came."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from bs_runtime.verify import verify
from bs_runtime.verify.job import Job
from draftlink.distribution.noise import Purpose
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.greedy import Greedy
from draftlink.schemes.topk import TopK

SIZE = 40
SHAPED = Sampling(0.5, top_k=3, repetition_penalty=1.5, logit_bias=((2, 50.0),))


def law(rows: torch.Tensor) -> np.ndarray:
    scores = rows.double().numpy()
    return scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)


def job(scheme, count: int | None, drafted: int, seed: int) -> Job:
    rng = np.random.default_rng(seed)
    tokens = [Drafted(int(token), 1, 1) for token in rng.integers(0, SIZE, drafted)]
    if isinstance(scheme, TopK):
        q = rng.dirichlet(np.full(SIZE, 0.3), drafted)
        tokens = [scheme.propose(each, bytes(32), i) for i, each in enumerate(q)]
    suppressed = torch.tensor([0, 1, 5])
    sampling = sampling_of(scheme)
    return Job(tokens, [1, 2], sampling, scheme, bytes(32), Purpose.BONUS, seed % 2 > 0,
               suppressed, 1, count)  # fmt: skip


def sampling_of(scheme) -> Sampling:
    return Sampling(0.0) if isinstance(scheme, Greedy) else SHAPED


def test_of_each_job_that_asks_in_one_step():
    jobs, rows = [], []
    for seed in range(60):
        scheme = (Greedy(), Coupled(), TopK(6, 16))[seed % 3]
        count = (None, 0, 3, 20, 60)[seed % 5]
        jobs.append(job(scheme, count, seed % 4, seed))
        torch.manual_seed(seed)
        kind = torch.float32 if seed % 2 else torch.float64
        rows.append(3.0 * torch.randn(seed % 4 + 1, SIZE, dtype=kind))
    before = [row.clone() for row in rows]
    outcomes = verify.judge(rows, jobs)
    plain = verify.judge(before, [replace(each, logprobs=None) for each in jobs])
    told = 0
    for mine, outcome, one, bare in zip(before, outcomes, jobs, plain, strict=True):
        assert replace(outcome, logprobs=[]) == bare  # nothing else is changed by it
        if one.logprobs is None:
            assert outcome.logprobs == []
            continue
        written = [d.token for d in one.drafted[: outcome.accepted]]
        written += [] if outcome.next is None else [outcome.next]
        assert len(outcome.logprobs) == len(written)
        for row, token, each in zip(law(mine), written, outcome.logprobs, strict=False):
            assert each.own == pytest.approx(row[token], abs=1e-9)
            ids = np.argsort(-row, kind="stable")[: one.logprobs]
            assert [i for i, _ in each.top] == ids.tolist()
            assert [p for _, p in each.top] == pytest.approx(row[ids].tolist(), abs=1e-9)
            told += 1
    assert told > 48  # one of each that asks, and some that were accepted


def test_of_equals_the_lower_ids():
    rows = torch.zeros(1, SIZE)
    rows[0, 30] = 1.0
    rows[0, 7] = -torch.inf
    (outcome,) = verify.judge([rows], [job(Greedy(), 9, 0, 0)])
    (told,) = outcome.logprobs
    assert outcome.next == 30 and [i for i, _ in told.top] == [30, 0, 1, 2, 3, 4, 5, 6, 8]
    assert told.own == told.top[0][1]


def test_nothing_is_told_behind_a_row_that_holds_no_largest_number():
    rows = torch.zeros(3, SIZE)
    rows[0, 3], rows[1, 4] = 1.0, torch.nan
    one = replace(job(Greedy(), 2, 0, 0), drafted=[Drafted(3), Drafted(4)])
    (outcome,) = verify.judge([rows], [one])
    assert (outcome.accepted, outcome.next, outcome.broken) == (1, None, True)
    assert len(outcome.logprobs) == 1 and outcome.logprobs[0].top[0][0] == 3
