"""``split``: the id and its probability up, the target's row down on a rejection (DSSD).

The base station accepts with probability min(1, p(x) / q̂(x)), for which q̂(x) is enough. On a
rejection it sends its row of logits, losslessly; the device, which has q̂ whole, draws the token
from norm(max(0, p − q̂)) and sends it first in its next draft.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from draftlink.coding.bits import width_for
from draftlink.coding.ids import IdModel
from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.coding.slices import Slices
from draftlink.distribution import noise, sampling, sparse
from draftlink.distribution.noise import Purpose
from draftlink.distribution.sparse import Drafted
from draftlink.schemes import base


class Split(base.Scheme, frozen=True, tag="split"):
    """``k`` and ``total`` shape q̂ as in ``topk``, though only one count of it is sent."""

    corrects: ClassVar[Literal["bs", "device"]] = "device"
    codes_ids: ClassVar[bool] = True

    k: int = 64
    total: int = 1024

    @property
    def name(self) -> str:
        """The scheme."""
        return "split"

    def check(self, vocab_size: int) -> None:
        """Raise ValueError for impossible parameters."""
        base.check_row(self.k, self.total, vocab_size)

    def most_bits(self, vocab_size: int) -> int:
        """An id that nothing foretold, and a count."""
        return base.ID_BITS + width_for(self.total)

    def entries(self, vocab_size: int) -> int:
        """One id; its count is a symbol more."""
        return base.ID_ENTRIES

    def propose(
        self, q: NDArray[np.floating], key: bytes, position: int, weight: float = 1.0
    ) -> Drafted:
        """Truncate, round, draw."""
        return base.draw(sparse.lattice(q, self.k, self.total), key, position)

    def encode(self, drafted: Sequence[Drafted], ids: IdModel) -> tuple[bytes, int]:
        """Ids, then a count for each."""
        out = RangeEncoder()
        ids.encode(out, [d.token for d in drafted])
        for d in drafted:
            out.uniform(d.count - 1, self.total)
        return out.finish()

    def decoding(self, payload: bytes, length: int, ids: IdModel) -> Slices[list[Drafted]]:
        """Ids and counts back. Raises ValueError for any other bytes."""
        source = RangeDecoder(payload)
        tokens = yield from ids.decoding(source, length)
        drafted = [Drafted(t, source.uniform(self.total) + 1, self.total) for t in tokens]
        source.finish()
        return drafted


def pack_row(logits: NDArray[np.floating[Any]]) -> bytes:
    """A row of logits (V,), float32 or float64, to bytes, losslessly.

    The bytes of equal weight lie together, so that exponents, and the zero bytes of a target in
    half precision, compress.
    """
    size = logits.dtype.itemsize
    planes = np.ascontiguousarray(logits).astype(f"<f{size}").view(np.uint8).reshape(-1, size).T
    return bytes((size,)) + zlib.compress(planes.tobytes(), 1)


def unpack_row(data: bytes, vocab_size: int) -> NDArray[np.floating[Any]]:
    """The row of logits (V,). Raises ValueError for any other bytes."""
    if not data or data[0] not in (4, 8):
        raise ValueError("a target row is neither float32 nor float64")
    size, stream = data[0], zlib.decompressobj()
    try:
        planes = stream.decompress(data[1:], size * vocab_size + 1)  # no more than a row is made
    except zlib.error as error:
        raise ValueError(f"a target row does not unpack ({error})") from None
    if len(planes) != size * vocab_size or not stream.eof or stream.unused_data:
        raise ValueError(f"a target row is not one of {vocab_size} logits")
    logits = np.frombuffer(planes, np.uint8).reshape(size, vocab_size).T.copy().view(f"<f{size}")
    row: NDArray[np.floating[Any]] = logits[:, 0].astype(f"f{size}")
    if not abs(row.max()) <= sampling.LARGEST_LOGIT:  # the maximum of NaN and others is NaN
        raise ValueError("a target row has no largest logit")
    return row


def residual(p: NDArray[np.float64], row: sparse.SparseRow) -> NDArray[np.float64]:
    """max(0, p − q̂), (V,), not normalised; p itself where rounding leaves nothing of it."""
    rest = p.copy()
    rest[row.ids] -= row.probabilities()
    np.maximum(rest, 0.0, out=rest)
    return rest if rest.any() else p


def correct(p: NDArray[np.float64], rejected: Drafted, key: bytes, position: int) -> int:
    """The device's token after a rejection at ``position``; p (V,) is the target's distribution."""
    assert rejected.row is not None
    rest = residual(p, rejected.row)
    return sampling.draw(rest, noise.uniform(key, position, Purpose.RESIDUAL))
