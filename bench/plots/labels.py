"""Names beside points, where no other name, no point and no frame is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

Box = tuple[float, float, float, float]  # pixels: left, lower, right, upper

SIZE = 7.0  # points of type
ROOM = 5.0  # pixels about a point that its neighbours' names leave
RADII = (7.0, 13.0, 20.0, 28.0, 38.0, 50.0)  # points from a point to its name
WAYS = 16  # directions


def beside(
    axes: Any, named: Sequence[tuple[float, float, str]], others: Sequence[tuple[float, float]] = ()
) -> None:
    """Write the names of points (x, y, name), once all else is drawn.

    ``others``: places that a name leaves free, too. A name that stands farther off has a line to
    its point; one for which there is no place stands at the last that was tried.
    """
    figure = axes.figure
    figure.draw_without_rendering()  # limits and layout are what they will be
    renderer = figure.canvas.get_renderer()
    pixels = axes.transData.transform([(x, y) for x, y, _ in named] + list(others))
    taken = [(x - ROOM, y - ROOM, x + ROOM, y + ROOM) for x, y in pixels]
    frame = tuple(axes.get_window_extent(renderer).extents)
    for (x, y, name), point in zip(named, pixels, strict=False):
        text = axes.annotate(
            name, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=SIZE, va="center",
            ha="center", arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "0.5"},
        )  # fmt: skip
        size = text.get_window_extent(renderer)
        places = list(_places(point, size.width, size.height, figure.dpi / 72.0))
        free = (
            place
            for place in places
            if _inside(place[2], frame) and not any(_meet(place[2], each) for each in taken)
        )
        radius, offset, box = next(free, places[-1])
        text.set_position(offset)
        text.arrow_patch.set_visible(radius > RADII[0])
        taken.append(box)


def _places(
    point: Sequence[float], width: float, height: float, scale: float
) -> Iterator[tuple[float, tuple[float, float], Box]]:
    """Where a name may stand, the nearest first: its radius, offset in points, and box."""
    for radius in RADII:
        for way in range(WAYS):
            angle = 2.0 * math.pi * way / WAYS
            along, up = math.cos(angle), math.sin(angle)
            # From the point to the name's edge: a long name's middle is farther to the side.
            dx = radius * scale * along + 0.5 * width * along
            dy = radius * scale * up + 0.5 * height * up
            x, y = point[0] + dx, point[1] + dy
            box = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
            yield radius, (dx / scale, dy / scale), box


def _inside(box: Box, frame: Sequence[float]) -> bool:
    return box[0] > frame[0] and box[1] > frame[1] and box[2] < frame[2] and box[3] < frame[3]


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
