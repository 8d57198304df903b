"""The target's distribution after a request's sampling parameters, in torch, row by row at once.

What it must be is said by ``draftlink.distribution.sampling``, of which this is the same in torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bs_runtime.verify.job import Job
from draftlink.distribution.sampling import MARGIN, Sampling


def distributions(logits: Tensor, jobs: Sequence[Job]) -> Tensor:
    """The distribution (R, V), float64, of each row: ``sampling.distribution``, in torch.

    Greedy rows come out as the distribution at temperature 1, whose arg max is the same.
    """
    params = [job.sampling for job in jobs for _ in range(len(job.drafted) + 1)]
    scores = logits.double()
    if not all(p.plain for p in params):
        scores = _lessened(_penalised(_biased(scores, jobs), jobs), jobs)
    # The largest goes first: by a low temperature it can become so large that its rounding is seen.
    cold = (scores - scores.amax(-1, keepdim=True)).div_(
        _column(scores, [p.temperature or 1.0 for p in params])
    )
    return cut(torch.softmax(cold, dim=-1), scores, params)


def cut(p: Tensor, scores: Tensor, params: Sequence[Sampling]) -> Tensor:
    """``sampling.cut``, in torch: what of p (R, V), which comes from ``scores``, is allowed."""
    size = p.shape[1]
    limits = [s.top_k for s in params]
    if any(0 < limit < size for limit in limits):
        largest = scores.topk(min(max(limits), size), dim=-1).values
        index = [(min(limit, size) or size) - 1 for limit in limits]  # any limit fits an int64
        edge = largest.gather(1, _column(p, index).long().clamp_(max=largest.shape[1] - 1))
        off = _column(p, [not 0 < limit < size for limit in limits]).bool()
        p = _renormalised(torch.where((scores >= edge) | off, p, 0.0), ~off)
    if any(s.top_p < 1.0 for s in params):
        order = scores.sort(dim=-1, descending=True, stable=True).indices
        ordered = p.gather(1, order)
        before = ordered.cumsum(-1) - ordered
        before[:, 0] = -1.0  # the first stays, however little is asked for
        mass = _column(p, [s.top_p for s in params])
        drop = torch.zeros_like(p, dtype=torch.bool).scatter_(1, order, before >= mass - MARGIN)
        on = mass < 1.0
        p = _renormalised(torch.where(drop & on, 0.0, p), on)
    if any(s.min_p > 0.0 for s in params):
        least = _column(p, [s.min_p for s in params])
        drop = p < least * (1.0 - MARGIN) * p.amax(-1, keepdim=True)
        p = _renormalised(torch.where(drop, 0.0, p), least > 0.0)
    return p


def _penalised(scores: Tensor, jobs: Sequence[Job]) -> Tensor:
    """Scores after each position's repetition penalty over history and drafted prefix."""
    where, ids, penalties = [], [], []
    row = 0
    for job in jobs:
        past = list(job.history)
        for token in (*job.drafted, None):
            if job.sampling.repetition_penalty != 1.0 and past:
                seen = np.unique(np.asarray(past, dtype=np.int64))
                where.append(np.full(len(seen), row))
                ids.append(seen)
                penalties.append(np.full(len(seen), job.sampling.repetition_penalty))
            row += 1
            if token is not None:
                past.append(token.token)
    if not where:
        return scores
    index = tuple(torch.from_numpy(np.concatenate(x)).to(scores.device) for x in (where, ids))
    penalty = torch.from_numpy(np.concatenate(penalties)).to(scores.device)
    found = scores[index]
    return scores.index_put(index, torch.where(found > 0, found / penalty, found * penalty))


def _biased(scores: Tensor, jobs: Sequence[Job]) -> Tensor:
    """Scores after each job's bias, the same for all of its positions."""
    where, ids, added = [], [], []
    row = 0
    for job in jobs:
        biased, values = job.sampling.bias
        known = biased < scores.shape[1]
        for at in range(row, row + len(job.drafted) + 1):
            where.append(np.full(known.sum(), at))
            ids.append(biased[known])
            added.append(values[known])
        row += len(job.drafted) + 1
    return _plus(scores, where, ids, added)


def _lessened(scores: Tensor, jobs: Sequence[Job]) -> Tensor:
    """Scores after each position's penalties for how often tokens were written before it."""
    where, ids, added = [], [], []
    row = 0
    for job in jobs:
        sampling, written = job.sampling, list(job.history[job.begins :])
        for token in (*job.drafted, None):
            if sampling.counts and written:
                found, times = np.unique(np.asarray(written, dtype=np.int64), return_counts=True)
                where.append(np.full(len(found), row))
                ids.append(found)
                added.append(-(sampling.frequency * times + sampling.presence))
            row += 1
            if token is not None:
                written.append(token.token)
    return _plus(scores, where, ids, added)


def _plus(
    scores: Tensor,
    where: Sequence[NDArray[np.int64]],
    ids: Sequence[NDArray[np.int64]],
    added: Sequence[NDArray[np.floating]],
) -> Tensor:
    """Scores, to some of which something is added: rows and ids, each pair once."""
    if not sum(map(len, ids)):
        return scores
    index = tuple(torch.from_numpy(np.concatenate(x)).to(scores.device) for x in (where, ids))
    return scores.index_put(
        index, scores[index] + torch.from_numpy(np.concatenate(added)).to(scores.device)
    )


def _column(like: Tensor, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _renormalised(p: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, p / p.sum(-1, keepdim=True), p)
