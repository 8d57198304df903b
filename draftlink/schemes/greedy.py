"""Greedy decoding (temperature 0): ids only, accepted iff equal to the target's arg max."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from draftlink.distribution.sampling import BROKEN
from draftlink.distribution.sparse import Drafted
from draftlink.schemes import base


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


GREEDY = Greedy()
