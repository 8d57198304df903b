"""``split`` (DSSD): the id and its probability up; on a rejection what the device corrects by down.

The base station accepts with probability min(1, p(x) / q̂(x)), for which q̂(x) is enough. On a
rejection the device, which has q̂ whole, draws the token from norm(max(0, p − q̂)) and sends it first
in its next draft. What it needs of p for that comes as one of three:

- The row of logits, losslessly, as DSSD has it.
- Pairs (y ~ p, p(y)), in the order in which the base station has drawn them: the first of which
  u · p(y) < p(y) − q̂(y) is the correction (AsymSpec, arXiv 2608.04974). It follows the law: a draw
  stands with probability max(0, p(y) − q̂(y)) / p(y), whatever came of those before it. Where none
  does the device asks for more, and behind the last for the row. The correction is the first that
  stands of all that there may be, so how many are sent at once changes no token.
- All of p, where few ids are left of it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
from msgspec import UNSET, UnsetType
from numpy.typing import NDArray

from draftlink.coding.bits import width_for
from draftlink.coding.ids import IdModel
from draftlink.coding.pairs import Pair, read_draws, read_support, write_draws, write_support
from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.coding.slices import Slices
from draftlink.distribution import noise, sampling, sparse
from draftlink.distribution.noise import Purpose
from draftlink.distribution.prior import prior
from draftlink.distribution.sparse import Drafted
from draftlink.schemes import base

MOST_PAIRS = 256  # of a correction: each has a number of its own
FEW = 32  # ids: no more of p than that are sent whole
EXCHANGE_BITS = 16e3  # that one more exchange is worth: its frames, its pairs, and a round trip
REPEATS = 0.5  # of draws from p, which cost little
_DRAWS, _SUPPORT = 1, 2  # the first byte of what comes down; 4 and 8 are a row's


class Split(base.Scheme, frozen=True, tag="split"):
    """``k`` and ``total`` shape q̂ as in ``topk``, though only one count of it is sent.

    ``pairs``: the most of a correction before the target's row is sent, 0 for the row at once. It
    is stated only where both ends have the feature; what is not stated is 0 on the wire, and as
    many as there may be in a request.
    """

    corrects: ClassVar[Literal["bs", "device"]] = "device"
    codes_ids: ClassVar[bool] = True

    k: int = 64
    total: int = 1024
    pairs: int | UnsetType = UNSET

    @property
    def name(self) -> str:
        """The scheme."""
        return "split"

    @property
    def recovers(self) -> int:
        """``pairs``, where they are stated."""
        return 0 if self.pairs is UNSET else self.pairs

    def check(self, vocab_size: int) -> None:
        """Raise ValueError for impossible parameters."""
        base.check_row(self.k, self.total, vocab_size)
        if not 0 <= self.recovers <= MOST_PAIRS:
            raise ValueError(f"pairs must be between 0 and {MOST_PAIRS}, not {self.pairs}")

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


def pairs_at_first(vocab_size: int, rejected: float) -> int:
    """How many pairs are sent with a verdict, where so much of what is judged is rejected.

    A pair stands about as often as a draft is rejected, since both are max(0, p − q̂) summed. So n
    of them fail together with probability (1 − rejected)ⁿ, which costs an exchange more; here n
    more save as much of that as they cost.
    """
    rate = min(max(rejected, 0.01), 0.99)
    slope = -math.log1p(-rate)
    bits = (64.0 + math.log2(vocab_size)) * (1.0 - REPEATS)
    return max(1, math.ceil(math.log(max(EXCHANGE_BITS * slope / bits, 1.0)) / slope))


def pack_draws(draws: Sequence[Pair], begin: int, most: int, vocab_size: int) -> bytes:
    """Pairs in the order drawn, the first of which is number ``begin`` of ``most``."""
    out = RangeEncoder()
    out.uniform(len(draws) - 1, most - begin)
    write_draws(out, draws, prior(vocab_size))
    return bytes((_DRAWS,)) + out.finish()[0]


def unpack_draws(data: bytes, begin: int, most: int, vocab_size: int) -> list[Pair]:
    """The pairs. Raises ValueError for any other bytes."""
    source = RangeDecoder(data[1:])
    draws = read_draws(source, source.uniform(most - begin) + 1, prior(vocab_size))
    source.finish()
    return draws


def pack_support(pairs: Sequence[Pair], vocab_size: int) -> bytes:
    """All ids of p, ascending, at most ``FEW``, with their probabilities."""
    out = RangeEncoder()
    out.uniform(len(pairs) - 1, min(FEW, vocab_size))
    write_support(out, pairs, prior(vocab_size))
    return bytes((_SUPPORT,)) + out.finish()[0]


def unpack_support(data: bytes, vocab_size: int) -> NDArray[np.float64]:
    """p, (V,). Raises ValueError for any other bytes."""
    source = RangeDecoder(data[1:])
    number = source.uniform(min(FEW, vocab_size)) + 1
    pairs = read_support(source, number, prior(vocab_size))
    source.finish()
    p = np.zeros(vocab_size)
    for token, share in pairs:
        p[token] = share
    return p


def brings_draws(data: bytes) -> bool:
    """Whether pairs came down, not a row or all of p."""
    return data[:1] == bytes((_DRAWS,))


def brings_support(data: bytes) -> bool:
    """Whether all of p came down, as a few ids."""
    return data[:1] == bytes((_SUPPORT,))


def stands(share: float, drafted: float, uniform: float) -> bool:
    """Whether an id drawn from p, of which it has ``share``, is the correction; q̂ of it beside."""
    return uniform * share < share - drafted


def recover(
    draws: Sequence[Pair], begin: int, rejected: Drafted, key: bytes, position: int
) -> int | None:
    """The first of the pairs from number ``begin`` on that is the correction, if one is."""
    assert rejected.row is not None
    row = dict(zip(rejected.row.ids.tolist(), rejected.row.probabilities().tolist(), strict=True))
    for number, (token, share) in enumerate(draws, begin):
        uniform = noise.uniform(key, position, Purpose.RECOVER, number)
        if stands(share, row.get(token, 0.0), uniform):
            return token
    return None


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
