"""Greedy decoding (temperature 0): ids only, accepted iff equal to the target's arg max."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from draftlink.distribution.sampling import BROKEN
from draftlink.distribution.sparse import Drafted
from draftlink.schemes import base

FAR = 700.0  # between scores: what is less likely by more is as good as never right


class Greedy(base.IdScheme, frozen=True, tag="greedy"):
    """Not named by requests: it stands in for every scheme at temperature 0."""

    rule: ClassVar[base.Rule] = "greedy"

    @property
    def name(self) -> str:
        """The scheme."""
        return "greedy"

    def propose(
        self, q: NDArray[np.floating], key: bytes, position: int, weight: float = 1.0
    ) -> Drafted:
        """The arg max of q (V,); the lowest id where scores are equal.

        Raises ValueError for scores without a largest number.
        """
        token = int(np.argmax(q))  # of the first NaN, if there is one
        if not np.isfinite(q[token]):
            raise ValueError(BROKEN)
        return Drafted(token)

    def candidates(
        self, q: NDArray[np.floating], key: bytes, positions: Sequence[int], count: int
    ) -> list[base.Candidates]:
        """The largest scores, the lowest id first where they are equal, each with by how much less
        likely it is than the first."""
        return [self._largest(row, count) for row in q]

    def _largest(self, q: NDArray[np.floating], count: int) -> base.Candidates:
        first = self.propose(q, b"", 0).token
        left, ids, ratios = q.copy(), [first], [1.0]
        for _ in range(count - 1):
            left[ids[-1]] = -np.inf
            token = int(np.argmax(left))
            if not np.isfinite(left[token]):
                break
            ids.append(token)
            ratios.append(float(np.exp(min(q[first] - q[token], FAR))))
        return ids, ratios


GREEDY = Greedy()
