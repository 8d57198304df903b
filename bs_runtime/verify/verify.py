"""Judging drafts in torch: every position of many sessions at once.

Rows stay on the target's device. Acceptance gathers the target's probabilities at the drafted ids;
only the row behind each session's last accepted token is turned into a residual and drawn from.
Speculative sampling is arXiv 2211.17192, algorithm 1; coupled drawing: ``distribution.gumbel``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bs_runtime.model.forward import HAS_TRITON
from bs_runtime.verify.residual import accepts, draw, entries, residuals, wanted
from draftlink.distribution import noise
from draftlink.distribution.gumbel import pick_many
from draftlink.distribution.noise import Purpose
from draftlink.distribution.sampling import LARGEST_LOGIT, MARGIN, Sampling
from draftlink.distribution.sparse import Drafted
from draftlink.schemes import Scheme
from draftlink.schemes.base import Rule

CPU_ELEMENTS = 1 << 16  # of rows judged together; in float64 half a megabyte, a core's own cache


@dataclass(frozen=True)
class Job:
    """One session's draft after ``history``. Its rows are len(drafted) + 1: one behind each token.

    ``purpose`` is what the target's own token, behind a draft that was accepted whole, is drawn
    for. Draws are functions of (key, position, purpose). ``surprisals``: whether they are wanted.
    ``suppressed``: ids (n,) that the target is not to write, nor any draft's to stand.
    """

    drafted: Sequence[Drafted]
    history: Sequence[int]
    sampling: Sampling
    scheme: Scheme
    key: bytes
    purpose: Purpose = Purpose.BONUS
    surprisals: bool = True
    suppressed: Tensor | None = None


@dataclass(frozen=True)
class Outcome:
    """The first ``accepted`` tokens stand; ``following`` is the target's token behind them.

    It is None after a rejection that the device corrects. ``surprisals``: −log2 p, in bits, of the
    accepted tokens and of ``following``, if the job wants them. ``broken``: the row behind the
    accepted tokens has no largest number, so nothing can be drawn from it.
    """

    accepted: int
    following: int | None
    surprisals: list[float]
    broken: bool = False


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
    """Judge jobs by their rows (R, V), a copy of the target's, which is written to."""
    counts = [len(job.drafted) for job in jobs]
    begins = np.cumsum([0, *(count + 1 for count in counts)])[:-1].tolist()
    broken = _broken(logits)
    if _suppress(logits, jobs, begins):  # nothing may be left that can be drawn
        broken = sorted({*broken, *_broken(logits)})
    if broken:  # so that it does not spoil what is done for all rows at once
        logits = logits.index_fill(0, torch.tensor(broken, device=logits.device), 0.0)
    p = logits if all(map(_is_bare, jobs)) else distributions(logits, jobs)
    picked = own_picks(p, jobs, begins)
    stands = accepted_positions(p, jobs, begins, picked)
    if broken:
        judging = [b + i for b, n in zip(begins, counts, strict=True) for i in range(n)]
        stands &= ~np.isin(judging, broken)
    accepted, at = [], 0
    for count in counts:
        run = stands[at : at + count]
        accepted.append(count if run.all() else int(run.argmin()))
        at += count
    ends = [begin + n for begin, n in zip(begins, accepted, strict=True)]
    following = _following(p, jobs, accepted, ends, picked)
    for j, end in enumerate(ends):
        if end in broken:
            following[j] = None
    rows: list[int] = []
    tokens: list[int] = []
    told = []
    for job, begin, n, token in zip(jobs, begins, accepted, following, strict=True):
        emitted = [d.token for d in job.drafted[:n]] + ([] if token is None else [token])
        told.append(len(emitted) if job.surprisals else 0)
        rows += range(begin, begin + told[-1])
        tokens += emitted[: told[-1]]
    bits = (-torch.log2(entries(p, rows, tokens))).tolist() if rows else []
    outcomes, at = [], 0
    for n, token, count, end in zip(accepted, following, told, ends, strict=True):
        outcomes.append(Outcome(n, token, bits[at : at + count], end in broken))
        at += count
    return outcomes


def _suppress(logits: Tensor, jobs: Sequence[Job], begins: Sequence[int]) -> bool:
    """Give −∞, in ``logits`` (R, V), to what each job suppresses; whether one suppresses anything.

    One copy to where the rows are, whatever the number of jobs.
    """
    some = [(job.suppressed, i) for i, job in enumerate(jobs) if job.suppressed is not None]
    if not some:
        return False
    moved = torch.cat([ids for ids, _ in some]).to(logits.device)
    for ids, (_, i) in zip(moved.split([len(ids) for ids, _ in some]), some, strict=True):
        rows = slice(begins[i], begins[i] + len(jobs[i].drafted) + 1)
        logits[rows].index_fill_(1, ids, -torch.inf)
    return True


def _broken(logits: Tensor) -> list[int]:
    """Rows (R, V) without a largest number: with NaN, with infinity, of −∞ alone, or too large."""
    top = logits.amax(-1)
    return (~(top.abs() <= LARGEST_LOGIT)).nonzero()[:, 0].tolist()


def distributions(logits: Tensor, jobs: Sequence[Job]) -> Tensor:
    """The distribution (R, V), float64, of each row: ``sampling.distribution``, in torch.

    Greedy rows come out as the distribution at temperature 1, whose arg max is the same.
    """
    params = [job.sampling for job in jobs for _ in range(len(job.drafted) + 1)]
    scores = logits.double()
    if any(p.repetition_penalty != 1.0 for p in params):
        scores = _penalised(scores, jobs)
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
        scores = _rows(p, rows["greedy"])
        # On the CPU numpy is ten times as fast, and takes the first of equals, too.
        on_cpu = scores.device.type == "cpu"
        best = torch.as_tensor(scores.numpy().argmax(-1)) if on_cpu else scores.argmax(-1)
        picks.update(zip(rows["greedy"], best.tolist(), strict=True))
    if rows["coupled"]:
        drawn = _raced(keys, positions, _rows(p, rows["coupled"]))
        picks.update(zip(rows["coupled"], drawn, strict=True))
    return picks


def _raced(keys: Sequence[bytes], positions: Sequence[int], p: Tensor) -> list[int]:
    """``gumbel.pick_many``, by what is the fastest where p is; all draw the same."""
    if p.is_cuda and HAS_TRITON:
        from bs_runtime.verify import race

        return race.pick_many(keys, positions, p)
    picks: list[int] = pick_many(keys, positions, p if p.is_cuda else p.numpy()).tolist()
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
