"""``dense``: the whole row in FP16, the baseline that the paper argues against.

FP16 values are integers × 2⁻²⁴, so the row that is sent is drawn from exactly, as with the lattice.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from draftlink.coding import fp16
from draftlink.coding.bits import width_for
from draftlink.coding.ids import IdModel
from draftlink.coding.slices import Slices
from draftlink.distribution import sparse
from draftlink.distribution.sparse import Drafted
from draftlink.schemes import base


class Dense(base.Scheme, frozen=True, tag="dense"):
    """16 bits for every entry of the vocabulary."""

    @property
    def name(self) -> str:
        """The scheme."""
        return "dense"

    def most_bits(self, vocab_size: int) -> int:
        """V values and an id."""
        return 16 * vocab_size + width_for(vocab_size)

    def entries(self, vocab_size: int) -> int:
        """V values of fixed width."""
        return -(-vocab_size // base.FIXED_ENTRIES)

    def propose(
        self, q: NDArray[np.floating], key: bytes, position: int, weight: float = 1.0
    ) -> Drafted:
        """Round the whole row, draw."""
        return base.draw(sparse.half(q, len(q)), key, position)

    def encode(self, drafted: Sequence[Drafted], ids: IdModel) -> tuple[bytes, int]:
        """V FP16 values per token, then the drawn ids."""
        return fp16.encode(drafted, ids.vocab_size, ids.vocab_size)

    def decoding(self, payload: bytes, length: int, ids: IdModel) -> Slices[list[Drafted]]:
        """Rows and drawn ids back. Raises ValueError for anything but true rows."""
        return fp16.decoding(payload, length, ids.vocab_size, ids.vocab_size)
