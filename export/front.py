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
# Of what is lost of the overlap, for the root of a nat: SmolLM2 in 8 bits 0.49, in 4 bits 0.45.
OF_ROOT = 0.48
CLOSE = 0.002  # to what is wanted: overlaps of a thousand positions tell no finer
LADDER = 4  # points that a front has at least
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
    took = _times(one, rounder.is_head(one), costs)
    lost = rounder.losses(one, (nearest(one.weight, rounding) for rounding in took))
    rows, width = one.shape
    return [
        Option(rounding, seconds, int(rows * width * rounding.bytes_per_weight), loss)
        for (rounding, seconds), loss in zip(took.items(), lost, strict=True)
    ]


def _times(one: Product, is_head: bool, costs: Costs) -> dict[Rounding, float]:
    """The kernels for a product, and seconds: without those that a finer one of as many bits beats.

    What the smaller blocks lose is less, so that they need not be reckoned.
    """
    found: dict[Rounding, float] = {}
    least: dict[int, float] = {}
    for kernel in sorted(costs.kernels()):
        if not _fits(kernel, one, is_head, costs):
            continue
        seconds = costs.seconds(kernel, *one.shape) if one.source else 0.0
        if seconds < least.get(kernel.bits, np.inf):
            least[kernel.bits] = seconds
            found[Rounding(kernel.bits, kernel.block, kernel.zero_points)] = seconds
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
    """A front of ``count`` points at most, with the ``wanted`` overlap on it.

    Half of them lie at even distances (of few points none), the others where the overlap that is
    wanted is expected by those that are known.
    """
    steps = ladder(found, count // 2) if count >= LADDER else []
    points = {plan.loss: measure(plan) for plan in steps}
    while len(points) < count and (plan := _expected(found, points, wanted)) is not None:
        points[plan.loss] = measure(plan)
    if len(points) == 1 and found[0].loss not in points:  # then the best one says what is given up
        points[found[0].loss] = measure(found[0])
    return [points[loss] for loss in sorted(points)]


def _expected(found: Sequence[Plan], points: dict[float, Point], wanted: float) -> Plan | None:
    """The plan that is expected to be the fastest that is good enough; None where it is known.

    What is lost goes as the root of the loss: on the line between the two points about what is
    wanted; through the best one where none is below; by ``OF_ROOT`` where none is known.
    """
    good = [point for point in points.values() if point.overlap >= wanted]
    bad = [point for point in points.values() if point.overlap < wanted]
    above = max(good, key=lambda point: point.plan.loss, default=None)
    below = min(bad, key=lambda point: point.plan.loss, default=None)
    if above is not None and above.overlap < wanted + CLOSE:
        return None
    low = -1.0 if above is None else above.plan.loss
    high = np.inf if below is None else below.plan.loss
    between = [plan for plan in found if low < plan.loss < high]
    if not between:
        return None
    ends = [(one.plan.loss**0.5, 1 - one.overlap) for one in (above, below) if one is not None]
    if len(ends) < 2:
        ends = [(0.0, 0.0), *(ends or [(1.0, OF_ROOT)])]
    (near, least), (far, most) = ends
    root = near + (1 - wanted - least) * (far - near) / max(1e-9, most - least)
    fits = [plan for plan in between if plan.loss**0.5 <= root]
    return fits[-1] if fits else between[0]


def default(points: Sequence[Point]) -> Point:
    """The fastest of at least ``ENOUGH``; the best one where there is none."""
    good = [point for point in points if point.overlap >= ENOUGH]
    if good:
        return min(good, key=lambda point: point.plan.seconds)
    return max(points, key=lambda point: point.overlap)
