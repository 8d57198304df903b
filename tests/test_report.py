"""The page of results: every kind of result, nobody's markup, and nothing from elsewhere."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from draftlink.cli import charts, report_page
from draftlink.cli.common import app

TEXT = {
    "text": "Once <b>upon</b>",
    "kinds": ["stream", "draft", "draft", "correction"],
    "times_s": [0.1, 0.2, 0.2, 0.3],
    "accept_histogram": [2, 1, 0],
    "scheme": "coupled",
    "mode": "both",
    "tokens_per_s": 12.5,
    "alpha": 0.75,
}
ROWS = [
    {"name": name, "acceptance": a, "bits_up_per_accepted": bits, "tokens_per_s": 9.0,
     "payload_bits_per_drafted": drafted}
    for name, a, bits, drafted in (
        ("stream", 0.0, 100.0, 0.0), ("dense", 0.80, 2e5, 1e5), ("topk", 0.79, 700.0, 200.0),
    )
]  # fmt: skip
CELLS = [
    {"link": link, "rule": "greedy", "target_s": 0.045, "tokens_per_s": {"auto": 20.0, "stream": 9}}
    for link in ("wifi", "lte", "satellite", "unknown")
]
RESULTS = {
    "device": TEXT,
    "demo": {**TEXT, "topk": TEXT, "target_only": TEXT | {"accept_histogram": []}},
    "bench": {"tokens_per_s": {"a": 1.0, "b": 2.0}, "coupled": {"alpha": 0.8}, "speedup": {"a": 2}},
    "compare": {"temperature": 0.7, "rows": ROWS},
    "link": {"cells": CELLS},
    "plan": {"modes": [{"mode": "stream", "tokens_per_s": 20.0}], "ks": [{"k": 1, "bits": 15.0}]},
}
UNKNOWN = [
    {}, [], [1, 2], "words", 5, None, True, {"a": {"b": [1, {"c": None}]}}, [{"a": 1}, {"b": 2}],
    {"rows": [{"acceptance": "x", "bits_up_per_accepted": None}]}, {"cells": [{"link": 3}]},
    {"kinds": ["draft"], "times_s": [float("nan")]}, {"kinds": ["draft"], "times_s": []},
    {"kinds": [], "times_s": []}, {"modes": "x"}, {"tokens_per_s": {"a": float("inf")}},
    {"rows": ROWS[:1]}, {"kinds": ["?"], "times_s": [0], "accept_histogram": ["x"]},
]  # fmt: skip
VOID = ("meta",)


class Checker(HTMLParser):
    """Whether tags close in order; what they name of elsewhere; all words."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.named: list[str] = []
        self.words = ""

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.named += [f"{k}={v}" for k, v in attrs if k in ("src", "href", "onclick", "onload")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_data(self, data):
        self.words += data


def checked(page: str) -> Checker:
    found = Checker()
    found.feed(page)
    assert found.open == [] and found.named == []
    assert "http" not in re.sub(r"<title>.*?</title>", "", page) and "nan" not in page
    assert "<script" not in page and "@import" not in page and "url(" not in page
    return found


@pytest.mark.parametrize("kind", RESULTS)
def test_each_kind_of_result_is_drawn(kind):
    page = report_page.page("T", [(f"{kind}.json", RESULTS[kind])], "1")
    assert "<svg" in page and f"{kind}.json" in checked(page).words
    if kind in ("device", "demo"):
        assert "Acceptance by position" in page and "Once <b>upon</b>" in checked(page).words
    if kind == "compare":
        assert page.count("<circle") == 2  # nobody drafted in the other
    if kind == "link":
        assert page.count("<circle") == 6  # of an unknown link nobody knows the round trip


@pytest.mark.parametrize("found", UNKNOWN)
def test_any_json_makes_a_page(found):
    page = report_page.page("T", [("x.json", found)], "1")
    checked(page.replace("nan", "").replace("inf", ""))


NASTY = "</td><script>alert(1)</script>&\"'"


def planted(value):
    """The same with our words in the place of every text, keys but those that are known too."""
    if isinstance(value, dict):
        return {k: planted(v) for k, v in value.items()} | {NASTY: 1.0}
    if isinstance(value, list):
        return [planted(each) for each in value]
    return NASTY if isinstance(value, str) else value


@pytest.mark.parametrize("kind", RESULTS)
def test_nobodys_words_are_markup(kind):
    page = report_page.page(NASTY, [(NASTY, planted(RESULTS[kind]))], NASTY)
    found = Checker()
    found.feed(page)
    assert found.open == [] and found.named == [] and "<script" not in page
    assert NASTY in found.words


def test_the_command_writes_one_page(tmp_path):
    paths = []
    for kind, found in RESULTS.items():
        paths.append(tmp_path / f"{kind}.json")
        paths[-1].write_text(json.dumps(found))
    out = tmp_path / "page.html"
    done = CliRunner().invoke(app, ["report", *map(str, paths), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert [f"{kind}.json" in out.read_text() for kind in RESULTS] == [True] * len(RESULTS)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_refused_by_name(tmp_path, data):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    done = CliRunner().invoke(app, ["report", str(path), "-o", str(tmp_path / "o.html")])
    assert done.exit_code == 1 and str(done.exception).startswith(f"{path} holds no JSON")
    done = CliRunner().invoke(app, ["report", str(Path("nowhere")), "-o", str(tmp_path / "o.html")])
    assert "cannot read nowhere" in str(done.exception)


@pytest.mark.parametrize("log", [False, True])
def test_points_that_are_one_can_be_drawn(log):
    drawn = charts.points({"a": [(5.0, 0.0, "t")]}, x="x", y="y", log=log)
    assert drawn.count("<circle") == 1 and "nan" not in drawn
    assert charts.points({"a": [(0.0, 0.0, "t")]}, x="x", y="y", log=True) == ""
    assert charts.points({}, x="x", y="y") == "" and charts.steps({}, x="x", y="y") == ""


def boxes(drawn: str) -> tuple[list[tuple], list[tuple]]:
    """Labels and dots, as they are seen: a digit has 7 pixels by 9; what touches is apart."""
    words = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="start"[^>]*>(\d+)<', drawn)
    dots = re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawn)
    return (
        [(float(x), float(y) - 9, float(x) + 7 * len(n), float(y)) for x, y, n in words],
        [(float(x) - 3.9, float(y) - 3.9, float(x) + 3.9, float(y) + 3.9) for x, y in dots],
    )


def meet(one: tuple, other: tuple) -> bool:
    a, b = one, other
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@pytest.mark.parametrize("apart", [0.0, 0.004, 0.01])
def test_no_label_lies_on_another_or_on_a_dot(apart):
    series = {f"{n} scheme": [(700.0 + 40 * n, 0.8 - n % 3 * apart, "t")] for n in range(1, 10)}
    drawn = charts.points({**series, "99 far": [(1e5, 0.7, "t")]}, x="x", y="y", log=True)
    labels, dots = boxes(drawn)
    assert len(labels) == len(dots) == 10
    for place, box in enumerate(labels):
        assert not any(meet(box, other) for other in [*labels[:place], *dots])
