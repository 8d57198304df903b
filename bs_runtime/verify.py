"""Judging drafts in torch: every position of many sessions at once.

Rows stay on the target's device. Acceptance gathers the target's probabilities at the drafted ids;
only the row behind each session's last accepted token is turned into a residual and drawn from.
Speculative sampling is arXiv 2211.17192, algorithm 1; coupled drawing is in ``draftlink.gumbel``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from draftlink.sparse import Drafted, SparseRow

CPU_ELEMENTS = 1 << 16  # of rows judged together; in float64 half a megabyte, a core's own cache

_TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class Job:
    """One session's draft after ``history``. Its rows are len(drafted) + 1: one behind each token.

    ``purpose`` is what the target's own token, behind a draft that was accepted whole, is drawn
    for. Draws are functions of (key, position, purpose). ``surprisals``: whether they are wanted.
    """

    drafted: Sequence[Drafted]
    history: Sequence[int]
    sampling: Sampling
    scheme: Scheme
    key: bytes
    purpose: Purpose = Purpose.BONUS
    surprisals: bool = True


@dataclass(frozen=True)
class Outcome:
    """The first ``accepted`` tokens stand; ``following`` is the target's token behind them.

    It is None after a rejection that the device corrects. ``surprisals``: −log2 p, in bits, of the
    accepted tokens and of ``following``, if the job wants them.
    """

    accepted: int
    following: int | None
    surprisals: list[float]


def judge(rows: Sequence[Tensor], jobs: Sequence[Job]) -> list[Outcome]:
    """Judge every job; ``rows`` holds the logits (len(drafted) + 1, V) of each."""
    outcomes: dict[int, Outcome] = {}
    for group in _groups(rows, jobs):
        found = _judge(torch.cat([rows[i] for i in group]), [jobs[i] for i in group])
        outcomes.update(zip(group, found, strict=True))
    return [outcomes[i] for i in range(len(jobs))]


def _groups(rows: Sequence[Tensor], jobs: Sequence[Job]) -> Iterator[list[int]]:
    """Which jobs are judged together: on a GPU all, on a CPU those whose rows fit its cache.

    Jobs that need no probabilities are kept apart, as they cost much less.
    """
    for bare in (True, False):
        group: list[int] = []
        elements = 0
        for i, job in enumerate(jobs):
            if _is_bare(job) is not bare:
                continue
            if group and rows[i].device.type == "cpu" and elements + rows[i].numel() > CPU_ELEMENTS:
                yield group
                group, elements = [], 0
            group.append(i)
            elements += rows[i].numel()
        if group:
            yield group


def _is_bare(job: Job) -> bool:
    """Whether the arg max of the logits is all that is wanted of the target."""
    plain = job.sampling.repetition_penalty == 1.0
    return job.scheme.rule == "greedy" and plain and not job.surprisals


def _judge(logits: Tensor, jobs: Sequence[Job]) -> list[Outcome]:
    counts = [len(job.drafted) for job in jobs]
    begins = np.cumsum([0, *(count + 1 for count in counts)])[:-1].tolist()
    p = logits if all(map(_is_bare, jobs)) else distributions(logits, jobs)
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
    told = []
    for job, begin, n, token in zip(jobs, begins, accepted, following, strict=True):
        emitted = [d.token for d in job.drafted[:n]] + ([] if token is None else [token])
        told.append(len(emitted) if job.surprisals else 0)
        rows += range(begin, begin + told[-1])
        tokens += emitted[: told[-1]]
    bits = (-torch.log2(_at(p, rows, tokens))).tolist() if rows else []
    outcomes, at = [], 0
    for n, token, count in zip(accepted, following, told, strict=True):
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

    It is p(x) for a token of the outermost row. What is known of q̂ below depends on the rest's
    having been drawn, an event of probability t: there the target is what ``_passed`` down to it.
    """
    found = _at(p, rows, [d.token for d in drafted])
    below = [i for i, d in enumerate(drafted) if d.above]
    if not below:
        return found
    left = p[[rows[i] for i in below]]
    for tier in _tiers([drafted[i].above for i in below], p):
        left[tier.index] = _passed(left[tier.index].index_put(tier.entries, tier.zero), tier)
    tokens = [drafted[i].token for i in below]
    return found.index_put(
        (torch.tensor(below, device=p.device),), _at(left, range(len(below)), tokens)
    )


def residuals(p: Tensor, drafted: Sequence[Drafted | None]) -> Tensor:
    """What is drawn from after a rejection, (n, V), not normalised; p itself where it is None.

    max(0, p − q̂) for a token of a single row. In general, of the event that the draw came down to
    the rejected token's row: its ids' max(0, wanted − q̂); of the ids below, what is not passed
    down; and where the rows above passed less down than their rest, what they lack themselves, by
    their own residual.

    After a rejection its mass is above 0. Where rounding leaves none (p and q̂ equal to the last
    bits), p itself is the limit.
    """
    left, law = p.clone(), p.clone()  # what is still wanted of ids not yet listed; the residual
    paths = [() if d is None else d.path(p.shape[1]) for d in drafted]
    for depth, tier in enumerate(_tiers(paths, p)):
        mine = left[tier.index]
        below = mine.index_put(tier.entries, tier.zero)
        passed = _passed(below, tier)
        over = (mine[tier.entries] - tier.shares).clamp_(min=0.0)
        rest = (below - passed).index_put_(tier.entries, over)
        if depth:
            outer = law[tier.index]
            lacking = (tier.reach - mine.sum(-1)).clamp_(min=0.0)
            rest += outer * (lacking / outer.sum(-1).clamp_(min=_TINY))[:, None]
        law[tier.index], left[tier.index] = rest, passed
    return torch.where(law.sum(-1, keepdim=True) > 0.0, law, p)


@dataclass(frozen=True)
class _Tier:
    """The rows of one depth, of those that have one there; reach and q̂ are of the whole."""

    index: Tensor  # (m,), whose they are
    entries: tuple[Tensor, Tensor]  # which of the m, and the id, of each listed id
    shares: Tensor  # q̂ of each listed id
    reach: Tensor  # (m,), the probability of coming here
    rest: Tensor  # (m,), and of going on
    least: Tensor  # (m,), the smallest share of the row
    zero: Tensor


def _tiers(paths: Sequence[Sequence[SparseRow]], like: Tensor) -> Iterator[_Tier]:
    def tensor(values: Sequence[float] | np.ndarray) -> Tensor:
        return torch.as_tensor(values, dtype=like.dtype, device=like.device)

    reach = [1.0] * len(paths)
    for depth in range(max(map(len, paths), default=0)):
        here = [i for i, path in enumerate(paths) if len(path) > depth]
        rows = [paths[i][depth] for i in here]
        shares = [reach[i] * row.probabilities() for i, row in zip(here, rows, strict=True)]
        came = [reach[i] for i in here]
        for i, row in zip(here, rows, strict=True):
            reach[i] *= row.rest / row.total
        where = np.repeat(np.arange(len(here)), [len(row.ids) for row in rows])
        ids = np.concatenate([row.ids for row in rows])
        yield _Tier(
            torch.tensor(here, device=like.device),
            (torch.from_numpy(where).to(like.device), torch.from_numpy(ids).to(like.device)),
            tensor(np.concatenate(shares)),
            tensor(came),
            tensor([reach[i] for i in here]),
            tensor([share.min(initial=1.0) for share in shares]),
            like.new_zeros(()),
        )


def _passed(below: Tensor, tier: _Tier) -> Tensor:
    """What of ``below`` (m, V), wanted of the ids that rows do not list, is passed down.

    All of it, unless it is more than the rest's probability: then the other events have to write
    what is over, without knowing the rows below. It is taken, as far as it goes, from what exceeds
    the row's smallest share, for below no id of a Top-K row has more; and then from all alike.
    """
    capped = torch.minimum(below, tier.least[:, None])
    low, high = capped.sum(-1), below.sum(-1)
    kept = (tier.rest / low.clamp(min=_TINY)).clamp_(max=1.0)
    kept_above = ((tier.rest - low) / (high - low).clamp_(min=_TINY)).clamp_(0.0, 1.0)
    return capped * kept[:, None] + (below - capped) * kept_above[:, None]


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
        best = _rows(p, rows["greedy"]).argmax(-1)
        picks.update(zip(rows["greedy"], best.tolist(), strict=True))
    if rows["coupled"]:
        racing = _rows(p, rows["coupled"])
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


def _rows(p: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows of p, all different; no copy if it is all of them."""
    return p if len(rows) == len(p) else p[rows]


def _column(like: Tensor, values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device)[:, None]


def _renormalised(p: Tensor, where: Tensor) -> Tensor:
    return torch.where(where, p / p.sum(-1, keepdim=True), p)


def _at(p: Tensor, rows: Sequence[int], tokens: Sequence[int]) -> Tensor:
    """Entries (n,) of p at (row, token)."""
    index = torch.tensor([rows, tokens], dtype=torch.long, device=p.device)
    return p[index[0], index[1]]
