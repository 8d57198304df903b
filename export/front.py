"""Which rounding: the front of what a draft loses against what it takes, and the choice on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from device_runtime.model import kernels
from device_runtime.model.costs import Costs, Kernel
from export.products import Product
from export.rounder import Rounder
from export.rounding import Rounding, block_for, nearest

ENOUGH = 0.96  # of the mean sum of min(p, q): an insurance, where the target is unknown
# Of what is lost of the overlap, for the root of a nat: SmolLM2 in 8 bits 0.49, in 4 bits 0.45.
OF_ROOT = 0.48
CLOSE = 0.002  # to what is wanted: overlaps of a thousand positions tell no finer
LADDER = 4  # points that a front has at least
PRICES = np.geomspace(1e-3, 1e7, 201)  # nats a second, of which each gives a plan
OF_BYTES = np.geomspace(1e-15, 1.0, 751)  # nats a byte


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


def options(rounder: Rounder, one: Product, costs: Costs | None, careful: bool) -> list[Option]:
    """What may become of a product, by the kernels that the costs know; without any, by bytes.

    The head and tables stay at 8 bits where there is a fast kernel for them: their rows are read
    one by one, as embeddings, and nothing downstream averages what they lose. ``careful``: with
    the codes that will be shipped; else with the nearest, which are made faster and lose more.
    """
    is_head = rounder.is_head(one)
    took = _sizes(one, is_head) if costs is None else _times(one, is_head, costs)
    known = {r for r in took if careful and r.bits == 4}  # and kept: others are made in no time
    made = (rounder.codes(one, r) if r in known else nearest(one.weight, r) for r in took)
    lost = rounder.losses(one, made)
    return [
        Option(rounding, seconds, rounding.size(one.shape), loss)
        for (rounding, seconds), loss in zip(took.items(), lost, strict=True)
    ]


def _times(one: Product, is_head: bool, costs: Costs) -> dict[Rounding, float]:
    """The kernels for a product, and seconds.

    A table that is no product costs none, and has the smallest blocks.
    """
    found: dict[Rounding, float] = {}
    for kernel in sorted(costs.kernels()):
        if _fits(kernel, one, is_head, costs):
            seconds = costs.seconds(kernel, *one.shape) if one.source else 0.0
            found[Rounding(kernel.bits, kernel.block, kernel.zero_points)] = seconds
    if not one.source:
        return dict(list(found.items())[:1])
    return {
        rounding: seconds
        for bits in (4, 8)
        for rounding, seconds in _ordered({r: s for r, s in found.items() if r.bits == bits})
    }


def _ordered(took: dict[Rounding, float]) -> list[tuple[Rounding, float]]:
    """The same kernel's seconds by block, as they are without what is noise.

    Smaller blocks read more bytes, and take no less for each. Where a measurement says otherwise,
    all between share their mean for a byte (the nearest such sequence: pool adjacent violators).
    """
    pools: list[tuple[float, list[Rounding]]] = []
    for rounding in sorted(took):
        rate, members = took[rounding] / rounding.bytes_per_weight, [rounding]
        while pools and pools[-1][0] < rate:
            before, others = pools.pop()
            rate = (before * len(others) + rate * len(members)) / (len(others) + len(members))
            members = others + members
        pools.append((rate, members))
    return [(one, rate * one.bytes_per_weight) for rate, members in pools for one in members]


def _sizes(one: Product, is_head: bool) -> dict[Rounding, float]:
    """Of 8 bits and 4 those that are fast on most devices; no seconds are known."""
    width = one.shape[1]
    found = {Rounding(8, block_for(width, 64)): 0.0}
    if not one.tied and not is_head:
        found |= {Rounding(4, block_for(width, block), True): 0.0 for block in (64, 32)}
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
    smallest = min(other.block for other in costs.kernels() if other.bits == kernel.bits)
    if one.shape[1] % kernel.block and (one.tied or kernel.block > smallest):
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
        made = _plan(table, rest_s, price, 0.0)
        found.setdefault(tuple(made.recipe.values()), made)
    return sorted(found.values(), key=lambda plan: plan.loss)


def within(table: dict[str, list[Option]], limit: int) -> Plan:
    """The plan with the least loss in ``limit`` bytes, on the hull; the smallest where none is."""
    for price in OF_BYTES:
        made = _plan(table, 0.0, 0.0, price)
        if made.bytes <= limit:
            break
    return made


def _plan(table: dict[str, list[Option]], rest_s: float, of_second: float, of_byte: float) -> Plan:
    """For every product the option with the least loss and prices."""

    def price(one: Option) -> tuple[float, int, Rounding]:
        return one.loss + of_second * one.seconds + of_byte * one.bytes, one.bytes, one.rounding

    chosen = {name: min(some, key=price) for name, some in table.items() if some}
    return Plan(
        {name: option.rounding for name, option in chosen.items()},
        rest_s + sum(option.seconds for option in chosen.values()),
        sum(option.bytes for option in chosen.values()),
        sum(option.loss for option in chosen.values()),
    )


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
