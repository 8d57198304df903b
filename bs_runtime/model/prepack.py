"""Weights laid out once for oneDNN, so that a few rows cost about what one row costs.

The plain float32 product lays the weight out anew in every call of more than one row, which is most
of what verifying a short draft costs. A packed weight pays for it once, at load.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
LINEAR = (nn.Linear, Conv1D)  # exactly: a subclass may compute something else


def padded(rows: int) -> int:
    """Rows that a product of ``rows`` rows is made of: as many, or less than an eighth more."""
    step = 1 << max(0, (rows - 1).bit_length() - LEVELS.bit_length())
    return -(-rows // step) * step


def in_few_shapes(product: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """``product`` of x (..., in_features), made of products of few numbers of rows."""
    *shape, width = x.shape
    rows = math.prod(shape)
    if rows == padded(rows) <= MOST:
        return product(x)
    parts = []
    for part in x.reshape(rows, width).split(MOST):
        count = len(part)
        parts.append(product(functional.pad(part, (0, 0, 0, padded(count) - count)))[:count])
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return whole.view(*shape, whole.shape[-1])


class PackedLinear(nn.Module):
    """``x @ weight.T + bias`` for float32 ``x`` of any number of rows; inference only."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        # No parameter or buffer: the packed layout is opaque, it cannot be moved, cast or saved.
        self.packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.bias = bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        return in_few_shapes(self._product, x)

    def _product(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self.packed, self.bias, "none", [], ""
        )
        return product


class PlainLinear(nn.Module):
    """A linear layer that PyTorch hands to oneDNN as it is, in few shapes."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        return in_few_shapes(self.layer, x)


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
            if type(layer) in LINEAR:
                weight: Any = layer.weight
                if weight.dtype == torch.bfloat16 and weight.device.type == "cpu":
                    setattr(parent, name, PlainLinear(layer))


def _weight_elements(layer: Any) -> int:
    return layer.weight.numel() if type(layer) in LINEAR else 0


def _pack(layer: Any) -> PackedLinear:
    weight = layer.weight.detach()
    if isinstance(layer, Conv1D):  # GPT-2 keeps (in_features, out_features)
        weight = weight.t().contiguous()
    return PackedLinear(weight, None if layer.bias is None else layer.bias.detach())
