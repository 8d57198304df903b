"""By what channels are rescaled: for each value, the exponents that lose the least (AWQ's search).

The factor of a channel is a^α / w^β, a being the size of its activations, w that of its weights.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from export import fold as folding
from export import losses
from export.calibrate import Sample
from export.edit import Edit
from export.fold import Fold
from export.rounding import Rounding, block_for, nearest

# α and β: none, weights alone, activations alone by degrees, both (SmoothQuant's).
EXPONENTS = (
    *((0.0, 0.0), (0.0, 0.5), (0.25, 0.0), (0.5, 0.0), (0.5, 0.5), (0.75, 0.25), (0.75, 0.0)),
    (1.0, 0.0),
)


def smooth(model: onnx.ModelProto, sample: Sample, bits: int, block: int) -> dict[str, str]:
    """Rescale a float graph in place, and the sample with it; what was chosen, by value.

    ``bits`` and ``block``: those that the factors are chosen for.
    """
    edit = Edit(model)
    told = {}
    for fold in folding.folds(edit):
        inputs = sample.inputs[fold.value]
        at = Rounding(bits, block_for(inputs.shape[1], block))
        told[fold.value], factors = _best(fold, edit, sample, at)
        if factors is None:
            continue
        gathered = "" if fold.table is None else fold.table.output[0]
        folding.apply(edit, fold, factors)
        inputs /= factors[fold.spread]
        if fold.table is not None:
            sample.gradients[fold.table.output[0]] = sample.gradients.pop(gathered) / factors
        if fold.rows is not None and fold.rows.product.name in sample.gradients:
            part = sample.gradients[fold.rows.product.name]
            part[:, fold.rows.begin : fold.rows.end] *= factors
    edit.sweep()
    return told


def _best(
    fold: Fold, edit: Edit, sample: Sample, at: Rounding
) -> tuple[str, NDArray[np.float32] | None]:
    inputs = sample.inputs[fold.value]
    weights = [folding.weight(edit, one) for one in fold.readers]
    size = _by_maker(np.sqrt(np.square(inputs).mean(0, dtype=np.float64)), fold.spread)
    largest = _by_maker(np.max([np.abs(w).max(0) for w in weights], axis=0), fold.spread)
    x = sample.some(fold.value)
    if fold.table is not None:
        x = losses.of_head(x)
    # What comes out is the same by any factors.
    rights = [x @ torch.from_numpy(np.array(w)).T for w in weights]
    least = np.inf
    chosen: tuple[str, NDArray[np.float32] | None] = ("", None)
    for alpha, beta in EXPONENTS:
        factors = _factors(size, largest, alpha, beta)
        spread = factors[fold.spread]
        scaled = x / torch.from_numpy(spread)
        lost = 0.0
        for one, w, right in zip(fold.readers, weights, rights, strict=True):
            whole = np.ascontiguousarray(w * spread)
            rounded = torch.from_numpy(nearest(whole, at).values())
            if fold.table is not None:
                gradient = sample.gradients[fold.table.output[0]] / factors
                lost += losses.table(torch.from_numpy(whole), rounded, sample.ids, gradient)
                lost += losses.head(scaled, right, rounded, at.block)
            else:
                slopes = sample.gradients.get(one.name)
                gradients = None if slopes is None else losses.some(slopes)
                lost += losses.product(scaled, right, rounded, at.block, gradients)
        if lost < least:
            least, chosen = lost, (f"{alpha} {beta}", factors if alpha or beta else None)
    return chosen


def _by_maker(values: NDArray[np.float64], spread: NDArray[np.int64]) -> NDArray[np.float64]:
    found = np.zeros(spread.max() + 1)
    np.maximum.at(found, spread, values)
    return found


def _factors(
    size: NDArray[np.float64], largest: NDArray[np.float64], alpha: float, beta: float
) -> NDArray[np.float32]:
    """With a geometric mean of 1; a channel that is always 0 counts as a small one."""
    a = np.maximum(size, 1e-4 * size.max() + 1e-30)
    w = np.maximum(largest, 1e-4 * largest.max() + 1e-30)
    logs = alpha * np.log(a) - beta * np.log(w)
    found: NDArray[np.float32] = np.exp(logs - logs.mean()).astype(np.float32)
    return found
