"""Philox-4x32-10, whose random words are a function of a counter and a key; Exp(1) of its words.

The generator: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
``gumbel`` says what it is for, and why numpy and torch agree to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any  # a numpy array or a torch tensor; torch is not imported here

MASK = 0xFFFF_FFFF
ROUNDS = 10
FACTORS = (0xD251_1F53, 0xCD9E_8D57)  # of the first and the third word
STEPS = (0x9E37_79B9, 0xBB67_AE85)  # from round to round, of the key's words


def philox(counter: Sequence[Array], key: Sequence[Array]) -> tuple[Array, Array, Array, Array]:
    """Philox-4x32-10: four words for a counter of four words under a key of two.

    Words are int64 arrays (or Python integers) in [0, 2**32) whose shapes broadcast together.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # The 64 bits of each product are right though int64 wraps; >> keeps the sign, so mask.
        a, b = c0 * FACTORS[0], c2 * FACTORS[1]
        c0, c1 = ((b >> 32) & MASK) ^ (c1 ^ k0), b & MASK
        c2, c3 = ((a >> 32) & MASK) ^ (c3 ^ k1), a & MASK
        k0, k1 = (k0 + STEPS[0]) & MASK, (k1 + STEPS[1]) & MASK
    return c0, c1, c2, c3


_STEPS = np.array([[i * step & MASK for step in STEPS] for i in range(ROUNDS)], dtype=np.uint64)
_HALF, _LOW = np.array(32, dtype=np.uint64), np.array(MASK, dtype=np.uint64)


def in_pairs(counter: Sequence[Array], key: Sequence[Array]) -> tuple[Array, Array]:
    """``philox`` of numpy arrays, in a quarter of its time.

    Returns the first and the third word, and the second and the fourth, (2, ...) each.

    A draft's race is of so few numbers that it takes as long as numpy takes to begin each of some
    hundred operations, which was more than a small draft's forward. So the words that are
    multiplied are kept in one array, those that are not in another, and all round keys are made at
    once; unsigned words need no mask behind a shift; and a round writes to where the last one did,
    with all operands of one shape, which begins the soonest.
    """
    shape = np.broadcast(*counter, *key).shape
    even, odd, product, high, factors, first = np.empty((6, 2, *shape), np.uint64)
    even[0], odd[0], even[1], odd[1] = counter
    factors[0], factors[1] = FACTORS
    first[0], first[1] = key
    (a, c), (b, d) = even, odd
    for keys in (first + _STEPS.reshape(ROUNDS, 2, *[1] * len(shape))) & _LOW:
        np.multiply(even, factors, out=product)
        np.right_shift(product, _HALF, out=high)
        np.bitwise_xor(odd, keys, out=even)
        np.bitwise_xor(a, high[1], out=a)
        np.bitwise_xor(c, high[0], out=c)
        np.bitwise_and(product[1], _LOW, out=b)
        np.bitwise_and(product[0], _LOW, out=d)
    return even.view(np.int64), odd.view(np.int64)


def log(u: Array, xp: Any) -> Array:
    """Natural logarithm of positive normal float64 ``u``, within 1 ulp, the same bits anywhere.

    The method of FDLIBM's e_log.c (Sun Microsystems, 1993): u = 2**k (1 + f) with 1 + f between
    sqrt(1/2) and sqrt(2); log(1 + f) = f - f*f/2 + s (f*f/2 + R(s*s)) with s = f / (2 + f).
    """
    shifted = u.view(xp.int64) + (0x3FF0_0000_0000_0000 - 0x3FE6_A09E_0000_0000)
    reduced = (shifted & 0x000F_FFFF_FFFF_FFFF) + 0x3FE6_A09E_0000_0000
    f = reduced.view(xp.float64) - 1.0
    # k as a float: near 1.5 * 2**52 one step of the bit pattern is one step of the value.
    k = ((shifted >> 52) + (0x4338_0000_0000_0000 - 1023)).view(xp.float64) - 6755399441055744.0
    s = f / (f + 2.0)
    z = s * s
    w = z * z
    even = (w * 1.531383769920937332e-01 + 2.222219843214978396e-01) * w + 3.999999999940941908e-01
    odd = (w * 1.479819860511658591e-01 + 1.818357216161805012e-01) * w + 2.857142874366239149e-01
    r = even * w + (odd * w + 6.666666666666735130e-01) * z
    half_square = f * f * 0.5
    small = s * (half_square + r) + k * 1.90821492927058770002e-10
    return (small - half_square + f) + k * 6.93147180369123816490e-01


def exponential(high: Array, low: Array, xp: Any) -> Array:
    """Exp(1) float64 from two Philox words: -log(u), u = (2n + 1) / 2**53 for n of 52 bits.

    u is exact and neither 0 nor 1, so the result is between 2**-53 and 36.8.
    """
    bits = (high << 20) | (low >> 12)
    one_and_more = (bits | 0x3FF0_0000_0000_0000).view(xp.float64)  # 1 + n / 2**52
    return -log(one_and_more - (1.0 - 2.0**-53), xp)
