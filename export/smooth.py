"""By what channels are rescaled: for each value, the exponents that lose the least (AWQ's search).

The factor of a channel is a^α / w^β, a being the size of its activations, w that of its weights.
What the head and the way out of attention take is rotated (``rotate``) where less is lost then.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor

from export import fold as folding
from export import losses, rotate
from export.calibrate import Sample, vocabulary
from export.edit import Edit
from export.fold import Fold
from export.rounding import Rounding, block_for, nearest

# α and β, those first that are taken the most: activations alone by degrees, both (SmoothQuant's),
# none, weights alone.
EXPONENTS = (
    *((0.5, 0.0), (0.75, 0.25), (0.25, 0.0), (0.5, 0.5), (0.75, 0.0), (0.0, 0.0), (0.0, 0.5)),
    (1.0, 0.0),
)
# Of the head, as large as all others together: fewer.
OF_HEAD = ((0.5, 0.5), (0.25, 0.0), (0.5, 0.0))
TURNS = (False, True)  # whether rotated, where that can be
Factors = NDArray[np.float32]


def smooth(
    model: onnx.ModelProto, sample: Sample, bits: int, block: int, pairs: int = len(EXPONENTS)
) -> dict[str, str]:
    """Rescale a float graph in place, and the sample with it; what was chosen, by value.

    What the head takes is rotated, too, where less is lost then. ``bits`` and ``block``: those that
    all this is chosen for. ``pairs``: of exponents that are tried.
    """
    edit = Edit(model)
    told = {}
    for fold in folding.folds(edit):
        at = Rounding(bits, block_for(len(fold.spread), block))
        told[fold.value], factors, turned = _best(fold, edit, sample, at, pairs)
        if factors is not None:
            _rescale(edit, fold, factors, sample)
        if turned and fold.heads:
            _rotate_values(edit, fold, sample)
        elif turned:
            _rotate(edit, fold, sample)
    edit.sweep()
    return told


def _rescale(edit: Edit, fold: Fold, factors: Factors, sample: Sample) -> None:
    gathered = "" if fold.table is None else fold.table.output[0]
    folding.apply(edit, fold, factors)
    sample.inputs[fold.value][:] /= factors[fold.spread]
    if fold.table is not None:
        sample.gradients[fold.table.output[0]] = sample.gradients.pop(gathered) / factors
    if fold.rows is not None and fold.rows.product.name in sample.gradients:
        part = sample.gradients[fold.rows.product.name]
        part[:, fold.rows.begin : fold.rows.end] *= factors


def _rotate(edit: Edit, fold: Fold, sample: Sample) -> None:
    (head,) = fold.readers
    gathered = "" if fold.table is None else fold.table.output[0]
    basis = rotate.orthogonal(head.shape[1]).astype(np.float32)
    name = rotate.rotate(edit, head, fold.table)
    sample.inputs[name] = sample.inputs[fold.value] @ basis
    if fold.table is not None:
        sample.gradients[fold.table.output[0]] = sample.gradients.pop(gathered) @ basis


def _rotate_values(edit: Edit, fold: Fold, sample: Sample) -> None:
    size = len(fold.spread) // fold.heads
    rotate.rotate_values(edit, fold, size)
    sample.inputs[fold.value][:] = rotate.per_head(sample.inputs[fold.value], size)
    if fold.rows is not None and fold.rows.product.name in sample.gradients:
        part = sample.gradients[fold.rows.product.name][:, fold.rows.begin : fold.rows.end]
        part[:] = rotate.per_head(part, size)


def _best(
    fold: Fold, edit: Edit, sample: Sample, at: Rounding, pairs: int
) -> tuple[str, Factors | None, bool]:
    inputs = sample.inputs[fold.value]
    weights = [folding.weight(edit, one) for one in fold.readers]
    active = _by_maker(np.sqrt(np.square(inputs).mean(0, dtype=np.float64)), fold.spread)
    largest = _by_maker(np.max([np.abs(w).max(0) for w in weights], axis=0), fold.spread)
    x = sample.some(fold.value)
    if [one.shape[0] for one in fold.readers] == [vocabulary(edit)]:
        return _best_head(fold, weights[0], losses.of_head(x), (active, largest), sample, at)
    # What comes out is the same by any factors.
    rights = [x @ torch.from_numpy(np.array(w)).T for w in weights]
    slopes = [sample.gradients.get(one.name) for one in fold.readers]
    gradients = [None if one is None else losses.some(one) for one in slopes]
    least = np.inf
    chosen: tuple[str, Factors | None, bool] = ("", None, False)
    size = len(fold.spread) // fold.heads if fold.heads else 0
    for (alpha, beta), turned in itertools.product(EXPONENTS[:pairs], TURNS if size else (False,)):
        factors = _factors(active, largest, alpha, beta)
        spread = factors[fold.spread]
        scaled = x / torch.from_numpy(spread)
        if turned:
            scaled = torch.from_numpy(rotate.per_head(scaled.numpy(), size))
        lost = 0.0
        for w, right, gradient in zip(weights, rights, gradients, strict=True):
            whole = rotate.per_head(w * spread, size) if turned else w * spread
            rounded = torch.from_numpy(nearest(whole, at).values())
            lost += losses.product(scaled, right, rounded, at.block, gradient)
        if lost < least:
            said = f"{alpha} {beta}" + ", rotated" * turned
            least, chosen = lost, (said, factors if alpha or beta else None, turned)
    return chosen


def _best_head(
    fold: Fold,
    weight: NDArray[np.float32],
    x: Tensor,
    sizes: tuple[NDArray[np.float64], NDArray[np.float64]],
    sample: Sample,
    at: Rounding,
) -> tuple[str, Factors | None, bool]:
    """The same for the head, and a table that it shares; rotated and not."""
    logits = x @ torch.from_numpy(np.array(weight)).T
    basis = rotate.orthogonal(weight.shape[1]).astype(np.float32)
    least = np.inf
    chosen: tuple[str, Factors | None, bool] = ("", None, False)
    for (alpha, beta), turned in itertools.product(OF_HEAD, TURNS):
        factors = _factors(*sizes, alpha, beta)
        whole, scaled = weight * factors, x / torch.from_numpy(factors)
        if turned:
            whole, scaled = whole @ basis, scaled @ torch.from_numpy(basis)
        rounded = torch.from_numpy(nearest(whole, at).values())
        lost = losses.head(scaled, logits, rounded, at.block)
        if fold.table is not None:
            gradient: Factors = sample.gradients[fold.table.output[0]] / factors
            if turned:
                gradient = gradient @ basis
            lost += losses.table(torch.from_numpy(whole), rounded, sample.ids, gradient)
        if lost < least:
            said = f"{alpha} {beta}" + ", rotated" * turned
            least, chosen = lost, (said, factors if alpha or beta else None, turned)
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
