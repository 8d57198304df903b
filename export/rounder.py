"""A float graph, and what its products are fed with: from these, graphs of any rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor

from export import faults, gptq, losses, quantize
from export.calibrate import Sample, vocabulary
from export.edit import Edit
from export.products import PASSED, Product, products, tables
from export.rounding import Codes, Rounding, block_for, nearest

Recipe = Mapping[str, Rounding]  # by product; what is not in it stays as it is


class Rounder:
    """Rounds the products of a float graph; what was rounded once is kept."""

    def __init__(self, graph: Path, sample: Sample) -> None:
        self.graph = graph
        model = onnx.load(graph)
        self._edit = Edit(model)
        self._sample = sample
        self.products = products(self._edit)
        self._tables = tables(self._edit)
        self.vocabulary = vocabulary(self._edit)
        self.other_nodes = len(model.graph.node) - len(self.products)
        self.projections = faults.projections(model)
        self._codes: dict[tuple[str, Rounding], Codes] = {}

    def inputs(self, one: Product) -> Tensor:
        """What a product is fed with along the sample's text (n, width)."""
        return torch.from_numpy(np.asarray(self._sample.inputs[self._value(one)]))

    def _value(self, one: Product) -> str:
        return self._edit.behind(one.source, PASSED)

    def is_head(self, one: Product) -> bool:
        """Whether a product makes the logits."""
        return bool(one.source) and one.shape[0] == self.vocabulary

    def codes(self, one: Product, rounding: Rounding) -> Codes:
        """A product's weights in codes: of 4 bits by GPTQ, of 8 to the nearest.

        With 8 bits it is the activations' rounding that is left to lose by, and making up for the
        weights' gains nothing (docs/quantization.md); nor is there anything to make up for in a
        table that is no product.
        """
        key = one.name, rounding
        if key not in self._codes:
            if one.source and rounding.bits == 4:
                self._codes[key] = gptq.codes(one.weight, self.inputs(one), rounding)
            else:
                self._codes[key] = nearest(one.weight, rounding)
        return self._codes[key]

    def losses(self, one: Product, codes: Iterable[Codes]) -> list[float]:
        """What a product's codes cost, in nats a token (``losses``)."""
        weight = torch.from_numpy(np.array(one.weight))
        if one.source:
            x = self._sample.some(self._value(one))
            x = losses.of_head(x) if self.is_head(one) else x
            right = x @ weight.T
        slopes = self._sample.gradients.get(one.name)
        gradient = None if slopes is None else losses.some(slopes)
        found = []
        for made in codes:
            rounded, block, lost = torch.from_numpy(made.values()), made.rounding.block, 0.0
            if one.tied:
                gathered = self._sample.gradients[self._tables[one.stored].output[0]]
                lost += losses.table(weight, rounded, self._sample.ids, gathered)
            if self.is_head(one):
                lost += losses.head(x, right, rounded, block)
            elif one.source:
                lost += losses.product(x, right, rounded, block, gradient)
            found.append(lost)
        return found

    def rounded(self, recipe: Recipe) -> onnx.ModelProto:
        """The graph by a recipe."""
        model = onnx.load(self.graph)

        def coder(one: Product) -> Codes | None:
            rounding = recipe.get(one.name)
            return None if rounding is None else self.codes(one, rounding)

        quantize.quantize(model, coder)
        return model


def eight(rounder: Rounder) -> dict[str, Rounding]:
    """All in 8 bits, the same for every model and device.

    In blocks of 64 where a product takes more than it gives (the way down of a layer, whose inputs
    differ the most), else of 256, or what divides the rows.
    """
    return {
        one.name: Rounding(8, block_for(one.shape[1], 64 if one.wide else 256))
        for one in rounder.products
    }


def four(rounder: Rounder) -> dict[str, Rounding]:
    """4 bits in the products that give as much as they take or more, 8 in the others.

    In blocks of 32: query, key and value; the way out; gate and up.
    """
    return {
        one.name: Rounding(4, block_for(one.shape[1], 32), True)
        if one.shape[0] >= one.shape[1] and one.source and not rounder.is_head(one)
        else Rounding(8, block_for(one.shape[1], 64))
        for one in rounder.products
    }


def size(rounder: Rounder, recipe: Recipe) -> int:
    """The bytes of codes."""
    return sum(recipe[one.name].size(one.shape) for one in rounder.products if one.name in recipe)
