"""Which rounding: the front of what a draft loses against what it takes, and the choice on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from device_runtime.model import kernels
from device_runtime.model.costs import Costs, Kernel
from export.products import Product
from export.rounder import Rounder
from export.rounding import SMALLEST_BLOCK, Rounding, nearest

ENOUGH = 0.96  # of the mean sum of min(p, q): an insurance, where the target is unknown
PRICES = np.geomspace(1e-3, 1e7, 201)  # nats a second, of which each gives a plan


@dataclass(frozen=True)
class Option:
    """One way to round one product."""

    rounding: Rounding
    seconds: float
    bytes: int
    loss: float  # nats a token, as far as it can be reckoned


@dataclass(frozen=True)
class Plan:
    """A rounding for every product."""

    recipe: dict[str, Rounding]
    seconds: float  # of a forward of one token, reckoned by the costs
    bytes: int  # of the products
    loss: float


@dataclass(frozen=True)
class Point:
    """A plan whose graph was made and measured."""

    plan: Plan
    overlap: float
    error: float  # of the overlap, standard


def options(rounder: Rounder, one: Product, costs: Costs) -> list[Option]:
    """What may become of a product, by the kernels that the costs know.

    The head and tables stay at 8 bits where there is a fast kernel for them: their rows are read
    one by one, as embeddings, and nothing downstream averages what they lose.
    """
    rows, width = one.shape
    found = []
    for kernel in costs.kernels():
        if not _fits(kernel, one, rounder.is_head(one), costs):
            continue
        rounding = Rounding(kernel.bits, kernel.block, kernel.zero_points)
        seconds = costs.seconds(kernel, rows, width) if one.source else 0.0
        size = int(rows * width * rounding.bytes_per_weight)
        loss = rounder.loss(one, nearest(one.weight, rounding))
        found.append(Option(rounding, seconds, size, loss))
    return found


def _fits(kernel: Kernel, one: Product, is_head: bool, costs: Costs) -> bool:
    """Whether a kernel is one for a product, and no other is the same but better."""
    bits: tuple[int, ...] = (4, 8)
    if not kernels.has_int8(costs.machine, costs.features):
        bits = (4,)
    elif one.tied or is_head:
        bits = (8,)
    if kernel.bits not in bits:
        return False
    if one.shape[1] % kernel.block and (one.tied or kernel.block > SMALLEST_BLOCK):
        return False
    if one.tied:
        return not kernel.zero_points
    return kernel.zero_points or Kernel(kernel.bits, kernel.block, True) not in costs.kernels()


def plans(table: dict[str, list[Option]], rest_s: float) -> list[Plan]:
    """The lower hull of loss against time, from the least loss to the least time.

    For each price of a second every product takes the option with the least loss and price.
    """
    found: dict[tuple[Rounding, ...], Plan] = {}
    for price in PRICES:
        chosen = {
            name: min(some, key=lambda o: (o.loss + price * o.seconds, o.bytes, o.rounding))
            for name, some in table.items()
            if some
        }
        key = tuple(option.rounding for option in chosen.values())
        found.setdefault(
            key,
            Plan(
                {name: option.rounding for name, option in chosen.items()},
                rest_s + sum(option.seconds for option in chosen.values()),
                sum(option.bytes for option in chosen.values()),
                sum(option.loss for option in chosen.values()),
            ),
        )
    return sorted(found.values(), key=lambda plan: plan.loss)


def ladder(found: Sequence[Plan], count: int) -> list[Plan]:
    """``count`` of the plans, at even distances by the root of their loss, both ends among them."""
    if len(found) <= count:
        return list(found)
    roots = np.sqrt([plan.loss for plan in found])
    wanted = np.linspace(roots[0], roots[-1], count)
    places = sorted({int(np.abs(roots - one).argmin()) for one in wanted})
    return [found[place] for place in places]


def measured(
    found: Sequence[Plan], count: int, measure: Callable[[Plan], Point], wanted: float = ENOUGH
) -> list[Point]:
    """A front of ``count`` points, half of them found by halving towards the ``wanted`` overlap."""
    points = {plan.loss: measure(plan) for plan in ladder(found, -(-count // 2))}
    for _ in range(count // 2):
        above = [loss for loss, point in points.items() if point.overlap >= wanted]
        below = [loss for loss, point in points.items() if point.overlap < wanted]
        if not above or not below:
            break
        between = [plan for plan in found if max(above) < plan.loss < min(below)]
        if not between:
            break
        middle = between[len(between) // 2]
        points[middle.loss] = measure(middle)
    return [points[loss] for loss in sorted(points)]


def default(points: Sequence[Point]) -> Point:
    """The fastest of at least ``ENOUGH``; the best one where there is none."""
    good = [point for point in points if point.overlap >= ENOUGH]
    if good:
        return min(good, key=lambda point: point.plan.seconds)
    return max(points, key=lambda point: point.overlap)
