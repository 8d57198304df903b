"""Weights laid out once for oneDNN where that is faster, so that a few rows cost about one row.

On many machines the plain float32 product lays the weight out anew in every call of more than one
row, which is most of what verifying a short draft costs; a packed weight pays for it once, at load.
On others the plain product is as quick for a few rows and quicker for one. So it is measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

# Below it nothing is left to win (1 to 200 rows, models from the embedded pair's up).
MIN_ELEMENTS = 1 << 15
# What decides: a token alone, and a short draft with the token behind it. Packing won both on one
# machine (by 4 and 30%), and lost a fifth of the first on another, whose plain product is MKL's.
ROWS = (1, 5)
TURNS = 9
SAMPLE_BYTES = 1 << 25  # of one shape's weights in a trial, so that caches do not hold them all
GAIN = 0.97  # of the plain time: less is not worth what a tied head's second copy takes
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


def packs(model: nn.Module) -> bool:
    """Whether packing is possible for this model: all of it in float32 on the CPU."""
    return available() and all(
        p.dtype == torch.float32 and p.device.type == "cpu" for p in model.parameters()
    )


def faster(layers: Sequence[nn.Module]) -> bool:
    """Whether packing quickens ``layers``, of one shape, by a trial: each way's best of some turns.

    The quickest of interleaved turns, as other work can only make a turn slower.
    """
    packed = [_pack(layer) for layer in layers]
    ways: tuple[Sequence[nn.Module], Sequence[nn.Module]] = (layers, packed)
    width = packed[0].in_features
    totals = [0.0, 0.0]
    with torch.inference_mode():
        for rows in ROWS:
            x = torch.ones(1, rows, width)
            taken: tuple[list[float], list[float]] = ([], [])
            for _ in range(TURNS):
                for way, times in zip(ways, taken, strict=True):
                    begun = time.perf_counter()
                    for layer in way:
                        layer(x)
                    times.append(time.perf_counter() - begun)
            totals = [total + min(times) for total, times in zip(totals, taken, strict=True)]
    return totals[1] < GAIN * totals[0]


def prepack(
    model: nn.Module,
    min_elements: int = MIN_ELEMENTS,
    pays: Callable[[Sequence[nn.Module]], bool] = faster,
) -> int:
    """Replace the large linear layers of ``model`` in place by packed ones; bytes held twice.

    ``pays``: whether it does for some layers of one shape; asked once for each shape. Layers are
    packed one after the other and each plain weight is freed as soon as nothing else holds it, so
    the peak is one trial above the model. A head tied to the embedding is the exception: the
    embedding still looks rows up in the plain table, so that one stays (its bytes are what is
    returned).
    """
    groups: dict[tuple[int, int], list[tuple[nn.Module, str]]] = {}  # one per weight and bias
    for parent in model.modules():
        for name, layer in parent.named_children():
            if _weight_elements(layer) >= max(min_elements, 1):
                key = id(layer.weight), id(layer.bias)
                groups.setdefault(key, []).append((parent, name))
    shapes: dict[tuple[Any, ...], list[tuple[int, int]]] = {}
    for key, places in groups.items():
        shapes.setdefault(_shape(getattr(*places[0])), []).append(key)
    held = set()
    for keys in shapes.values():
        if not pays(_sample([getattr(*groups[key][0]) for key in keys])):
            continue
        for key in keys:
            held.add(key[0])
            packed = _pack(getattr(*groups[key][0]))
            for parent, name in groups[key]:
                setattr(parent, name, packed)
    return sum(p.numel() * p.element_size() for p in model.parameters() if id(p) in held)


def bound(model: nn.Module) -> None:
    """Give few shapes to the layers that PyTorch itself hands to oneDNN: bfloat16's on a CPU."""
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if _weight_elements(layer):
                weight: Any = layer.weight
                if weight.dtype == torch.bfloat16 and weight.device.type == "cpu":
                    setattr(parent, name, PlainLinear(layer))


def _weight_elements(layer: Any) -> int:
    # Codes, too, may be some subclass's weights of a plain layer.
    plain = type(layer) in LINEAR and type(layer.weight) is nn.Parameter
    return layer.weight.numel() if plain else 0


def _shape(layer: Any) -> tuple[Any, ...]:
    """What layers have in common that take the same time."""
    return type(layer), tuple(layer.weight.shape), layer.bias is None


def _sample(layers: list[Any]) -> list[Any]:
    """As many of them as a trial takes, at least one."""
    size = layers[0].weight.numel() * layers[0].weight.element_size()
    return layers[: max(1, SAMPLE_BYTES // size)]


def _pack(layer: Any) -> PackedLinear:
    weight = layer.weight.detach()
    if isinstance(layer, Conv1D):  # GPT-2 keeps (in_features, out_features)
        weight = weight.t().contiguous()
    return PackedLinear(weight, None if layer.bias is None else layer.bias.detach())
