"""What strangers can do to the log: neither fill it nor write in its name."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter

from bs_runtime.operations import logs

FORGED = "a\n2026 info all is well\x1b[2J\u2028\u202e\u2066\x85"
SHOWN = r"a\x0a2026 info all is well\x1b[2J\u2028\u202e\u2066\x85"


def record(message: str = "x", now: float = 0.0, **extra) -> logging.LogRecord:
    given = {"msg": message, "created": now, "levelno": logging.WARNING, "levelname": "WARNING"}
    return logging.makeLogRecord({**given, "pathname": "here.py", "lineno": 1, **extra})


def raised() -> tuple:
    try:
        raise ValueError(FORGED)
    except ValueError:
        return sys.exc_info()


def test_nothing_in_a_line_acts():
    """Message, values and a traceback: of one line each, which no other can be taken for."""
    entry = record(FORGED, exc_info=raised())
    entry.values = {"peer": FORGED, "count": 3, "share": 0.5, "none": None, "other": [FORGED]}
    text = logs.TextFormatter().format(entry)
    first, *rest = text.split("\n")
    assert f"warning {SHOWN} peer={SHOWN} count=3 share=0.5 none=None other=" in first
    assert rest and all(line.startswith("  ") for line in rest)
    assert not set(text) & set("\x1b\u2028\u202e\u2066\x85")
    line = logs.JsonFormatter().format(entry)
    shown = json.loads(line)
    assert "\n" not in line and line.isascii()
    assert (shown["event"], shown["peer"], shown["count"]) == (SHOWN, SHOWN, 3)
    assert (shown["share"], shown["none"]) == (0.5, None)
    for value in (shown["other"], shown["traceback"]):
        assert not set(value) & set("\x1b\u2028\u202e\u2066\x85")
    assert "all is well" in shown["traceback"]
    assert len(shown["traceback"].split("\n")) == len(rest)


def test_a_terminal_has_whole_words_and_no_line_of_a_stranger_s(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    entry = record("a word " * 20, exc_info=raised())
    entry.values = {"peer": "x" * 60 + FORGED, "tenant": ""}
    first, *rest = logs.TextFormatter(terminal=True).format(entry).split("\n")
    assert "a word" in first and all(line.startswith("  ") for line in rest)
    assert max(len(line) for line in (first, *rest) if " " in line.strip()) <= 40
    assert any(f"peer={'x' * 60}" in line for line in rest) and "tenant" not in "".join(rest)


def test_a_line_has_an_end():
    assert len(logs.TextFormatter().format(record("x" * 1_000_000))) < logs.LINE + 100


def test_a_flood_of_lines_is_cut_down_and_counted():
    throttle, now = logs.Throttle(), 1000.0
    passed = []
    for i in range(60_000):  # a minute of 1,000 a second, whatever they say
        entry = record(f"stranger {i}", now + i / 1000)
        if throttle.filter(entry):
            passed.append(entry)
    assert len(passed) <= 60 * logs.WARNINGS_PER_S + 5
    assert passed[0].getMessage() == "stranger 0"
    counted = sum(getattr(entry, "left_out", 0) for entry in passed)
    assert len(passed) + counted > 60_000 - 2_000  # all but those behind the last that passed
    assert " left_out=" in logs.TextFormatter().format(passed[-1])
    again = record("later", now + 100)
    assert throttle.filter(again) and again.left_out == 60_000 - len(passed) - counted
    after = record("later still", now + 101)
    assert throttle.filter(after) and not hasattr(after, "left_out")


def test_kinds_do_not_crowd_out_each_other():
    throttle = logs.Throttle()
    let = Counter()
    for i in range(5000):
        now = i / 100
        let["warning"] += throttle.filter(record(now=now))
        let["other place"] += i % 500 == 0 and throttle.filter(record(now=now, lineno=2))
        info = record(now=now, levelno=logging.INFO)
        let["info"] += throttle.filter(info)
    assert let["other place"] == 10
    assert let["warning"] <= 55 < let["info"] <= 50 * logs.LINES_PER_S + 100


def test_the_process_s_log_is_throttled(capfd):
    root, own = logging.getLogger(), logging.getLogger("draftlink")
    before, level, own_level = root.handlers[:], root.level, own.level
    try:
        logs.setup("text", "info")
        for i in range(1000):
            logging.getLogger("draftlink.bs").warning("refused %d", i)
    finally:
        logging.captureWarnings(False)
        root.handlers[:] = before
        root.setLevel(level)
        own.setLevel(own_level)
    lines = capfd.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 10 and lines[0].endswith("refused 0")
