"""Weights to codes of 8 or 4 bits, in blocks, each weight to the nearest code.

A weight is (code - zero) times the step of its block, as MatMulNBits and GatherBlockQuantized
multiply it back. Without zero points of its own a block's zero is 2^(bits - 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SMALLEST_BLOCK = 16  # of the operators
# A block's largest weight may be clipped, to this share: the others then get a finer step. (With 8
# bits the step is fine enough, and nothing is gained.)
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75)
ROWS = 4096  # quantized at a time, to bound the memory
LEAST_STEP = 1e-30  # a block of smaller weights is a block of zeros


@dataclass(frozen=True, order=True)
class Rounding:
    """How the weights of one matrix are rounded."""

    bits: int
    block: int
    zero_points: bool = False

    @property
    def zero(self) -> int:
        """The code of 0 where blocks have no zero point of their own."""
        return 1 << (self.bits - 1)

    @property
    def bytes_per_weight(self) -> float:
        """Of a code and its share of the block's step and zero point."""
        return self.bits / 8 + (4 + self.bits / 8 * self.zero_points) / self.block

    def size(self, shape: tuple[int, int]) -> int:
        """Bytes of a matrix of a shape."""
        return int(shape[0] * shape[1] * self.bytes_per_weight)

    def __str__(self) -> str:
        return f"{self.bits} bits in blocks of {self.block}" + ", zero points" * self.zero_points


@dataclass(frozen=True)
class Codes:
    """A matrix (rows, width) as codes; rows are padded to whole blocks with zeros."""

    rounding: Rounding
    width: int
    code: NDArray[np.uint8]  # (rows, blocks, block)
    step: NDArray[np.float32]  # (rows, blocks); negative where the largest weight is positive
    zero: NDArray[np.uint8]  # (rows, blocks)

    def values(self) -> NDArray[np.float32]:
        """The weights (rows, width) that the codes stand for."""
        found = np.empty((len(self.code), self.width), np.float32)
        for begin in range(0, len(found), ROWS):
            part = slice(begin, begin + ROWS)
            whole = self.code[part].astype(np.float32) - self.zero[part, :, None]
            whole *= self.step[part, :, None]
            found[part] = whole.reshape(len(whole), -1)[:, : self.width]
        return found


def block_for(width: int, block: int) -> int:
    """The block that rows of ``width`` are cut into: at most ``block``, and no rest if that can be.

    A table of embeddings must be cut without one.
    """
    while width % block and block > SMALLEST_BLOCK:
        block //= 2
    return block


def steps(part: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
    """Step and zero, float32 (...), of blocks (..., block): those with the least squared error."""
    largest = float(2**rounding.bits - 1)
    half = float(rounding.zero)
    low = part.amin(-1).clamp(max=0.0)
    high = part.amax(-1).clamp(min=0.0)
    # The weight that is largest, with its sign, takes code 0: there is one code more on that side.
    peak = torch.where(high > -low, high, low)
    best_step, best_zero = torch.zeros_like(peak), torch.full_like(peak, half)
    least = torch.full_like(peak, torch.inf)
    for share in SHARES if rounding.bits == 4 else (1.0,):
        if rounding.zero_points:
            step = (high - low) * (share / largest)
            zero = torch.round(-low * share * _inverse(step)).clamp(0.0, largest)
        else:
            step, zero = peak * (-share / half), torch.full_like(peak, half)
        error = (rounded(part, step, zero, rounding.bits) - part).square_().sum(-1)
        better = error < least
        least = torch.where(better, error, least)
        best_step = torch.where(better, step, best_step)
        best_zero = torch.where(better, zero, best_zero)
    return best_step, best_zero


def _inverse(step: Tensor) -> Tensor:
    return torch.where(step.abs() > LEAST_STEP, 1.0 / step, torch.zeros_like(step))


def coded(part: Tensor, step: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The nearest codes, float32, of blocks (..., block) with steps and zeros (...)."""
    code = torch.round(part * _inverse(step)[..., None]).add_(zero[..., None])
    return code.clamp_(0.0, 2.0**bits - 1)


def rounded(part: Tensor, step: Tensor, zero: Tensor, bits: int) -> Tensor:
    """What the nearest codes stand for."""
    return coded(part, step, zero, bits).sub_(zero[..., None]).mul_(step[..., None])


def nearest(weight: NDArray[Any], rounding: Rounding) -> Codes:
    """Round (rows, width): of the steps in ``SHARES`` each block takes the best."""
    rows, width = weight.shape
    block, blocks = rounding.block, -(-width // rounding.block)
    code = np.empty((rows, blocks, block), np.uint8)
    step = np.empty((rows, blocks), np.float32)
    zero = np.empty((rows, blocks), np.uint8)
    for begin in range(0, rows, ROWS):
        part = np.zeros((min(ROWS, rows - begin), blocks * block), np.float32)
        part[:, :width] = weight[begin : begin + ROWS]
        whole = torch.from_numpy(part).reshape(-1, blocks, block)
        best, middle = steps(whole, rounding)
        here = slice(begin, begin + ROWS)
        code[here] = coded(whole, best, middle, rounding.bits).to(torch.uint8).numpy()
        step[here], zero[here] = best.numpy(), middle.to(torch.uint8).numpy()
    return Codes(rounding, width, code, step, zero)


def activations(x: Tensor, block: int) -> Tensor:
    """What a product at accuracy level 4 makes of its input (n, width): int8 in the same blocks."""
    count, width = x.shape
    whole = torch.nn.functional.pad(x, (0, -width % block)).reshape(count, -1, block)
    step = whole.abs().amax(-1, keepdim=True) / 127.0
    inverse = torch.where(step > 0.0, 1.0 / step, torch.zeros_like(step))
    found = torch.round(whole * inverse).mul_(step)
    return found.reshape(count, -1)[:, :width]
