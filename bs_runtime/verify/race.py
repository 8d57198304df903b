"""The race of ``distribution.gumbel`` on a GPU, as one Triton kernel: the same tokens, to the bit.

Operator by operator as PyTorch's kernels, a race of a few rows is some 400 launches, which take
longer than a large model's forward. Here every clock of a row is computed, and no block stays
closed: a GPU has the arithmetic. ``gumbel`` says what the numbers are and why they agree anywhere;
it asks that no multiplication be fused with an addition, so fusion is off.
"""

from collections.abc import Sequence

import numpy as np
import torch
import triton
import triton.language as tl

from draftlink.distribution import gumbel

BLOCKS = 16  # of ids, for each program


@triton.jit
def _philox(c0, c1, c2, c3, k0, k1):
    mask = 0xFFFFFFFF
    for _ in tl.static_range(10):
        a = c0 * 0xD2511F53
        b = c2 * 0xCD9E8D57
        c0 = ((b >> 32) & mask) ^ (c1 ^ k0)
        c2 = ((a >> 32) & mask) ^ (c3 ^ k1)
        c1 = b & mask
        c3 = a & mask
        k0 = (k0 + 0x9E3779B9) & mask
        k1 = (k1 + 0xBB67AE85) & mask
    return c0, c1, c2, c3


@triton.jit
def _exponential(high, low):
    bits = (high << 20) | (low >> 12) | 0x3FF0000000000000
    u = bits.to(tl.float64, bitcast=True) - (1.0 - 2.0**-53)
    shifted = u.to(tl.int64, bitcast=True) + (0x3FF0000000000000 - 0x3FE6A09E00000000)
    reduced = (shifted & 0x000FFFFFFFFFFFFF) + 0x3FE6A09E00000000
    f = reduced.to(tl.float64, bitcast=True) - 1.0
    k = ((shifted >> 52) + (0x4338000000000000 - 1023)).to(tl.float64, bitcast=True)
    k = k - 6755399441055744.0
    s = f / (f + 2.0)
    z = s * s
    w = z * z
    even = (w * 1.531383769920937332e-01 + 2.222219843214978396e-01) * w + 3.999999999940941908e-01
    odd = (w * 1.479819860511658591e-01 + 1.818357216161805012e-01) * w + 2.857142874366239149e-01
    r = even * w + (odd * w + 6.666666666666735130e-01) * z
    half_square = f * f * 0.5
    small = s * (half_square + r) + k * 1.90821492927058770002e-10
    return -((small - half_square + f) + k * 6.93147180369123816490e-01)


@triton.jit
def _arrivals(weights, ids, x, size):
    """x / p of ids, infinite past the vocabulary and where p is not above 0."""
    weight = tl.load(weights + ids, mask=ids < size, other=0.0)
    on = weight > 0.0
    return tl.where(on, x / tl.where(on, weight, 1.0), float("inf"))


@triton.jit
def _race(
    p,  # (rows, size), float64
    words,  # (4, rows, 1): key and position, as ``gumbel.words`` gives them
    rows,
    size,
    times,  # (rows, programs): when the first of a program's ids arrives
    tokens,  # (rows, programs): which it is, the lowest of equals
    BLOCKS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    chunk = tl.program_id(1)
    k0 = tl.load(words + row)
    k1 = tl.load(words + rows + row)
    p0 = tl.load(words + 2 * rows + row)
    p1 = tl.load(words + 3 * rows + row)
    block = chunk.to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)[:, None]
    zero = block * 0
    high, low, place, _ = _philox(block, zero, zero + p0, zero + p1, k0, k1)
    least = _exponential(high, low) * (1.0 / 64.0)
    winner = place >> 26
    half = tl.arange(0, 32)[None, :]
    counter = block * 32 + half
    zero = counter * 0
    a, b, c, d = _philox(counter, zero + 1, zero + p0, zero + p1, k0, k1)
    early = tl.where(half == winner, least, least + _exponential(a, b))
    late = tl.where(half + 32 == winner, least, least + _exponential(c, d))
    ids = block * 64 + half
    weights = p + row * size
    early = _arrivals(weights, ids, early, size)
    late = _arrivals(weights, ids + 32, late, size)
    first = tl.min(tl.minimum(tl.min(early, 1), tl.min(late, 1)), 0)
    ids = tl.minimum(
        tl.where(early == first, ids, 0x100000000), tl.where(late == first, ids + 32, 0x100000000)
    )
    to = row * tl.num_programs(1) + chunk
    tl.store(times + to, first)
    tl.store(tokens + to, tl.min(tl.min(ids, 1), 0))


def pick_many(keys: Sequence[bytes], positions: Sequence[int], p: torch.Tensor) -> list[int]:
    """What ``gumbel.pick_many`` picks of p (N, V), float64 on a GPU. Raises ValueError like it."""
    words = torch.from_numpy(np.stack(gumbel.words(keys, positions))).to(p.device)
    p = p.contiguous()
    rows, size = p.shape
    programs = triton.cdiv(size, BLOCKS * gumbel.BLOCK)
    times = p.new_empty((rows, programs))
    tokens = p.new_empty((rows, programs), dtype=torch.int64)
    with torch.cuda.device_of(p):  # Triton launches on the current GPU
        _race[(rows, programs)](
            p, words, rows, size, times, tokens, BLOCKS=BLOCKS, enable_fp_fusion=False
        )
    first = times.amin(1, keepdim=True)
    token = torch.where(times == first, tokens, gumbel.LIMIT).amin(1)
    top, picks = torch.stack((p.amax(1), token.double())).tolist()  # at once; ids are exact
    gumbel.check_largest(top)
    return [int(pick) for pick in picks]
