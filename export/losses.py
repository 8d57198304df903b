"""What the rounding of one matrix costs a draft, reckoned without running the whole of it.

The text is the model's own, so the gradient g of its log-likelihood is the score of Fisher's
information: an output that moves by d moves the distribution by a KL divergence of E[(g·d)²] / 2,
to second order. Products err independently, so that their divergences add; TV, and with it the
acceptance that is lost, goes as the root of the sum.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.rounding import activations

POSITIONS = 512  # that losses are reckoned over
OF_HEAD = 64  # and that of the head, which has as many outputs as there are tokens


def places(count: int) -> NDArray[np.int64]:
    """At even distances among ``count``, at most ``POSITIONS``, ascending."""
    return np.linspace(0, count - 1, min(POSITIONS, count)).astype(np.int64)


def some(array: NDArray[np.float32]) -> Tensor:
    """The rows of (n, width) at ``places``."""
    return torch.from_numpy(np.ascontiguousarray(array[places(len(array))]))


def product(
    x: Tensor, right: Tensor, rounded: Tensor, block: int, gradient: Tensor | None
) -> float:
    """The divergence, nats a token, of weights (rows, width) ``rounded``, on inputs (n, width).

    ``right``: (n, rows), what the weights themselves make of the inputs. ``gradient``: (n, rows).
    Without it, the mean squared change relative to the output: good for comparing roundings of one
    matrix, and no divergence.
    """
    moved = activations(x, block) @ rounded.T
    moved -= right
    if gradient is None:
        return float(moved.square().mean() / right.square().mean().clamp(min=1e-30))
    return float((moved * gradient).sum(-1).square().mean() / 2)


def table(
    weight: Tensor, rounded: Tensor, ids: NDArray[np.int64], gradient: NDArray[np.float32]
) -> float:
    """The same of a table of embeddings, (V, width), along ``ids`` (n,); gradients (n, width)."""
    rows = torch.from_numpy(ids)
    moved = rounded[rows] - weight[rows]
    return float((moved * torch.from_numpy(gradient)).sum(-1).square().mean() / 2)


def of_head(x: Tensor) -> Tensor:
    """The rows of its inputs (n, width) that the head is reckoned on."""
    return x[:: -(-len(x) // OF_HEAD)]


def head(x: Tensor, logits: Tensor, rounded: Tensor, block: int) -> float:
    """The same of the head, whose outputs (n, V) are the logits: Var_p[d] / 2."""
    moved = activations(x, block) @ rounded.T
    moved -= logits
    p = logits.softmax(-1)
    mean = (p * moved).sum(-1)
    return float(((p * moved.square()).sum(-1) - mean.square()).mean() / 2)
