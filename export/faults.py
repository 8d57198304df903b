"""Whether the weights in a rounded graph are those of the float one, to within a rounding.

A random projection of each matrix stands for it, so that the float weights need not be kept: the
relative error of W z is that of W, for a random z (Johnson and Lindenstrauss).
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray

from export.edit import Edit
from export.products import products
from export.rounding import ROWS

Projections = dict[str, tuple[int, NDArray[np.float32]]]  # a matrix's width, and its projection


def projections(model: onnx.ModelProto) -> Projections:
    """Of all products and tables of a float graph, by what their codes are called."""
    found = {}
    for one in products(Edit(model)):
        width = one.shape[1]
        found[one.stored] = width, one.weight @ _direction(width)
    return found


def _direction(width: int) -> NDArray[np.float32]:
    return np.random.default_rng(width).standard_normal(width).astype(np.float32)


def moved(model: onnx.ModelProto, before: Projections) -> dict[str, float]:
    """The relative error, in the mean square, of each matrix that is codes in ``model``."""
    edit, found = Edit(model), {}
    for name, (width, whole) in before.items():
        for bits in (4, 8):
            code, step = edit.array(f"{name}.int{bits}"), edit.array(f"{name}.scale")
            if code is not None and step is not None:
                zero = edit.array(f"{name}.zero")
                after = _projected(code, step, zero, bits, _direction(width))
                error = np.square(after - whole).mean() / max(1e-30, np.square(whole).mean())
                found[name] = float(np.sqrt(error))
    return found


def _projected(
    code: NDArray[np.uint8],
    step: NDArray[np.float32],
    zero: NDArray[np.uint8] | None,
    bits: int,
    direction: NDArray[np.float32],
) -> NDArray[np.float32]:
    rows, blocks, _ = code.shape
    middle = np.full((rows, blocks), 1 << (bits - 1), np.uint8)
    if zero is not None:
        middle = _unpacked(zero, bits)[:, :blocks]
    found = np.empty(rows, np.float32)
    for begin in range(0, rows, ROWS):
        part = slice(begin, begin + ROWS)
        whole = _unpacked(code[part], bits).astype(np.float32) - middle[part, :, None]
        whole *= step[part, :, None]
        found[part] = whole.reshape(len(whole), -1)[:, : len(direction)] @ direction
    return found


def _unpacked(code: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    if bits == 8:
        return code
    return np.stack([code & 15, code >> 4], axis=-1).reshape(*code.shape[:-1], -1)
