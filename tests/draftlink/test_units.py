from __future__ import annotations

import pytest

from draftlink import units


@pytest.mark.parametrize(
    "text, value", [("45ms", 0.045), ("0.045", 0.045), ("1.5 s", 1.5), ("300us", 3e-4), ("0", 0.0)]
)
def test_seconds(text, value):
    assert units.seconds(text) == pytest.approx(value)


@pytest.mark.parametrize(
    "text, value", [("5M", 5e6), ("5Mbit", 5e6), ("800k", 8e5), ("5e6", 5e6), ("1.5 Gbps", 1.5e9)]
)
def test_bits_per_s(text, value):
    assert units.bits_per_s(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "ms", "fast", "-1", "1e999", "5M5", "1..2", "e", "5 KiB"])
def test_anything_else_is_one_line(text):
    for parse in (units.seconds, units.bits_per_s):
        with pytest.raises(ValueError, match=r"is not a (time|rate) such as"):
            parse(text)
