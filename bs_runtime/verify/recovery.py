"""What a device corrects by where it is not sent the target's row: pairs, or all of a small p.

What is sent is in ``draftlink.schemes.split``, with the law that comes of it.
"""

from __future__ import annotations

from torch import Tensor

from bs_runtime.verify.job import Job
from bs_runtime.verify.residual import draws
from draftlink.distribution import noise
from draftlink.distribution.noise import Purpose
from draftlink.schemes import split


def packed(p: Tensor, job: Job, position: int, had: int, count: int) -> bytes:
    """Of the target's p (V,) at ``position``, what a device corrects by that has ``had`` pairs.

    ``count`` pairs more, or as many as there may still be; p itself where it has few ids.
    """
    size, most = len(p), job.scheme.recovers
    support = p.nonzero()[:, 0]
    if len(support) <= split.FEW and not had:
        pairs = zip(support.tolist(), p[support].tolist(), strict=True)
        return split.pack_support(list(pairs), size)
    numbers = range(had, min(had + count, most))
    tokens = draws(p, [noise.uniform(job.key, position, Purpose.PAIR, i) for i in numbers])
    shares = p[tokens].tolist()
    return split.pack_draws(list(zip(tokens, shares, strict=True)), had, most, size)
