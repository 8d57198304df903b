"""What the head and the way out take in another basis, so that no channel is large.

The function stays.

x Wᵀ = (x Q) (W Q)ᵀ for an orthogonal Q. With a Q whose entries are all of a size, each channel of
x Q has a part of all of x, and a block's step suits everything in it (QuaRot, arXiv 2404.00456). A
model's head has the outlying channels of its last norm, most of a small draft's weights, and no
norm behind it that forgives: there one more product of (width, width), in float32, is next to
nothing beside the head. A table that embeds and is the head is W Q then, and what is gathered from
it is turned back by another. A head of attention gives means of its values, so that these can be
turned where they are made, and nothing is added at all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from export import fold as folding
from export.edit import Edit, put
from export.fold import Fold
from export.products import TURNED, Product

SEED = 0  # of the signs


def orthogonal(size: int) -> NDArray[np.float64]:
    """(size, size), Q = Qᵀ and QQ = 1, no entry far from the others in size.

    Sylvester's Hadamard matrix for what of the size is a power of two, Hartley's for the rest (a
    real Fourier matrix, which there is for every size), with random signs for the channels, on
    both sides: it is its own inverse, and a graph that turns back holds one matrix.
    """
    power = size & -size
    whole = np.ones((1, 1))
    while len(whole) < power:
        whole = np.block([[whole, whole], [whole, -whole]])
    angles = 2 * np.pi * np.outer(np.arange(size // power), np.arange(size // power))
    angles /= size // power
    signs = np.random.default_rng([SEED, size]).choice([-1.0, 1.0], size)
    turned = np.kron(whole, np.cos(angles) + np.sin(angles))
    found: NDArray[np.float64] = signs[:, None] * turned * signs / np.sqrt(size)
    return found


def per_head(value: NDArray[Any], size: int) -> NDArray[np.float32]:
    """Along the last axis, in parts of ``size``, each in the new basis."""
    parts = value.reshape(*value.shape[:-1], -1, size) @ orthogonal(size)
    return parts.reshape(value.shape).astype(np.float32)


def rotate_values(edit: Edit, fold: Fold, size: int) -> None:
    """Turn the values of attention's heads, of ``size`` channels, and what takes their means."""
    rows = fold.rows
    assert rows is not None
    here = slice(rows.begin, rows.end)

    def made(value: NDArray[np.float32]) -> NDArray[np.float32]:
        found = value.copy()
        found[..., here] = per_head(value[..., here], size)
        return found

    folding.change_weight(edit, rows.product, lambda weight: made(weight.T).T)
    if rows.bias is not None:
        folding.change(edit, *rows.bias, made)
    for one in fold.readers:
        folding.change_weight(edit, one, lambda weight: per_head(weight, size))


def rotate(edit: Edit, head: Product, table: NodeProto | None) -> str:
    """Turn what a product takes; the new name of that. ``table``: the Gather that reads its weight.

    The Gather's output gets a new name, too: what it gives is in the new basis.
    """
    basis = orthogonal(head.shape[1]).astype(np.float32)
    if table is None:
        folding.change_weight(edit, head, lambda weight: weight @ basis)
    else:
        tensor = edit.constants[table.input[0]]
        put(tensor, numpy_helper.to_array(tensor) @ basis)
        gathered = table.output[0]
        table.output[0] = gathered + TURNED
        after = list(edit.graph.node).index(table) + 1
        edit.graph.node.insert(after, _multiply(edit, table.output[0], basis, gathered))
    node = edit.maker[head.name]
    name = str(node.input[0])
    node.input[0] = name + TURNED
    edit.before(node, [_multiply(edit, name, basis, node.input[0])])
    return name + TURNED


def _multiply(edit: Edit, source: str, matrix: NDArray[np.float32], target: str) -> NodeProto:
    """A product that is not rounded."""
    inputs = [source, edit.add_constant(f"turned.{len(matrix)}.basis", matrix)]
    made = helper.make_node("MatMul", inputs, [target], target.removesuffix(TURNED) + TURNED)
    edit.maker[target] = made
    edit.readers[source] = [made]
    return made
