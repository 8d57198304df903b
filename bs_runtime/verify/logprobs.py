"""What the target thought of the tokens of a round, for who asks: its own log-probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from bs_runtime.verify.job import Job, Outcome
from draftlink.protocol.logprobs import Logprobs


def told(rows: Tensor, job: Job, outcome: Outcome) -> list[Logprobs]:
    """Those of the accepted tokens and of the target's own; none if the job wants none.

    ``rows`` (len(drafted) + 1, V) are the target's logits as they came, so nothing that the request
    does to them counts: neither suppressed ids nor bias, penalties, temperature or cuts.
    """
    if job.logprobs is None:
        return []
    tokens = [d.token for d in job.drafted[: outcome.accepted]]
    tokens += [] if outcome.next is None else [outcome.next]
    if not tokens:
        return []
    scores = torch.log_softmax(rows[: len(tokens)].double(), dim=-1)
    own = scores.gather(1, torch.tensor(tokens, device=scores.device)[:, None])[:, 0].tolist()
    tops = [_likeliest(row, job.logprobs) for row in scores]
    return [Logprobs(value, top) for value, top in zip(own, tops, strict=True)]


def _likeliest(row: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """The ids of a row (V,) with the largest entries, and these; of equals the lower id first."""
    if not count:
        return ()
    least = row.topk(min(count, len(row))).values[-1]
    ids = (row >= least).nonzero()[:, 0]  # ascending, and with all equals of the last
    values, order = row[ids].sort(descending=True, stable=True)
    chosen = ids[order[:count]].tolist()
    return tuple(zip(chosen, values[:count].tolist(), strict=True))
