"""Every plot that a command draws: no words on one another, none that leave the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from typer.testing import CliRunner

from bench.both import frontier
from bench.both.cells import Costs
from bench.plots import labels, link
from bench.real import drawn as written
from bench.real import fronts
from bench.real.overlap import Overlap
from draftlink.cli import compare_view, links, plan_view
from draftlink.cli.common import app
from draftlink.link.shaping import PROFILES
from draftlink.planning import plan
from tests.snippets import ROOT

ROW = compare_view.Row(
    "topk lattice K=16 l=256 tiers=7", 0.7, 0.7, 0.7, 1.0, 0.5, 0.5, 1.0, 9.0, 9.0, 9.0, 9.0, 0.5,
    9.0, 1.0,
)  # fmt: skip


def faults(figure: Any) -> list[tuple[str, str]]:
    """Pairs of words that lie on one another; words that leave the page, beside "outside"."""
    shown: list[Text] = []
    draw = Text.draw

    def noted(self: Text, renderer: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            shown.append(self)
        draw(self, renderer)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Text, "draw", noted)  # ticks outside the axes are there, and not drawn
        figure.canvas.draw()
    boxes = [(text.get_text(), Text.get_window_extent(text)) for text in shown]
    page = figure.bbox.padded(1.0)
    found = [(words, "outside") for words, box in boxes
             if not (page.contains(*box.min) and page.contains(*box.max))]  # fmt: skip
    for place, (words, box) in enumerate(boxes):
        found += [(words, other) for other, its in boxes[:place]
                  if box.padded(-0.5).overlaps(its.padded(-0.5))]  # fmt: skip
    return found


def drawn(monkeypatch, draw: Any) -> Any:
    """The figure that a command's own function writes."""
    figures: list[Any] = []
    monkeypatch.setattr(plan_view, "save", lambda figure, path: figures.append(figure))
    draw()
    FigureCanvasAgg(figures[0])
    return figures[0]


SETTING = plan.Setting(0.8, 0.010, 0.045, 0.045, PROFILES["lte"])
KINDS = ["draft", "correction", "bonus", "stream"] * 9
TEXT = {"scheme": "coupled", "mode": "both", "kinds": KINDS}
TEXT |= {"times_s": [0.05 * n for n in range(len(KINDS))]}


def text_file(folder: Path) -> Path:
    (folder / "text.json").write_text(json.dumps(TEXT))
    return folder / "text.json"


PLOTS = {
    "plan": lambda folder: plan_view.plot_plan(plan.make(SETTING), folder / "x.png"),
    "plan --paper": lambda folder: plan_view.plot_paper(
        plan.paper_figure(0.8), 0.8, folder / "x.png"
    ),
    "compare": lambda folder: compare_view.plot([ROW] * 18, folder / "x.png", 1.0),
    "timeline": lambda folder: CliRunner().invoke(
        app, ["timeline", str(text_file(folder)), "--plot", str(folder / "x.png")]
    ),
}


@pytest.mark.parametrize("name", PLOTS)
def test_a_command_s_plot_can_be_read(name, monkeypatch, tmp_path):
    figure = drawn(monkeypatch, lambda: PLOTS[name](tmp_path))
    assert faults(figure) == []


def test_a_plan_says_which_link_it_is_of(monkeypatch, tmp_path):
    figure = drawn(monkeypatch, lambda: PLOTS["plan"](tmp_path))
    words = [text.get_text() for text in figure.findobj(Text)]
    assert "this link: 5 Mbit/s 60 ms 2% lost, 71 ms with all delays" in words


def test_the_help_says_what_each_link_is():
    told = " ".join((links.link.__doc__ or "").split())
    for name, profile in PROFILES.items():
        assert f" {name} {profile}" in told


def frontier_points() -> list[frontier.Point]:
    """As they are: some modes nearly one, tariffs whose lines cross."""
    found = []
    for costs in (Costs(20.0, 4.0, 15.0), Costs(50.0, 4.0, 60.0)):
        for n, name in enumerate(("γ = 1", "γ = 2", "γ = 3", "γ = 4", "run-ahead", "stream")):
            found.append(frontier.Point(costs, name, 50 + 0.2 * n, 8 + 0.1 * n, 1 + 0.05 * n))
        for tariff in frontier.TARIFFS:
            for price in frontier.PRICES:
                at = 60 - 20 * price - 0.1 * tariff
                found.append(frontier.Point(costs, f"auto {tariff:g}", at, 9 + price, 2 - price))
    return found


def front_points() -> list[fronts.Point]:
    def one(title: str, kind: str, kept: float, ms: float, size: int) -> fronts.Point:
        of = Overlap(kept, 0.01, 256, {})
        return fronts.Point(title, kind, of, size, {128: ms, 1024: 2 * ms}, 0)

    return [
        one("Draftlink auto", "Draftlink", 0.964, 8.3, 148_000_000),
        one("llama.cpp Q8_0", "llama.cpp", 0.956, 8.4, 145_000_000),
        one("llama.cpp Q6_K", "llama.cpp", 0.955, 8.35, 146_000_000),
        one("Draftlink int4", "Draftlink", 0.84, 7.3, 114_000_000),
        one("llama.cpp Q5_K_M", "llama.cpp", 0.85, 13.4, 112_000_000),
        one("genai int4", "genai", 0.588, 7.4, 90_000_000),
    ]


MODES = ("stop-and-wait", "run-ahead", "stream", "auto")
CELLS = [
    {"link": name, "target_s": pace, "rule": rule, "ideal": 30.0,
     "tokens_per_s": dict.fromkeys(MODES, 20.0)}
    for name in PROFILES for pace in (0.045, 0.090) for rule in ("coupled", "greedy")
]  # fmt: skip
BENCHES = {
    "bench.both frontier": lambda: frontier.drawn(frontier_points()),
    "bench.decode": lambda: fronts.drawn(front_points(), (128, 1024)),
    "bench.link": lambda: link.drawn(CELLS, MODES),
}


@pytest.mark.parametrize("name", BENCHES)
def test_so_can_a_benchmark_s(name):
    assert faults(BENCHES[name]()) == []


def test_the_fronts_are_the_page_s_own():
    """The picture beside a table is of that table."""
    found = written.points((ROOT / "docs" / "benchmarks.md").read_text())
    assert len(found) == 8 and {point.kind for point in found} == set(written.KINDS.values())
    auto = next(point for point in found if point.title == "Draftlink auto")
    kept, ms = auto.overlap, auto.ms
    row = f"| {kept.mean} ± {kept.error} | {auto.bytes // 10**6} | {ms[128]} / {ms[1024]} |"
    assert row in (ROOT / "docs" / "benchmarks.md").read_text()
    assert faults(fronts.drawn(found, written.CONTEXTS)) == []


def test_links_are_told_and_not_joined():
    """A link is no number: bars, each with what its link is below it."""
    figure = link.drawn(CELLS, MODES)
    words = " ".join(text.get_text() for text in figure.findobj(Text))
    for name in PROFILES:
        assert name in words
    assert "300 ms" in words and "lost" in words
    for axes in figure.axes:
        assert axes.lines == [] or len(axes.lines) == 0
        assert len(axes.patches) == len(PROFILES) * len(MODES)


def test_names_that_lie_on_one_another_are_found():
    """The control: names at their points, as they would be without a place for each."""
    points = [(1.0, 1.0, "first name"), (1.01, 1.0, "second name"), (2.0, 2.0, "far off " * 9)]
    for place in (True, False):
        figure = Figure()
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.plot(*zip(*[each[:2] for each in points], strict=True), "o")
        if place:
            labels.beside(axes, points[:2])
            assert faults(figure) == []
            continue
        for x, y, name in points:
            axes.annotate(name, (x, y))
        found = faults(figure)
        assert ("second name", "first name") in found
        assert ("far off " * 9, "outside") in found
