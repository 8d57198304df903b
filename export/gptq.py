"""GPTQ (arXiv 2210.17323): each column's rounding error is made up for by those still to come.

The columns keep their order: an order by activation would need ``g_idx``, which takes the kernels'
fast path. The inputs are those that the operator sees, rounded to int8 in the same blocks: that
error is no other than noise on them, and damps the Hessian where it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.rounding import Codes, Rounding, activations, coded, steps

DAMPING = 0.01  # of the Hessian's mean diagonal, as in the paper
# Of what lies beside the diagonal, which a few thousand tokens tell with an error. On tokens apart
# from those, products of 4 bits then lose a third less, and none loses more than by the nearest.
SHRUNK = 0.25
CHUNK = 128  # columns whose updates are gathered before the others see them
ROWS = 8192  # rounded at a time


def factor(inputs: Tensor, rounding: Rounding) -> Tensor:
    """The upper Cholesky factor of the inverse Hessian of inputs (n, width): (width, width).

    Every input counts the same, whatever its length: what is behind a product is normalised sooner
    or later, and a few long ones would decide alone. The width is padded to whole blocks, with
    columns that nothing depends on.
    """
    seen = activations(inputs, rounding.block)
    seen = torch.nn.functional.pad(seen, (0, -seen.shape[1] % rounding.block)).double()
    seen /= seen.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    hessian = seen.T @ seen / len(seen)
    diagonal = hessian.diagonal()
    hessian = hessian * (1 - SHRUNK) + torch.diag(diagonal * SHRUNK)
    diagonal = hessian.diagonal()
    diagonal += DAMPING * diagonal.mean().clamp(min=1e-9)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(hessian))
    found: Tensor = torch.linalg.cholesky(inverse, upper=True).float()
    return found


def codes(weight: NDArray[Any], inputs: Tensor, rounding: Rounding) -> Codes:
    """Round (rows, width) so that products with ``inputs`` (n, width) change the least."""
    rows, width = weight.shape
    upper = factor(inputs, rounding)
    blocks = len(upper) // rounding.block
    code = np.empty((rows, blocks, rounding.block), np.uint8)
    step = np.empty((rows, blocks), np.float32)
    zero = np.empty((rows, blocks), np.uint8)
    for begin in range(0, rows, ROWS):
        here = slice(begin, begin + ROWS)
        part = torch.zeros(len(upper), min(ROWS, rows - begin))
        part[:width] = torch.from_numpy(np.array(weight[here].T))
        made = _columns(part, upper, rounding)
        code[here] = made[0].T.reshape(-1, blocks, rounding.block).numpy()
        step[here], zero[here] = made[1].T.numpy(), made[2].T.numpy()
    return Codes(rounding, width, code, step, zero)


def _columns(left: Tensor, upper: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (width, rows), steps and zeros (blocks, rows) of weights (width, rows), used up."""
    width, rows = left.shape
    bits, block = rounding.bits, rounding.block
    code = torch.empty(width, rows, dtype=torch.uint8)
    step = torch.empty(width // block, rows)
    zero = torch.empty(width // block, rows)
    chunk = max(CHUNK, block)
    for begin in range(0, width, chunk):
        end = min(begin + chunk, width)
        errors = torch.empty(end - begin, rows)
        for column in range(begin, end):
            index = column // block
            if column % block == 0:
                step[index], zero[index] = steps(left[column : column + block].T, rounding)
            one = left[column]
            found = coded(one[:, None], step[index], zero[index], bits)[:, 0]
            code[column] = found.to(torch.uint8)
            error = (one - (found - zero[index]) * step[index]) / upper[column, column]
            errors[column - begin] = error
            left[column + 1 : end].addr_(upper[column, column + 1 : end], error, alpha=-1.0)
        left[end:].addmm_(upper[begin:end, end:].T, errors, alpha=-1.0)
    return code, step, zero.to(torch.uint8)
