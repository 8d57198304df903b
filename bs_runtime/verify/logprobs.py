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
    found, ids = scores.topk(min(job.logprobs, scores.shape[1]), dim=-1)
    tops = [
        tuple(sorted(zip(these, values, strict=True), key=lambda pair: (-pair[1], pair[0])))
        for these, values in zip(ids.tolist(), found.tolist(), strict=True)
    ]
    return [Logprobs(value, top) for value, top in zip(own, tops, strict=True)]
