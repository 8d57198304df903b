"""bench.both over sockets: which turns are compared, and with whom."""

from __future__ import annotations

import json

import pytest

from bench.both import sockets

FAST = {"auto": [9.0, 11.0], "stream": [5.0, 5.0], "stop-and-wait 5": [10.0, 10.0]}


def test_turns_of_several_files_are_one_measurement():
    found = sockets.joined([FAST, {"auto": [8.0], "stream": [4.0], "stop-and-wait 5": [16.0]}])
    assert sockets.best_fixed(found) == "stop-and-wait 5"
    assert sockets.ratios(found, "stop-and-wait 5") == [0.9, 1.1, 0.5]
    assert sockets.ratios(found, "stream") == [1.8, 2.2, 2.0]


def test_who_is_far_below_is_left_out_and_the_stream_never():
    found = {**FAST, "run-ahead": [7.0, 7.0], "stop-and-wait 3": [8.0, 8.0]}
    assert sockets.worth_it(found) == ["auto", "stream", "stop-and-wait 5", "stop-and-wait 3"]
    # Who was left out for some of the turns is not compared.
    left = {**FAST, "run-ahead": [99.0]}
    assert sockets.best_fixed(left) == "stop-and-wait 5"


def test_what_a_file_has_is_printed_without_a_turn(tmp_path, capsys):
    path = tmp_path / "turns.json"
    path.write_text(json.dumps([FAST]))
    sockets.main(["--turns", "0", "--json", str(path)])
    shown = capsys.readouterr().out
    assert "auto / stop-and-wait 5, median of 2 turns: 1.000 [0.90, 1.10]" in shown
    assert "auto / stream, median of 2 turns: 2.000" in shown
    with pytest.raises(SystemExit):
        sockets.main(["--target", "somewhere"])
