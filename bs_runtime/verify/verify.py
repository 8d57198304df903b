"""Judging drafts in torch: every position of many sessions at once.

Rows stay on the target's device. Acceptance gathers the target's probabilities at the drafted ids;
only the row behind each session's last accepted token is turned into a residual and drawn from.
Speculative sampling is arXiv 2211.17192, algorithm 1; coupled drawing: ``distribution.gumbel``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bs_runtime.model.forward import HAS_TRITON
from bs_runtime.verify import logprobs, recovery
from bs_runtime.verify.distribution import distributions
from bs_runtime.verify.job import Job, Outcome
from bs_runtime.verify.residual import accepts, draw, entries, residuals, wanted
from draftlink.distribution import noise
from draftlink.distribution.gumbel import pick_many
from draftlink.distribution.noise import Purpose
from draftlink.distribution.sampling import BROKEN, LARGEST_LOGIT
from draftlink.distribution.sparse import Drafted

CPU_ELEMENTS = 1 << 16  # of rows judged together; in float64 half a megabyte, a core's own cache


@dataclass
class _Case:
    """A job with its rows (len(drafted) + 1, V), and what comes of it."""

    job: Job
    rows: Tensor
    outcome: Outcome = field(init=False)


def judge(rows: Sequence[Tensor], jobs: Sequence[Job]) -> list[Outcome]:
    """Judge every job; ``rows`` holds the logits (len(drafted) + 1, V) of each."""
    cases = [_Case(job, mine) for job, mine in zip(jobs, rows, strict=True)]
    for group in _groups(cases):
        found = _judge(torch.cat([case.rows for case in group]), [case.job for case in group])
        for case, outcome in zip(group, found, strict=True):
            case.outcome = outcome
            if case.job.logprobs is not None:
                told = logprobs.told(case.rows, case.job, outcome)
                case.outcome = replace(outcome, logprobs=told)
    return [case.outcome for case in cases]


def _groups(cases: Sequence[_Case]) -> Iterator[list[_Case]]:
    """Which cases are judged together: on a GPU all, on a CPU those whose rows fit its cache.

    Those that need no probabilities are kept apart, as they cost much less.
    """
    for bare in (True, False):
        group: list[_Case] = []
        elements = 0
        for case in cases:
            rows = case.rows
            if _is_bare(case.job) is not bare:
                continue
            if group and rows.device.type == "cpu" and elements + rows.numel() > CPU_ELEMENTS:
                yield group
                group, elements = [], 0
            group.append(case)
            elements += rows.numel()
        if group:
            yield group


def _is_bare(job: Job) -> bool:
    """Whether the arg max of the logits is all that is wanted of the target."""
    return job.rule == "greedy" and job.sampling.plain and not job.surprisals


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
    each = accepted_positions(p, jobs, begins, picked)
    if broken:
        judging = [b + i for b, n in zip(begins, counts, strict=True) for i in range(n)]
        each &= ~np.isin(judging, broken)
    accepted, at = [], 0
    for count in counts:
        run = each[at : at + count]
        accepted.append(count if run.all() else int(run.argmin()))
        at += count
    ends = [begin + n for begin, n in zip(begins, accepted, strict=True)]
    following = _following(p, jobs, accepted, ends, picked)
    for j, end in enumerate(ends):
        if end in broken:
            following[j] = None
    bits = _surprisals(p, jobs, begins, accepted, following)
    return [
        Outcome(n, token, False, _pairs(p[end], job, n), mine, broken=end in broken)
        for job, n, token, mine, end in zip(jobs, accepted, following, bits, ends, strict=True)
    ]


def recover(row: Tensor, job: Job, had: int) -> bytes:
    """What a device corrects by behind the history, that has had so many pairs; ``row`` (V,).

    The pairs that are left, or where none are b"": the row itself is to be sent. Raises ValueError
    where nothing can be drawn from it.
    """
    if had >= job.scheme.recovers:
        return b""
    logits = row[None].clone()
    _suppress(logits, [job], [0])
    if _broken(logits):
        raise ValueError(BROKEN)
    (p,) = distributions(logits, [job])
    return recovery.packed(p, job, len(job.history), had, job.scheme.recovers)


def _pairs(p: Tensor, job: Job, accepted: int) -> bytes:
    """What the device corrects by at p (V,), behind the accepted ones, if it has no row for it."""
    if accepted == len(job.drafted) or job.rule != "sample" or not job.scheme.recovers:
        return b""
    return recovery.packed(p, job, len(job.history) + accepted, 0, job.pairs)


def _surprisals(
    p: Tensor,
    jobs: Sequence[Job],
    begins: Sequence[int],
    accepted: Sequence[int],
    following: Sequence[int | None],
) -> list[list[float]]:
    """−log2 p of the tokens that each job writes; none for those that want none."""
    rows: list[int] = []
    tokens: list[int] = []
    told = []
    for job, begin, n, token in zip(jobs, begins, accepted, following, strict=True):
        written = [d.token for d in job.drafted[:n]] + ([] if token is None else [token])
        told.append(len(written) if job.surprisals else 0)
        rows += range(begin, begin + told[-1])
        tokens += written[: told[-1]]
    bits = iter((-torch.log2(entries(p, rows, tokens))).tolist() if rows else [])
    return [list(itertools.islice(bits, count)) for count in told]


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


def own_picks(p: Tensor, jobs: Sequence[Job], begins: Sequence[int]) -> NDArray[np.int64]:
    """The token (R,) that the target writes by itself behind each row.

    It is −1 where that depends on what was proposed there, by rejection sampling.
    """
    greedy: list[int] = []
    coupled: list[int] = []
    streamed: list[int] = []
    keys: list[bytes] = []
    positions: list[int] = []
    uniforms: list[float] = []
    for job, begin in zip(jobs, begins, strict=True):
        rows = range(begin, begin + len(job.drafted) + 1)
        places = range(len(job.history), len(job.history) + len(rows))
        if job.rule == "greedy":
            greedy += rows
        elif job.rule == "coupled":
            coupled += rows
            keys += [job.key] * len(rows)
            positions += places
        elif job.rule == "stream":
            streamed += rows
            uniforms += [noise.uniform(job.key, place, Purpose.STREAM) for place in places]
    picked = np.full(len(p), -1, dtype=np.int64)
    if greedy:
        scores = _rows(p, greedy)
        # On the CPU numpy is ten times as fast, and takes the first of equals, too.
        on_cpu = scores.device.type == "cpu"
        picked[greedy] = scores.numpy().argmax(-1) if on_cpu else scores.argmax(-1).cpu().numpy()
    if coupled:
        picked[coupled] = _raced(keys, positions, _rows(p, coupled))
    if streamed:
        picked[streamed] = draw(_rows(p, streamed), uniforms)
    return picked


def _raced(keys: Sequence[bytes], positions: Sequence[int], p: Tensor) -> list[int]:
    """``gumbel.pick_many``, by what is the fastest where p is; all draw the same."""
    if p.is_cuda and HAS_TRITON:
        from bs_runtime.verify import race

        return race.pick_many(keys, positions, p)
    picks: list[int] = pick_many(keys, positions, p if p.is_cuda else p.numpy()).tolist()
    return picks


def accepted_positions(
    p: Tensor, jobs: Sequence[Job], begins: Sequence[int], picked: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each proposed token of each job would be accepted, if those before it were."""
    own = picked.tolist()
    accepted: list[bool] = []
    places: list[int] = []  # in ``accepted``, of the tokens that are judged by chance
    rows: list[int] = []
    drafted: list[Drafted] = []
    uniforms: list[float] = []
    for job, begin in zip(jobs, begins, strict=True):
        if job.rule == "sample":
            first, count = len(job.history), len(job.drafted)
            places += range(len(accepted), len(accepted) + count)
            rows += range(begin, begin + count)
            drafted += job.drafted
            uniforms += [
                noise.uniform(job.key, position, Purpose.ACCEPT)
                for position in range(first, first + count)
            ]
        accepted += [own[begin + i] == d.token for i, d in enumerate(job.drafted)]
    out = np.array(accepted, dtype=np.bool_)
    if rows:
        sampled = accepts(wanted(p, rows, drafted), drafted, uniforms)
        out[places] = sampled.numpy(force=True)
    return out


def _following(
    p: Tensor,
    jobs: Sequence[Job],
    accepted: Sequence[int],
    ends: Sequence[int],
    picked: NDArray[np.int64],
) -> list[int | None]:
    """The target's token behind each job's accepted ones; None where the device corrects."""
    own = picked[list(ends)].tolist()
    following: list[int | None] = [None if token < 0 else token for token in own]
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


def _rows(p: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows of p, all different; no copy if it is all of them."""
    return p if len(rows) == len(p) else p[rows]
