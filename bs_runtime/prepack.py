"""Weights laid out once for oneDNN, so that a few rows cost about what one row costs.

The plain float32 product lays the weight out anew in every call of more than one row, which is most
of what verifying a short draft costs. A packed weight pays for it once, at load.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

# Measured with 1 to 200 rows on models from the embedded pair's up: from here on packing wins at
# every number of rows, least at one (by 4%) and most at five (by 30%); below it nothing is left.
MIN_ELEMENTS = 1 << 15
# oneDNN makes a kernel and its memory for each number of rows that it meets, and keeps them: 2 MB
# and 3 ms in the embedded pair, up to 8 MB in one layer of 896 x 4864. Batches of devices, and
# prompts, have any number; so products have few, and a large one is made of several.
LEVELS = 8  # of rows between a power of two and the next
MOST = 256


def padded(rows: int) -> int:
    """Rows that a product of ``rows`` rows is made of: as many, or less than an eighth more."""
    step = 1 << max(0, (rows - 1).bit_length() - LEVELS.bit_length())
    return -(-rows // step) * step


class FewShapes(nn.Module):
    """``x @ weight.T + bias`` for ``x`` of any number of rows; its products have few."""

    def __init__(self, out_features: int, in_features: int) -> None:
        super().__init__()
        self.out_features, self.in_features = out_features, in_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        *shape, _ = x.shape
        rows = math.prod(shape)
        if rows == padded(rows) <= MOST:
            return self._product(x)
        parts = [self._padded(part) for part in x.reshape(rows, self.in_features).split(MOST)]
        whole = parts[0] if len(parts) == 1 else torch.cat(parts)
        return whole.view(*shape, self.out_features)

    def _padded(self, x: torch.Tensor) -> torch.Tensor:
        rows = len(x)
        return self._product(functional.pad(x, (0, 0, 0, padded(rows) - rows)))[:rows]

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class PackedLinear(FewShapes):
    """For float32; inference only."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(*weight.shape)
        # No parameter or buffer: the packed layout is opaque, it cannot be moved, cast or saved.
        self.packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = bias

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.packed, self.bias, "none", [], ""
        )
        return product


class PlainLinear(FewShapes):
    """For a layer that PyTorch hands to oneDNN as it is."""

    def __init__(self, layer: nn.Module, out_features: int, in_features: int) -> None:
        super().__init__(out_features, in_features)
        self.layer = layer

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self.layer(x)
        return product


def available() -> bool:
    """Whether this build of PyTorch has the packed product."""
    has_onednn: bool = torch.backends.mkldnn.is_available()
    return has_onednn and all(
        hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise")
    )


def pays(model: nn.Module) -> bool:
    """Whether packing is for this model: all of it in float32 on the CPU."""
    return available() and all(
        p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters()
    )


def prepack(model: nn.Module, min_elements: int = MIN_ELEMENTS) -> int:
    """Replace the large linear layers of ``model`` in place by packed ones; bytes held twice.

    Layers are packed one after the other and each plain weight is freed as soon as nothing else
    holds it, so the peak is one weight above the model. A head tied to the embedding is the
    exception: the embedding still looks rows up in the plain table, so that one stays (its bytes
    are what is returned).
    """
    groups: dict[tuple[int, int], list[tuple[nn.Module, str]]] = {}  # one per weight and bias
    for parent in model.modules():
        for name, layer in parent.named_children():
            if _weight_elements(layer) >= max(min_elements, 1):
                key = id(layer.weight), id(layer.bias)
                groups.setdefault(key, []).append((parent, name))
    for places in groups.values():
        packed = _pack(getattr(*places[0]))
        for parent, name in places:
            setattr(parent, name, packed)
    weights = {weight for weight, _ in groups}
    return sum(p.numel() * p.element_size() for p in model.parameters() if id(p) in weights)


def bound(model: nn.Module) -> None:
    """Give few shapes to the layers that PyTorch itself hands to oneDNN: bfloat16's on a CPU."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) not in (nn.Linear, Conv1D):
                continue
            weight: Any = layer.weight
            if weight.dtype == torch.bfloat16 and weight.device.type == "cpu":
                shape = weight.shape if type(layer) is nn.Linear else weight.shape[::-1]
                setattr(parent, name, PlainLinear(layer, *shape))


def _weight_elements(layer: Any) -> int:
    # Exact types: a subclass may compute something else.
    return layer.weight.numel() if type(layer) in (nn.Linear, Conv1D) else 0


def _pack(layer: Any) -> PackedLinear:
    weight = layer.weight.detach()
    if isinstance(layer, Conv1D):  # GPT-2 keeps (in_features, out_features)
        weight = weight.t().contiguous()
    return PackedLinear(weight, None if layer.bias is None else layer.bias.detach())
