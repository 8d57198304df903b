"""Every command lives on a terminal, a pipe or a locale that knows ASCII alone."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console as RichConsole

from draftlink.cli import compare_view, plan_view
from draftlink.cli.consoles import Console, spelt
from draftlink.link import shaping
from draftlink.planning import plan

ASCII = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
ASCII |= {"COLUMNS": "120"}
SETTING = plan.Setting(0.8, 0.010, 0.045, 0.045, shaping.profile("lte"))
ROW = compare_view.Row(
    "dense", 0.5, 0.5, 0.5, 1.0, 0.5, 0.5, 1.0, 9.0, 9.0, 9.0, 9.0, 0.5, 9.0, 1.0
)


def draftlink(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "draftlink.cli", *arguments]
    return subprocess.run(command, capture_output=True, timeout=120, env=os.environ | environment)


@pytest.mark.parametrize("encoding", ["ascii:strict", "ascii:surrogateescape", "latin-1:strict"])
def test_plan_on_stdout(encoding, tmp_path):
    done = draftlink("plan", **ASCII | {"PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    shown = done.stdout.decode(encoding.partition(":")[0])
    assert "gamma or window" in shown and "alpha to repay" in shown and "best: " in shown
    assert "\\u" not in shown
    table = [line for line in shown.splitlines() if line.startswith("|")]
    assert len({len(line) for line in table}) == 2  # of two tables: columns stay columns


def cells(shown: str) -> list[list[str]]:
    """The rows of what was printed, cell by cell."""
    return [
        [cell.strip() for cell in line[1:-1].split(line[0])]
        for line in shown.splitlines()
        if line[:1] in ("|", "│")
    ]


@pytest.mark.parametrize("columns", [40, 50, 80, 200])
@pytest.mark.parametrize("arguments", [["plan"], ["plan", "--paper"]])
def test_a_table_loses_no_digit_at_any_width(columns, arguments):
    """What it says on 300 columns, it says on these, through a pipe that knows ASCII alone."""
    wide, narrow = (
        draftlink(*arguments, **ASCII | {"COLUMNS": str(n)}).stdout.decode() for n in (300, columns)
    )
    said = {cell for row in cells(wide) for cell in row if any(map(str.isdigit, cell))}
    seen = {cell for row in cells(narrow) for cell in row}
    assert said and {cell for cell in said - seen if " " not in cell} == set()
    assert max(map(len, narrow.splitlines()[1:])) <= max(columns, 80) and "~" not in narrow


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_comparison_loses_no_digit(width):
    big = compare_view.Row(
        "topk lattice K=8 l=256 tiers=7, learned T", 0.5123, 0.5124, 0.5125, 1.06, 0.57, 0.58, 1.09,
        131_085.1, 233_137.0, 76_994.0, 9.0, 0.0005, 123.0, 1.0,
    )  # fmt: skip
    file = io.StringIO()
    Console(file=file, width=width).print(compare_view.table([big, ROW], 1.0))
    shown = {cell for row in cells(file.getvalue()) for cell in row}
    assert {"0.512", "0.5124", "0.5125", "1.06", "57%", "0.58", "1.09"} <= shown
    assert {"131,085.1", "233,137", "76,994", "1/2,000", "123"} <= shown
    assert max(map(cell_len, file.getvalue().splitlines())) <= width


def test_rich_alone_would_lose_some():
    """The control."""
    file = io.StringIO()
    RichConsole(file=file, width=80).print(compare_view.table([ROW], 1.0))
    assert "…" in file.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_a_line_is_whole_to_a_pipe_and_breaks_no_word_on_a_terminal(terminal):
    path = "/a/path/" + "x" * 60 + "/[bold]:smile:"
    file = io.StringIO()
    console = Console(file=file, width=40, force_terminal=terminal, color_system=None)
    console.say(f"cannot write {path}: it is full, and some more words to fill two lines")
    shown = file.getvalue()
    assert path in shown and " ".join(shown.split()).endswith("to fill two lines")
    assert shown.count("\n") == (4 if terminal else 1)


@pytest.mark.parametrize(
    "arguments, code",
    [
        (["plan", "--paper"], 0),
        (["compare", "--help"], 0),
        (["plan", "--link", "é"], 2),
        (["plan", "--coding", "ℓ"], 2),
        (["device", "./é", "γ"], 1),
        (["device", "d", os.fsdecode(b"\xff")], 2),
        (["device", "d", "a", "--stop", os.fsdecode(b"\xff")], 2),
        (["demo", "--prompt", os.fsdecode(b"\xff")], 2),
    ],
)
def test_other_words_on_both(arguments, code):
    done = draftlink(*arguments, **ASCII)
    assert done.returncode == code and b"codec" not in done.stderr + done.stdout
    assert (done.stdout + done.stderr).isascii()


def test_a_path_that_is_no_text_can_be_shown(tmp_path):
    """Bytes that are not UTF-8 come as lone surrogates, which UTF-8 has no code for."""
    done = draftlink("plan", "--json", os.fsdecode(b"\xff/x"), PYTHONUTF8="1")
    assert done.returncode == 1 and b"\\udcff" in done.stderr and b"codec" not in done.stderr


@pytest.mark.parametrize(
    "table",
    [
        compare_view.table([ROW], 1.0),
        plan_view.mode_table(plan.make(SETTING)),
        plan_view.k_table(plan.make(SETTING)),
        plan_view.paper_table(plan.paper_figure(0.8), 0.8),
    ],
)
def test_tables_need_nothing_but_ascii(table):
    """No escape of last resort is needed: the stream itself is strict."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii", "strict", write_through=True)
    Console(file=stream, width=200).print(table)
    assert raw.getvalue() and b"\\u" not in raw.getvalue() and b"?" not in raw.getvalue()


def test_the_bound_for_more_candidates_is_a_column():
    among = msgspec.structs.replace(ROW, name="coupled", candidates=(0.5, 0.6, 0.7, 0.8))
    raw = io.StringIO()
    Console(file=raw, width=400).print(compare_view.table([ROW, among], 1.0))
    assert raw.getvalue().count("0.600 0.700 0.800") == 1


def test_what_a_stream_has_is_left_as_it_is():
    assert spelt("γ* q̂ ÷ 日", "utf-8") == "γ* q̂ ÷ 日"
    assert spelt("γ* q̂ ÷ 日", "ascii") == "gamma* q^ / \\u65e5"
    assert spelt("γ* ÷", "latin-1") == "gamma* ÷"
    assert spelt("\udcff", "utf-8") == "\\udcff"
