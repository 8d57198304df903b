"""What of a stranger's text reaches a terminal."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from draftlink.host.plain import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("a phone's own words", "a phone's own words"),
        ("Grüße, 日本語, naïve, 🙂", "Grüße, 日本語, naïve, 🙂"),
        ("\x1bc\x1b]0;title\x07", r"\x1bc\x1b]0;title\x07"),
        ("one\nline\r\tonly", r"one\x0aline\x0d\x09only"),
        ("\x7f\x85\x9b31m", r"\x7f\x85\x9b31m"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("\u202edrow\u202c\u2066\u200b\ufeff", r"\u202edrow\u202c\u2066\u200b\ufeff"),
        ("\ud800\ue000\uffff", r"\ud800\ue000\uffff"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_is_shown(text, shown):
    assert printable(text) == shown


def test_no_character_of_all_acts():
    """Whatever Unicode has: one line, nothing that a terminal obeys, and it can be encoded."""
    for begin in range(0, sys.maxunicode + 1, 4096):
        text = "".join(map(chr, range(begin, begin + 4096)))
        shown = printable(text, 1 << 20)
        assert len(shown.splitlines()) == 1
        assert not any(unicodedata.category(one)[0] == "C" for one in shown)
        shown.encode()


@pytest.mark.parametrize("text", ["x" * 11, "\n" * 11, "xxxxxxxxx\n", "\n\nxx\nxxx"])
def test_no_longer_than_the_limit(text):
    shown = printable(text, 10)
    assert len(shown) <= 10 and shown.endswith("…")
    assert printable("x" * 10, 10) == "x" * 10


def test_the_limit_bounds_the_work_too():
    shown = printable("\u202e" * 50_000_000)
    assert len(shown) <= 1000
