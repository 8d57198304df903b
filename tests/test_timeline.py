"""Who wrote which token when: from a text's JSON result to a plot."""

from __future__ import annotations

import json

import msgspec
import pytest
from typer.testing import CliRunner

from device_runtime.result import Tally
from draftlink.cli import app


def told(tmp_path, **changes: object):
    """A result's file: of four tokens the first two were drafts."""
    tally = Tally(10.0, drafted=3)
    tally.wrote(2, 4)
    tally.met(2, differs=True)
    tally.wrote(0, 1)
    for number, kind in enumerate(("draft", "draft", "correction", "bonus")):
        tally.token(10.0 + number / 8, kind)
    result = tally.result(
        text="abcd", tokens=[1, 2, 3, 4], prompt_tokens=3, seed=1, scheme="coupled", mode="both",
        stop_reason="length", draft_temperature=1.0, ledger=[], reconnects=0,
    )  # fmt: skip
    path = tmp_path / "text.json"
    path.write_text(json.dumps(msgspec.to_builtins(result) | changes))
    return path, result


def test_a_text_becomes_a_plot(tmp_path):
    path, result = told(tmp_path)
    assert result.times_s == [0.0, 0.125, 0.25, 0.375]
    plot = tmp_path / "text.svg"
    done = CliRunner().invoke(app, ["timeline", str(path), "--plot", str(plot)])
    assert done.exit_code == 0, done.exception
    assert "<svg" in plot.read_text()


def test_a_line_says_what_both_ends_did(tmp_path):
    _, result = told(tmp_path)
    assert result.summary == (
        "base station wrote 50%, drafts 50%, 0.50 forwards and 1.25 rows a token;"
        " 3 drafted, 0 of them dropped, α 0.67"
    )


@pytest.mark.parametrize(
    "changes", [{"kinds": ["draft"]}, {"kinds": ["moon"] * 4}, {"times_s": ["x"] * 4}, {"kinds": 3}]
)
def test_what_is_no_result_is_said_to_be_none(tmp_path, changes):
    path, _ = told(tmp_path, **changes)
    for one, fault in ((path, "is no text's result"), (tmp_path / "none", "cannot read")):
        done = CliRunner().invoke(app, ["timeline", str(one), "--plot", str(tmp_path / "x.png")])
        assert done.exit_code == 1 and fault in str(done.exception)
    assert not (tmp_path / "x.png").exists()
