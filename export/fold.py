"""Channels rescaled between what makes a value and the products that take it; the function stays.

y = (x / s) (diag(s) W): where x is a norm's output, 1/s goes into the norm's weights; where it is a
gate times a product, into that product's rows; where it is what attention makes of values, into the
rows that the values come from. So neither weights nor activations have channels that take the steps
of all others in their block (SmoothQuant, arXiv 2211.10438; AWQ, arXiv 2306.00978), and nothing is
added to the graph. Where anything else reads the value, or its maker cannot take the factor, there
is no such fold: nothing here knows an architecture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from export.edit import Edit, attributes, put
from export.products import PASSED, Product, products, tables

# A norm's weight and bias among its inputs.
NORMS = {
    "SimplifiedLayerNormalization": (1,),
    "RMSNormalization": (1,),
    "LayerNormalization": (1, 2),
    "SkipSimplifiedLayerNormalization": (2,),
    "SkipLayerNormalization": (2, 3),
}


@dataclass(frozen=True)
class Rows:
    """Output channels ``begin`` to ``end`` of a product, and of the bias that is added to it."""

    product: Product
    begin: int
    end: int
    bias: tuple[NodeProto, int] | None


@dataclass(frozen=True)
class Fold:
    """A value whose channels may be divided where it is made and multiplied where it is taken."""

    value: str
    readers: tuple[Product, ...]
    norm: tuple[tuple[NodeProto, int], ...] | None  # constants (width,) that make it, or
    rows: Rows | None  # the rows of a product that do
    # The channel of its maker that each of its own comes from: heads share keys and values.
    spread: NDArray[np.int64]
    # A table that embeds and is the head: what it gives to embed is divided again.
    table: NodeProto | None = None
    heads: int = 0  # of attention, where its output is the value


def folds(edit: Edit) -> list[Fold]:
    """All of a graph, those before first."""
    by_source: dict[str, list[Product]] = {}
    known = products(edit)
    by_name = {one.name: one for one in known if one.source}
    embeds = tables(edit)
    for one in known:
        if one.source:
            by_source.setdefault(edit.behind(one.source, PASSED), []).append(one)
    found = []
    for value, readers in by_source.items():
        maker = edit.maker.get(value)
        width = readers[0].shape[1]
        if maker is None or not read_by(edit, value, {one.name for one in readers}):
            continue
        table = _table(edit, readers, embeds)
        if table or all(one.shape[1] == width and owns(edit, one) for one in readers):
            made = _fold(edit, maker, value, tuple(readers), width, by_name)
            if made is not None:
                found.append(replace(made, table=table))
    return found


def _table(edit: Edit, readers: list[Product], embeds: dict[str, NodeProto]) -> NodeProto | None:
    """What gathers the rows of a tied head, where these two alone read the table."""
    if len(readers) != 1 or not readers[0].tied:
        return None
    name = edit.maker[readers[0].name].input[1]
    return embeds[name] if name in embeds and len(edit.readers[name]) == 2 else None


def owns(edit: Edit, one: Product) -> bool:
    """Whether a product's weights are a constant of its own: no table, nothing computed."""
    return not one.tied and edit.maker[one.name].input[1] in edit.constants


def read_by(edit: Edit, value: str, names: set[str]) -> bool:
    """Whether these products, and nothing else, read a value, as it is."""
    pending = [value]
    outputs = {one.name for one in edit.graph.output}
    while pending:
        name = pending.pop()
        if name in outputs:
            return False
        for node in edit.readers.get(name, []):
            if node.op_type in PASSED and node.input[0] == name and name not in node.input[1:]:
                pending += node.output
            elif node.output[0] not in names or node.input[0] != name:
                return False
    return True


def _fold(
    edit: Edit,
    maker: NodeProto,
    value: str,
    readers: tuple[Product, ...],
    width: int,
    by_name: dict[str, Product],
) -> Fold | None:
    same = np.arange(width)
    if maker.op_type in NORMS and maker.output[0] == value:
        places = [(maker, i) for i in NORMS[maker.op_type] if i < len(maker.input)]
        places = [place for place in places if maker.input[place[1]]]
        if all(vector(edit, maker.input[i], width) for _, i in places):
            return Fold(value, readers, tuple(places), None, same)
    elif maker.op_type == "Mul":
        for index in (0, 1):
            if vector(edit, maker.input[index], width):
                return Fold(value, readers, ((maker, index),), None, same)
            rows = _rows(edit, maker.input[index], width, by_name)
            if rows is not None:
                return Fold(value, readers, None, rows, same)
    elif maker.op_type == "GroupQueryAttention" and maker.output[0] == value:
        return _through_attention(edit, maker, value, readers, width, by_name)
    return None


def _through_attention(
    edit: Edit,
    node: NodeProto,
    value: str,
    readers: tuple[Product, ...],
    width: int,
    by_name: dict[str, Product],
) -> Fold | None:
    """Each head's output is a mean of its group's values: a factor on those is one on it."""
    options = attributes(node)
    heads, groups = int(options["num_heads"]), int(options["kv_num_heads"])
    size = width // heads
    packed = not node.input[2]
    rows = _rows(edit, node.input[0 if packed else 2], None, by_name)
    if rows is None or rows.end - rows.begin != size * (groups + packed * (heads + groups)):
        return None
    rows = Rows(rows.product, rows.end - size * groups, rows.end, rows.bias)
    head, channel = np.divmod(np.arange(width), size)
    spread = head // (heads // groups) * size + channel
    return Fold(value, readers, None, rows, spread, heads=heads)


def vector(edit: Edit, name: str, width: int) -> bool:
    """Whether a value is a constant vector of this width."""
    tensor = edit.constants.get(name)
    return tensor is not None and list(tensor.dims) == [width]


def _rows(edit: Edit, value: str, width: int | None, by_name: dict[str, Product]) -> Rows | None:
    """The rows of a product that make a value which one node alone reads, ``width`` of them."""
    if not _read_once(edit, value):
        return None
    begin, end, name = 0, None, value
    node = edit.maker.get(value)
    if node is not None and node.op_type == "Split":
        sizes = edit.array(node.input[1]) if len(node.input) > 1 else None
        if sizes is None or attributes(node).get("axis") != -1:
            return None
        index = list(node.output).index(name)
        begin, end = int(sizes[:index].sum()), int(sizes[: index + 1].sum())
        name = node.input[0]
    found = _of_product(edit, name, by_name) if _read_once(edit, name) else None
    if found is None:
        return None
    end = found.end if end is None else end
    return Rows(found.product, begin, end, found.bias) if width in (None, end - begin) else None


def _read_once(edit: Edit, name: str) -> bool:
    readers = edit.readers.get(name, [])
    return len(readers) == 1 and list(readers[0].input).count(name) == 1


def _of_product(edit: Edit, name: str, by_name: dict[str, Product]) -> Rows | None:
    """All rows of the product that a value is, its bias added."""
    node, bias = edit.maker.get(name), None
    if node is not None and node.op_type == "Add":
        places = [i for i in (0, 1) if node.input[i] in edit.constants]
        if len(places) != 1 or len(edit.constants[node.input[places[0]]].dims) != 1:
            return None
        bias = (node, places[0])
        behind = node.input[1 - places[0]]
        node = edit.maker.get(behind) if _read_once(edit, behind) else None
    if node is None or node.output[0] not in by_name:
        return None
    one = by_name[node.output[0]]
    if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
        bias = (node, 2)
    rows = one.shape[0]
    if not owns(edit, one) or (bias and not vector(edit, bias[0].input[bias[1]], rows)):
        return None
    return Rows(one, 0, rows, bias)


def weight(edit: Edit, one: Product) -> NDArray[np.float32]:
    """The product's weight (out, in) as it is by now."""
    value = numpy_helper.to_array(edit.constants[edit.maker[one.name].input[1]])
    return value if one.turned else value.T


def apply(edit: Edit, fold: Fold, factors: NDArray[np.float32]) -> None:
    """Divide by ``factors`` (channels of the maker) where the value is made, multiply behind it.

    Constants are changed in place, or copied where others read them, too.
    """
    if fold.norm is not None:
        for node, index in fold.norm:
            change(edit, node, index, lambda old: old / factors)
    elif fold.rows is not None:
        rows = fold.rows
        spread = np.ones(rows.product.shape[0], np.float32)
        spread[rows.begin : rows.end] = factors
        change_weight(edit, rows.product, lambda w: w / spread[:, None])
        if rows.bias is not None:
            change(edit, *rows.bias, lambda old: old / spread)
    behind = factors[fold.spread]
    if fold.table is not None:
        tensor = edit.constants[fold.table.input[0]]
        put(tensor, numpy_helper.to_array(tensor) * behind)
        _divide(edit, fold.table, behind)
        return
    for one in fold.readers:
        change_weight(edit, one, lambda w: w * behind)


def _divide(edit: Edit, node: NodeProto, factors: NDArray[np.float32]) -> None:
    """Divide what a node gives."""
    name = node.output[0]
    node.output[0] = f"{name}.scaled"
    inverse = edit.add_constant(f"{name}.factors", 1 / factors)
    made = helper.make_node("Mul", [node.output[0], inverse], [name], f"{name}.rescaled")
    place = list(edit.graph.node).index(node)
    edit.graph.node.insert(place + 1, made)
    edit.maker[node.output[0]], edit.maker[name] = node, made


def change_weight(edit: Edit, one: Product, by: Any) -> None:
    """Another weight for a product, ``by`` a function of (out, in)."""
    node = edit.maker[one.name]
    change(edit, node, 1, by if one.turned else lambda old: by(old.T).T)


def change(edit: Edit, node: NodeProto, index: int, by: Any) -> None:
    """Another value for a node's constant, in place, or a copy where others read it, too."""
    name = node.input[index]
    tensor = edit.constants[name]
    value = np.ascontiguousarray(by(numpy_helper.to_array(tensor)), dtype=np.float32)
    if len(edit.readers[name]) == 1 and list(edit.readers[name][0].input).count(name) == 1:
        put(tensor, value)
        return
    new = edit.add_constant(f"{name}.{node.output[0]}", value)
    edit.readers[name] = [other for other in edit.readers[name] if other is not node]
    edit.readers[new] = [node]
    node.input[index] = new
