"""Schemes: what a drafted token carries over the link, both ends of each in one file.

The torch half of verification, all sessions of a step at once, is ``bs_runtime/verify/verify.py``.
"""

from __future__ import annotations

from draftlink.schemes.base import Scheme as Scheme
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.dense import Dense
from draftlink.schemes.greedy import GREEDY
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK

AnyScheme = TopK | Dense | Split | Coupled  # what a request may name, tagged on the wire
BY_NAME: dict[str, type[AnyScheme]] = {
    "topk": TopK,
    "dense": Dense,
    "split": Split,
    "coupled": Coupled,
}


def in_effect(scheme: AnyScheme, *, greedy: bool) -> Scheme:
    """What a generation uses: at temperature 0 ids alone travel, whatever scheme was named."""
    return GREEDY if greedy else scheme
