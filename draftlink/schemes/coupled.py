"""``coupled``: both ends share a seed, and only ids cross the link.

Per position both ends hold the same exponential noise x (see ``gumbel``). The device proposes
argmin x(v) / q(v), the base station computes argmin x(v) / p(v), which is the target's own sampler
draw for that seed, and accepts iff they are equal; where they differ its own choice is the
correction. The text is the same whatever the draft, the link, or the lengths of the drafts.
Acceptance is at least (1 − TV) / (1 + TV) (Daliri et al., arXiv 2408.07978).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from draftlink.distribution.gumbel import Race, first_arrivals
from draftlink.distribution.sparse import Drafted
from draftlink.schemes import base


class Coupled(base.IdScheme, frozen=True, tag="coupled"):
    """No parameters: nothing about the draft's distribution is sent."""

    rule: ClassVar[base.Rule] = "coupled"
    shares_seed: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The scheme."""
        return "coupled"

    def propose(
        self, q: NDArray[np.floating], key: bytes, position: int, weight: float = 1.0
    ) -> Drafted:
        """The token that the shared noise picks from q."""
        return Drafted(Race(key).pick(position, q.astype(np.float64, copy=False)))

    def candidates(
        self, q: NDArray[np.floating], key: bytes, positions: Sequence[int], count: int
    ) -> list[base.Candidates]:
        """The first arrivals (``gumbel.first_arrivals``), of which the first is the drafted one.

        All rows race together: a call for each takes twice as long for four of them.
        """
        rows = q.astype(np.float64, copy=False)
        found = first_arrivals([key] * len(rows), positions, rows, count)
        return [_there(ids, times) for ids, times in zip(*found, strict=True)]


def _there(ids: NDArray[np.int64], times: NDArray[np.float64]) -> base.Candidates:
    count = int((ids >= 0).sum())
    return ids[:count].tolist(), (times[:count] / times[0]).tolist()
