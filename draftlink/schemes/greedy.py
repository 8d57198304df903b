"""Greedy decoding (temperature 0): ids only, accepted iff equal to the target's arg max."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from draftlink.idcode import IdModel
from draftlink.rangecoder import RangeDecoder, RangeEncoder
from draftlink.schemes import base
from draftlink.sparse import Drafted


class Greedy(base.Scheme, frozen=True, tag="greedy"):
    """Not named by requests: it stands in for every scheme at temperature 0."""

    rule: ClassVar[base.Rule] = "greedy"
    codes_ids: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The scheme."""
        return "greedy"

    def most_bits(self, vocab_size: int) -> int:
        """An id that nothing foretold."""
        return 64

    def propose(self, q: NDArray[np.float64], key: bytes, position: int) -> Drafted:
        """The arg max of q (V,); the lowest id where scores are equal."""
        return Drafted(int(np.argmax(q)))

    def encode(self, drafted: Sequence[Drafted], ids: IdModel) -> tuple[bytes, int]:
        """Ids."""
        out = RangeEncoder()
        ids.encode(out, [d.token for d in drafted])
        return out.finish()

    def decode(self, payload: bytes, length: int, ids: IdModel) -> list[Drafted]:
        """Ids back. Raises ValueError for any other bytes."""
        source = RangeDecoder(payload)
        drafted = [Drafted(token) for token in ids.decode(source, length)]
        source.finish()
        return drafted


GREEDY = Greedy()
