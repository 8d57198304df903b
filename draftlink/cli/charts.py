"""Charts as SVG text: bars, points and steps, for a page that asks for nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

WIDE, HIGH = 640, 280
LEFT, RIGHT, TOP, BELOW = 64, 16, 14, 46
COLOURS = (
    "#2563eb", "#ea580c", "#15803d", "#9333ea", "#b91c1c", "#0e7490", "#a16207", "#be185d",
    "#60a5fa", "#fdba74", "#4ade80", "#c4b5fd", "#f87171", "#22d3ee", "#facc15", "#94a3b8",
)  # fmt: skip
# Where a label may stand beside its point: the first of these that is free.
BESIDE = [
    (side, up)
    for up in (-4, 13, -16, 25, -28, 37, -40, 49, -52, 61)
    for side in (5, -5, 22, -22, 39, -39)
]
DOT, DIGIT, LINE = 4.0, 8.0, 10.0  # a dot's radius, and how wide and high a label's digits are
Point = tuple[float, float, str]  # x, y, and what a reader who points at it is told
Box = tuple[float, float, float, float]  # left, top, right, below


def bars(values: Sequence[tuple[str, float]], *, x: str, y: str) -> str:
    """A bar for each value, with the value above it."""
    top = max([value for _, value in values], default=0.0) or 1.0
    up = _scale((0.0, 1.1 * top), (HIGH - BELOW, TOP))
    step = (WIDE - LEFT - RIGHT) / max(1, len(values))
    parts = [_levels(_ticks(0.0, 1.1 * top), up)]
    every = math.ceil(len(values) / 20)
    for place, (label, value) in enumerate(values):
        at, height = LEFT + step * (place + 0.5), HIGH - BELOW - up(value)
        parts.append(
            f'<rect x="{at - 0.35 * step:.1f}" y="{up(value):.1f}" width="{0.7 * step:.1f}"'
            f' height="{height:.1f}" fill="{COLOURS[0]}"><title>{escape(label)}: {value:g}</title>'
            "</rect>"
        )
        if place % every == 0:
            parts.append(_text(at, HIGH - BELOW + 16, label, "middle"))
            parts.append(_text(at, up(value) - 4, f"{value:.3g}", "middle"))
    return _framed(parts, x, y)


def points(
    series: Mapping[str, Sequence[Point]], *, x: str, y: str, log: bool = False, lines: bool = False
) -> str:
    """Points, a colour for each series; ``log``: x is on a logarithmic scale.

    A series is named by a number and its words: the number stands beside its points, where no other
    does, and a legend below says who is who.
    """
    found = [point for each in series.values() for point in each if not log or point[0] > 0]
    if not found:
        return ""
    xs, ys = [point[0] for point in found], [point[1] for point in found]
    ahead, ticks = _across(min(xs), max(xs), log)
    low, high = min(ys), max(ys)
    span = (high - low) or abs(high) or 1.0
    low, high = (0.0 if lines and low >= 0 else low - 0.1 * span), high + 0.1 * span
    up = _scale((low, high), (HIGH - BELOW, TOP))
    parts = [_levels(_ticks(low, high), up)]
    # A label stands on no dot and on no label: on neither could it be read.
    taken = [(a - DOT, b - DOT, a + DOT, b + DOT) for a, b in
             ((ahead(point[0]), up(point[1])) for point in found)]  # fmt: skip
    for tick in ticks:
        parts.append(_text(ahead(tick), HIGH - BELOW + 16, f"{tick:g}", "middle"))
    for number, (name, each) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        kept = [(ahead(a), up(b), told) for a, b, told in each if not log or a > 0]
        if lines and len(kept) > 1:
            path = "L".join(f"{a:.1f},{b:.1f}" for a, b, _ in sorted(kept))
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for a, b, told in kept:
            dot = f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4" fill="{colour}">'
            parts.append(f"{dot}<title>{escape(told)}</title></circle>")
            if not lines:
                words = name.partition(" ")[0]
                box = _free(a, b, DIGIT * len(words), taken)
                taken.append(box)
                if (
                    abs(box[3] - LINE / 2 - b) > LINE
                    or min(abs(box[0] - a), abs(box[2] - a)) > LINE
                ):
                    middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
                    to = f"M{a:.1f},{b:.1f}L{middle[0]:.1f},{middle[1]:.1f}"
                    parts.insert(0, f'<path d="{to}" stroke="#8888"/>')
                parts.append(_text(box[0], box[3], words))
    return _framed(parts, x, y) + legend(list(series))


def _free(a: float, b: float, wide: float, taken: Sequence[Box]) -> Box:
    """Where a label of a point stands: on no dot and no other label, if there is such a place."""
    lefts = [(a + x - (0.0 if x > 0 else wide), b + y) for x, y in BESIDE]
    places: list[Box] = [(left, low - LINE, left + wide, low) for left, low in lefts]
    free = (place for place in places if not any(_meet(place, other) for other in taken))
    return next(free, places[0])


def _meet(one: Box, other: Box) -> bool:
    across = one[0] < other[2] and other[0] < one[2]
    return across and one[1] < other[3] and other[1] < one[3]


def steps(writers: Mapping[str, Sequence[tuple[float, float]]], *, x: str, y: str) -> str:
    """What came when: a dot for each token, coloured by its writer, over a grey step."""
    every = sorted(point for each in writers.values() for point in each)
    if not every:
        return ""
    ahead, ticks = _across(0.0, every[-1][0] or 1.0, log=False)
    up = _scale((0.0, max(b for _, b in every)), (HIGH - BELOW, TOP))
    path = "".join(f"H{ahead(a):.1f}V{up(b):.1f}" for a, b in every)
    parts = [_levels(_ticks(0.0, max(b for _, b in every)), up)]
    parts += [_text(ahead(tick), HIGH - BELOW + 16, f"{tick:g}", "middle") for tick in ticks]
    parts.append(f'<path d="M{LEFT},{HIGH - BELOW}{path}" fill="none" stroke="#8888"/>')
    for number, each in enumerate(writers.values()):
        for a, b in each:
            dot = f'<circle cx="{ahead(a):.1f}" cy="{up(b):.1f}" r="2.5"'
            parts.append(f'{dot} fill="{COLOURS[number % len(COLOURS)]}"/>')
    return _framed(parts, x, y) + legend(list(writers))


def legend(names: Sequence[str]) -> str:
    """Who has which colour."""
    said = (
        f'<li><i style="background:{COLOURS[n % len(COLOURS)]}"></i>{escape(name)}</li>'
        for n, name in enumerate(names)
    )
    return f'<ul class="legend">{"".join(said)}</ul>'


def _framed(parts: Sequence[str], x: str, y: str) -> str:
    along = f'<g fill="currentColor" font-weight="600">{_text(WIDE / 2, HIGH - 8, x, "middle")}</g>'
    turned = f'<g transform="translate(14 {HIGH / 2}) rotate(-90)">{_text(0, 0, y, "middle")}</g>'
    size = f'viewBox="0 0 {WIDE} {HIGH}" role="img" aria-label="{escape(y)} by {escape(x)}"'
    return f'<svg {size} font-size="12">{"".join(parts)}{along}{turned}</svg>'


def _text(x: float, y: float, words: str, anchor: str = "start") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">'
        f"{escape(words)}</text>"
    )


def _levels(ticks: Sequence[float], up: Callable[[float], float]) -> str:
    return "".join(
        f'<path d="M{LEFT},{up(tick):.1f}H{WIDE - RIGHT}" stroke="#8883"/>'
        + _text(LEFT - 6, up(tick) + 4, f"{tick:g}", "end")
        for tick in ticks
    )


def _across(low: float, high: float, log: bool) -> tuple[Callable[[float], float], list[float]]:
    """The scale of x, and its ticks."""
    to = (LEFT + 8, WIDE - RIGHT - 24)
    if log:
        scale = _scale((math.log10(low), math.log10(high)), to)
        decades = range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)
        return lambda value: scale(math.log10(value)), [10.0**n for n in decades] or [low]
    return _scale((low, high), to), _ticks(low, high)


def _scale(of: tuple[float, float], to: tuple[float, float]) -> Callable[[float], float]:
    width = of[1] - of[0] or 1.0
    return lambda value: to[0] + (value - of[0]) / width * (to[1] - to[0])


def _ticks(low: float, high: float) -> list[float]:
    """Some five round numbers."""
    size = 10.0 ** math.floor(math.log10((high - low) or 1.0))
    step = next(size * n for n in (0.2, 0.5, 1.0, 2.0, 5.0) if (high - low) / (size * n) <= 6)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 10) for n in range(first, math.floor(high / step + 1e-9) + 1)]
