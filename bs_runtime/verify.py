"""Judging drafts in torch: every position of every session of a step at once.

Rows stay on the target's device. Acceptance gathers the target's probabilities at the drafted ids;
only the row behind each session's last accepted token is turned into a residual and drawn from.
Speculative sampling is arXiv 2211.17192, algorithm 1; coupled drawing is in ``draftlink.gumbel``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from draftlink import noise
from draftlink.gumbel import pick_many
from draftlink.noise import Purpose
from draftlink.sampling import Sampling
from draftlink.schemes import Scheme
from draftlink.schemes.base import Rule
from draftlink.sparse import Drafted


@dataclass(frozen=True)
class Job:
    """One session's draft after ``history``. Its rows are len(drafted) + 1: one behind each token.

    ``purpose`` is what the target's own token, behind a draft that was accepted whole, is drawn
    for. Draws are functions of (key, position, purpose).
    """

    drafted: Sequence[Drafted]
    history: Sequence[int]
    sampling: Sampling
    scheme: Scheme
    key: bytes
    purpose: Purpose = Purpose.BONUS


@dataclass(frozen=True)
class Outcome:
    """The first ``accepted`` tokens stand; ``following`` is the target's token behind them.

    It is None after a rejection that the device corrects. ``surprisals``: −log2 p, in bits, of the
    accepted tokens and of ``following``.
    """

    accepted: int
    following: int | None
    surprisals: list[float]


def judge(logits: Tensor, jobs: Sequence[Job]) -> list[Outcome]:
    """Judge every job; ``logits`` (R, V) holds their rows one after the other."""
    counts = [len(job.drafted) for job in jobs]
    begins = np.cumsum([0, *(count + 1 for count in counts)])[:-1].tolist()
    p = distributions(logits, jobs)
    picked = own_picks(p, jobs, begins)
    stands = accepted_positions(p, jobs, begins, picked)
    accepted, at = [], 0
    for count in counts:
        run = stands[at : at + count]
        accepted.append(count if run.all() else int(run.argmin()))
        at += count
    ends = [begin + n for begin, n in zip(begins, accepted, strict=True)]
    following = _following(p, jobs, accepted, ends, picked)
    rows: list[int] = []
    tokens: list[int] = []
    for job, begin, n, token in zip(jobs, begins, accepted, following, strict=True):
        emitted = [d.token for d in job.drafted[:n]] + ([] if token is None else [token])
        rows += range(begin, begin + len(emitted))
        tokens += emitted
    bits = (-torch.log2(_at(p, rows, tokens))).tolist()
    outcomes, at = [], 0
    for n, token in zip(accepted, following, strict=True):
        count = n + (token is not None)
        outcomes.append(Outcome(n, token, bits[at : at + count]))
        at += count
    return outcomes


def distributions(logits: Tensor, jobs: Sequence[Job]) -> Tensor:
    """The distribution (R, V), float64, of each row: ``sampling.distribution``, in torch.

    Greedy rows come out as the distribution at temperature 1, whose arg max is the same.
    """
    params = [job.sampling for job in jobs for _ in range(len(job.drafted) + 1)]
    scores = logits.double()
    if any(p.repetition_penalty != 1.0 for p in params):
        scores = _penalised(scores, jobs)
    scores = scores / _column(scores, [p.temperature or 1.0 for p in params])
    size = scores.shape[1]
    p = torch.softmax(scores, dim=-1)
    limits = [s.top_k for s in params]
    if any(0 < limit < size for limit in limits):
        largest = p.topk(min(max(limits), size), dim=-1).values
        index = [(min(limit, size) or size) - 1 for limit in limits]  # any limit fits an int64
        edge = largest.gather(1, _column(p, index).long().clamp_(max=largest.shape[1] - 1))
        off = _column(p, [not 0 < limit < size for limit in limits]).bool()
        p = _renormalised(torch.where((p >= edge) | off, p, 0.0), ~off)
    if any(s.top_p < 1.0 for s in params):
        ordered, order = p.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        mass = _column(p, [s.top_p for s in params])
        drop = torch.zeros_like(p, dtype=torch.bool).scatter_(1, order, before >= mass)
        on = mass < 1.0
        p = _renormalised(torch.where(drop & on, 0.0, p), on)
    if any(s.min_p > 0.0 for s in params):
        least = _column(p, [s.min_p for s in params])
        drop = p < least * p.amax(-1, keepdim=True)
        p = _renormalised(torch.where(drop, 0.0, p), least > 0.0)
    return p


def accepts(p: Tensor, drafted: Sequence[Drafted], uniforms: Sequence[float]) -> Tensor:
    """Accept with probability min(1, p(x) / q̂(x)); p (n,) is wanted of the drafted tokens."""
    counts = torch.tensor([d.reach * d.count for d in drafted], dtype=p.dtype, device=p.device)
    totals = torch.tensor([float(d.total) for d in drafted], dtype=p.dtype, device=p.device)
    return torch.tensor(uniforms, dtype=p.dtype, device=p.device) * counts < p * totals


def wanted(p: Tensor, rows: Sequence[int], drafted: Sequence[Drafted]) -> Tensor:
    """What the target wants of each drafted token, (n,); p (R, V), ``rows`` (n,) of it.

    It is p(x) for a token of the outermost row. Below, what is known of q̂ depends on the rest's
    having been drawn, and p must be matched within that event, of probability t. Where p has
    more than t there, the other events have to write what is over, each id alike in proportion to
    p: of p(x) only the share min(1, t / p(rest)) is wanted, the least of all rests above.
    """
    found = _at(p, rows, [d.token for d in drafted])
    below = [i for i, d in enumerate(drafted) if d.above]
    if not below:
        return found
    above = [drafted[i].above for i in below]
    ends = [np.cumsum([len(row.ids) for row in tiers]) for tiers in above]
    size, depth = max(int(e[-1]) for e in ends), max(map(len, above))
    ids = np.zeros((len(below), max(size, 1)), dtype=np.int64)
    last = np.zeros((len(below), depth), dtype=np.int64)
    reach = np.full((len(below), depth), np.inf)
    for i, (tiers, end) in enumerate(zip(above, ends, strict=True)):
        ids[i, : end[-1]] = np.concatenate([row.ids for row in tiers])
        last[i, : len(end)] = end
        reach[i, : len(end)] = np.cumprod([row.rest / row.total for row in tiers])
    at = torch.tensor([rows[i] for i in below], device=p.device)[:, None]
    listed = p[at, torch.from_numpy(ids).to(p.device)].cumsum(-1)
    listed = torch.nn.functional.pad(listed, (1, 0)).gather(1, torch.from_numpy(last).to(p.device))
    rest = (1.0 - listed).clamp_(min=torch.finfo(p.dtype).tiny)
    share = (torch.from_numpy(reach).to(p) / rest).amin(-1).clamp_(max=1.0)
    return found.index_put((torch.tensor(below, device=p.device),), share * found[below])


def residuals(p: Tensor, drafted: Sequence[Drafted | None]) -> Tensor:
    """What is drawn from after a rejection, (n, V), not normalised; p itself where it is None.

    max(0, p − q̂) for a token of a single row. In general, of the event that the draw came down to
    the rejected token's row: its ids' max(0, wanted − q̂); of the ids below, what the rest leaves
    to be wanted; and where the rows above wanted less below than their rest, what they lack
    themselves, by their own residual.

    After a rejection its mass is above 0. Where rounding leaves none (p and q̂ equal to the last
    bits), p itself is the limit.
    """
    paths = [() if d is None else d.path(p.shape[1]) for d in drafted]
    left, law = p.clone(), p.clone()  # what is still wanted of ids not yet listed; the residual
    reach = [1.0] * len(paths)
    for tier in range(max(map(len, paths))):
        here = [i for i, path in enumerate(paths) if len(path) > tier]
        found = [paths[i][tier] for i in here]
        index = torch.tensor(here, device=p.device)
        shares = [reach[i] * row.probabilities() for i, row in zip(here, found, strict=True)]
        where = np.repeat(np.arange(len(here)), [len(row.ids) for row in found])
        ids = np.concatenate([row.ids for row in found])
        entries = tuple(torch.from_numpy(x).to(p.device) for x in (where, ids))
        came = torch.tensor([reach[i] for i in here], dtype=p.dtype, device=p.device)
        for i, row in zip(here, found, strict=True):
            reach[i] *= row.rest / row.total
        gone = torch.tensor([reach[i] for i in here], dtype=p.dtype, device=p.device)
        mine = left[index]
        over = (mine[entries] - torch.from_numpy(np.concatenate(shares)).to(p.device)).clamp_(min=0)
        below = mine.index_put(entries, p.new_zeros(()))
        passed = (gone / below.sum(-1).clamp_(min=torch.finfo(p.dtype).tiny)).clamp_(max=1.0)
        rest = (below * (1.0 - passed)[:, None]).index_put_(entries, over)
        if tier:
            lacking = (came - mine.sum(-1)).clamp_(min=0.0)
            outer = law[index]
            rest += outer * (lacking / outer.sum(-1).clamp_(min=torch.finfo(p.dtype).tiny))[:, None]
        law[index] = rest
        left[index] = below * passed[:, None]
    return torch.where(law.sum(-1, keepdim=True) > 0.0, law, p)


def draw(weights: Tensor, uniforms: Sequence[float]) -> list[int]:
    """Per row of weights (n, V), not normalised: the token whose share holds the uniform."""
    edges = weights.cumsum(-1)
    total = edges[:, -1:]
    u = torch.tensor(uniforms, dtype=weights.dtype, device=weights.device)[:, None]
    index = torch.searchsorted(edges, u * total, right=True)
    # u * total can round up to the total; the token that ends there is then the right one.
    last = torch.searchsorted(edges, total.contiguous())
    tokens: list[int] = torch.minimum(index, last)[:, 0].tolist()
    return tokens


def own_picks(p: Tensor, jobs: Sequence[Job], begins: Sequence[int]) -> dict[int, int]:
    """Row to the target's own token, for the rows whose token is known without the draft."""
    rows: dict[Rule, list[int]] = {"greedy": [], "coupled": [], "sample": []}
    keys: list[bytes] = []
    positions: list[int] = []
    for job, begin in zip(jobs, begins, strict=True):
        count = len(job.drafted) + 1
        rows[job.scheme.rule] += range(begin, begin + count)
        if job.scheme.rule == "coupled":
            keys += [job.key] * count
            positions += range(len(job.history), len(job.history) + count)
    picks: dict[int, int] = {}
    if rows["greedy"]:
        best = p[rows["greedy"]].argmax(-1)
        picks.update(zip(rows["greedy"], best.tolist(), strict=True))
    if rows["coupled"]:
        racing = p[rows["coupled"]]
        # On the CPU numpy is the faster of the two, and draws the same.
        drawn = pick_many(keys, positions, racing if racing.is_cuda else racing.numpy())
        picks.update(zip(rows["coupled"], drawn.tolist(), strict=True))
    return picks


def accepted_positions(
    p: Tensor, jobs: Sequence[Job], begins: Sequence[int], picked: dict[int, int]
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether each drafted token of each job would stand on its own, one after the other."""
    stands: list[bool] = []
    places: list[int] = []  # in ``stands``, of the tokens that are judged by chance
    rows: list[int] = []
    drafted: list[Drafted] = []
    uniforms: list[float] = []
    for job, begin in zip(jobs, begins, strict=True):
        for i, token in enumerate(job.drafted):
            row = begin + i
            stands.append(picked.get(row, -1) == token.token)
            if row not in picked:
                places.append(len(stands) - 1)
                rows.append(row)
                drafted.append(token)
                position = len(job.history) + i
                uniforms.append(noise.uniform(job.key, position, Purpose.ACCEPT))
    out = np.array(stands, dtype=np.bool_)
    if rows:
        sampled = accepts(wanted(p, rows, drafted), drafted, uniforms)
        out[places] = sampled.numpy(force=True)
    return out


def _following(
    p: Tensor,
    jobs: Sequence[Job],
    accepted: Sequence[int],
    ends: Sequence[int],
    picked: dict[int, int],
) -> list[int | None]:
    """The target's token behind each job's accepted ones; None where the device corrects."""
    following: list[int | None] = [picked.get(end) for end in ends]
    drawn: list[int] = []
    rejections: list[Drafted | None] = []
    uniforms: list[float] = []
    for j, (job, n) in enumerate(zip(jobs, accepted, strict=True)):
        rejected = n < len(job.drafted)
        if following[j] is not None or (rejected and job.scheme.corrects == "device"):
            continue
        purpose = Purpose.RESIDUAL if rejected else job.purpose
        drawn.append(j)
        rejections.append(job.drafted[n] if rejected else None)
        uniforms.append(noise.uniform(job.key, len(job.history) + n, purpose))
    if drawn:
        weights = residuals(p[[ends[j] for j in drawn]], rejections)
        for j, token in zip(drawn, draw(weights, uniforms), strict=True):
            following[j] = token
    return following


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


def _column(like: Tensor, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _renormalised(p: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, p / p.sum(-1, keepdim=True), p)


def _at(p: Tensor, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """Entries (n,) of p at (row, token)."""
    index = torch.tensor([rows, tokens], dtype=torch.long, device=p.device)
    return p[index[0], index[1]]
