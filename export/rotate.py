"""The residual stream and the heads' values in another basis; the function stays.

|x Q| = |x| for an orthogonal Q: an RMS norm without a gain does not care in which basis it is. So
gains go into the products behind the norms, whatever writes to the stream is turned, and whatever
reads it turns back: no channel is large any more, and the step of a block suits all that is in it
(QuaRot, arXiv 2404.00456; SliceGPT, arXiv 2401.15024). Likewise a head's values, and the columns of
the way out that take them. Nothing is added to the graph, but where a table embeds and is the head:
it is E diag(g) Q then, as the head wants it, and what is gathered from it is multiplied by
Qᵀ diag(1/g) Q, which is small.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export import fold as folding
from export.edit import Edit, attributes
from export.fold import Fold
from export.products import TURNED
from export.stream import Stream, stream

SEED = 0  # of the signs
ROWS = 8192  # turned at a time
# Of a gain, relative to the largest: what is smaller has no inverse that a table bears.
LEAST_GAIN = 1e-3
Gradients = dict[str, NDArray[np.float32]]
Turn = Callable[[NDArray[np.float64]], NDArray[np.float64]]
Turned = Callable[[NDArray[np.float32]], NDArray[np.float64]]


def orthogonal(size: int) -> NDArray[np.float64]:
    """(size, size), QᵀQ = 1, no entry far from the others in size.

    Sylvester's Hadamard matrix for what of the size is a power of two, Hartley's for the rest (a
    real Fourier matrix, which there is for every size), with random signs for the channels.
    """
    power = size & -size
    whole = np.ones((1, 1))
    while len(whole) < power:
        whole = np.block([[whole, whole], [whole, -whole]])
    angles = 2 * np.pi * np.outer(np.arange(size // power), np.arange(size // power))
    angles /= size // power
    signs = np.random.default_rng([SEED, size]).choice([-1.0, 1.0], size)
    turned = np.kron(whole, np.cos(angles) + np.sin(angles))
    found: NDArray[np.float64] = signs[:, None] * turned / np.sqrt(size)
    return found


def rotate(model: onnx.ModelProto, gradients: Gradients) -> bool:
    """Turn a float graph in place, and gradients with regard to products' outputs with it.

    Whether its stream could be turned, too: the heads' values always are, where there is a fold.
    """
    edit = Edit(model)
    for fold in folding.folds(edit):
        if edit.maker[fold.value].op_type == "GroupQueryAttention":
            _values(edit, fold, gradients)
    found = stream(edit)
    if found is not None and not _invertible(edit, found):
        found = None
    if found is not None:
        _stream(edit, found, orthogonal(found.width), gradients)
    edit.sweep()
    return found is not None


def _invertible(edit: Edit, found: Stream) -> bool:
    """Whether what is gathered from the head's rows can be had back."""
    for norm in found.norms:
        if found.head in norm.readers:
            gain = np.abs(np.asarray(edit.array(norm.node.input[norm.place])))
            return bool(gain.min() >= LEAST_GAIN * gain.max())
    return True


def _whole(turn: Turn) -> Turned:
    """A turn in float64."""
    return lambda value: turn(value.astype(np.float64))


def _behind(gain: NDArray[np.float64], basis: NDArray[np.float64]) -> Turned:
    """The turn of weights that take what a norm with this gain gave."""
    return _whole(lambda w: (w * gain) @ basis)


def _values(edit: Edit, fold: Fold, gradients: Gradients) -> None:
    """Each head's values, and what takes its mean of them."""
    options = attributes(edit.maker[fold.value])
    size = len(fold.spread) // int(options["num_heads"])
    basis = orthogonal(size)
    rows = fold.rows
    assert rows is not None

    def channels(value: NDArray[np.float64]) -> NDArray[np.float64]:
        """Along the last axis, head by head."""
        return (value.reshape(*value.shape[:-1], -1, size) @ basis).reshape(value.shape)

    def made(value: NDArray[np.float64]) -> NDArray[np.float64]:
        found = value.copy()
        found[..., rows.begin : rows.end] = channels(value[..., rows.begin : rows.end])
        return found

    folding.change_weight(edit, rows.product, _whole(lambda w: made(w.T).T))
    if rows.bias is not None:
        folding.change(edit, *rows.bias, _whole(made))
    for one in fold.readers:
        folding.change_weight(edit, one, _whole(channels))
    if rows.product.name in gradients:
        gradients[rows.product.name] = _whole(made)(gradients[rows.product.name]).astype(np.float32)


def _stream(edit: Edit, found: Stream, basis: NDArray[np.float64], gradients: Gradients) -> None:
    gain = np.ones(found.width)
    for norm in found.norms:
        here = np.asarray(edit.array(norm.node.input[norm.place]), np.float64)
        if found.head in norm.readers:
            gain = here
        else:
            for one in norm.readers:
                folding.change_weight(edit, one, _behind(here, basis))
        folding.change(edit, norm.node, norm.place, np.ones_like)
    for one in found.writers:
        folding.change_weight(edit, one, _whole(lambda w: basis.T @ w))
        _turn(gradients, one.name, basis)
    for node, place in found.added:
        folding.change(edit, node, place, _whole(lambda b: b @ basis))
    _embedded(edit, found, gain, basis, gradients)


def _embedded(
    edit: Edit,
    found: Stream,
    gain: NDArray[np.float64],
    basis: NDArray[np.float64],
    gradients: Gradients,
) -> None:
    """The table, and the head where it is the same. ``gain``: of the norm before that head."""
    node, gathered = found.table, found.table.output[0]
    tensor = edit.constants[node.input[0]]
    value = np.array(numpy_helper.to_array(tensor))
    for begin in range(0, len(value), ROWS):
        value[begin : begin + ROWS] = (value[begin : begin + ROWS] * gain) @ basis
    tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    back = basis / gain[:, None]
    if found.head is None or (gain == 1).all():
        _turn(gradients, gathered, back)
        return
    if (own := edit.maker[found.head.name].input[1]) in edit.constants and own != tensor.name:
        folding.change_weight(edit, found.head, lambda _: value)
    node.output[0] = f"{gathered}.stored"
    matrix = edit.add_constant(f"{gathered}.basis", (basis.T @ back).astype(np.float32))
    name = gathered + TURNED
    made = helper.make_node("MatMul", [node.output[0], matrix], [gathered], name)
    edit.graph.node.insert(list(edit.graph.node).index(node) + 1, made)
    if gathered in gradients:
        gradients[node.output[0]] = (gradients.pop(gathered) @ back).astype(np.float32)


def _turn(gradients: Gradients, name: str, basis: NDArray[np.float64]) -> None:
    if name in gradients:
        gradients[name] = (gradients[name] @ basis).astype(np.float32)
