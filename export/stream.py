"""The residual stream of a graph: who writes to it, who reads it, in which norms.

Found in the traced graph, so that nothing here knows an architecture: from what the table of
embeddings gives, along sums and whatever passes channels on as they are. Where there is anything
else on the way there is no ``Stream``: a norm that centres (LayerNorm), norms behind products
(Gemma 2 and 3), learnt positions that are added (GPT-2), a product that reads no norm's output.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto

from export.edit import Edit
from export.fold import owns, read_by, vector
from export.products import PASSED, Product, products, tables

# RMS norms, by the place of their weight, and what else they give: the sum that they have made.
RMS = {"SimplifiedLayerNormalization": 1, "RMSNormalization": 1}
RMS_OF_SUM = {"SkipSimplifiedLayerNormalization": 2}
SUM = 3  # of its outputs


@dataclass(frozen=True)
class Norm:
    """An RMS norm of the stream, and the products that alone read it."""

    node: NodeProto
    place: int  # of its weight
    readers: tuple[Product, ...]


@dataclass(frozen=True)
class Stream:
    """Everything that knows in which basis the stream is."""

    width: int
    table: NodeProto  # the Gather of embeddings
    head: Product | None  # that reads the same table
    writers: tuple[Product, ...]
    added: tuple[tuple[NodeProto, int], ...]  # constant vectors that are added to it
    norms: tuple[Norm, ...]


class _Walk:
    """From value to value, both ways: what reads one, and what it is made of."""

    def __init__(self, edit: Edit, table: NodeProto) -> None:
        self._edit, self._table = edit, table
        self.width = int(edit.constants[table.input[0]].dims[1])
        self._known = {one.name: one for one in products(edit) if one.source}
        self._behind: dict[str, list[Product]] = {}
        for one in self._known.values():
            self._behind.setdefault(edit.behind(one.source, PASSED), []).append(one)
        self.seen: set[str] = set()
        self._pending: list[str] = []
        self.writers: dict[str, Product] = {}
        self.added: list[tuple[NodeProto, int]] = []
        self.norms: dict[str, Norm] = {}

    def whole(self) -> bool:
        """Whether all that the stream touches is of a kind that is known."""
        outputs = {one.name for one in self._edit.graph.output}
        self._pending = [self._table.output[0]]
        while self._pending:
            name = self._pending.pop()
            if name in self.seen:
                continue
            self.seen.add(name)
            readers = self._edit.readers.get(name, [])
            if (
                name in outputs
                or not self._made(name)
                or not all(map(self._read, readers, [name] * len(readers)))
            ):
                return False
        return True

    def _made(self, name: str) -> bool:
        node = self._edit.maker.get(name)
        if node is None or (node is self._table and name == node.output[0]):
            return node is not None
        if name in self._known:
            return self._written(self._known[name])
        if node.op_type in RMS_OF_SUM and list(node.output).index(name) == SUM:
            return True  # it reads what it sums
        return self._passed(node)

    def _written(self, one: Product) -> bool:
        if one.shape[0] != self.width or not owns(self._edit, one):
            return False
        self.writers[one.name] = one
        node = self._edit.maker[one.name]
        if node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]:
            return self._adds(node, 2)
        return True

    def _adds(self, node: NodeProto, place: int) -> bool:
        if not vector(self._edit, node.input[place], self.width):
            return False
        if not any(other is node and at == place for other, at in self.added):
            self.added.append((node, place))
        return True

    def _read(self, node: NodeProto, name: str) -> bool:
        """Whether a node that reads the stream under this name may be turned with it."""
        kind, given = node.op_type, list(node.input)
        if kind in RMS and name == given[0] and name not in given[1:]:
            return self._normed(node, RMS[kind])
        if kind in RMS_OF_SUM and name in given[:2]:
            self._pending += [*given[:2], *(one for one in node.output[SUM:] if one)]
            if len(given) > 3 and given[3] and not self._adds(node, 3):
                return False
            return self._normed(node, RMS_OF_SUM[kind])
        return name not in given[2:] and self._passed(node)

    def _passed(self, node: NodeProto) -> bool:
        """Whether a node gives the stream on, as it is or as a sum."""
        if node.op_type in PASSED:
            self._pending += [node.input[0], *node.output]
            return True
        return node.op_type in ("Add", "Mul") and self._summed(node)

    def _summed(self, node: NodeProto) -> bool:
        """A sum of two of the stream's, or with a constant vector; the stream times a number."""
        self._pending += node.output
        for place in (0, 1):
            tensor = self._edit.constants.get(node.input[place])
            if tensor is not None:
                self._pending.append(node.input[1 - place])
                if node.op_type == "Mul":
                    return all(size == 1 for size in tensor.dims)
                return self._adds(node, place)
        self._pending += node.input
        return node.op_type == "Add"

    def _normed(self, node: NodeProto, place: int) -> bool:
        value = node.output[0]
        readers = tuple(self._behind.get(value, ()))
        if any(name and self._edit.readers.get(name) for name in node.output[1:SUM]):
            return False
        self.norms[value] = Norm(node, place, readers)
        return (
            vector(self._edit, node.input[place], self.width)
            and bool(readers)
            and all(one.tied or owns(self._edit, one) for one in readers)
            and read_by(self._edit, value, {one.name for one in readers})
        )


def stream(edit: Edit) -> Stream | None:
    """That of a graph; None where it is not known whole, or has more than one table."""
    embeds = tables(edit)
    if len(embeds) != 1:
        return None
    ((name, table),) = embeds.items()
    walk = _Walk(edit, table)
    if not walk.whole():
        return None
    heads = [one for norm in walk.norms.values() for one in norm.readers if one.tied]
    tied = [one for one in products(edit) if one.tied and one.source]
    if len(tied) > 1 or tied != heads or not _read_by_these(edit, name, table, heads):
        return None
    norms = tuple(walk.norms.values())
    if heads and any(len(norm.readers) > 1 for norm in norms if heads[0] in norm.readers):
        return None
    return Stream(
        walk.width, table, heads[0] if heads else None, tuple(walk.writers.values()),
        tuple(walk.added), norms,
    )  # fmt: skip


def _read_by_these(edit: Edit, name: str, table: NodeProto, heads: list[Product]) -> bool:
    """Whether nothing but the embedding and the head reads the table."""
    allowed = [table]
    for one in heads:
        node = edit.maker[one.name]
        allowed += [node, *([edit.maker[node.input[1]]] if node.input[1] in edit.maker else [])]
    return all(any(node is other for other in allowed) for node in edit.readers[name])
