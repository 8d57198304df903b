from __future__ import annotations

import pytest

from draftlink.planning import units


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


@pytest.mark.parametrize(
    "text, value", [("4GiB", 4 << 30), ("512 MB", 512e6), ("64k", 64e3), ("1e9", 1e9), ("7B", 7)]
)
def test_memory(text, value):
    assert units.memory(text) == value


@pytest.mark.parametrize("text", ["", "GiB", "much", "-1GiB", "4GiBit", "1e999", "4 gigs"])
def test_memory_is_nothing_else(text):
    with pytest.raises(ValueError, match="is not an amount of memory such as"):
        units.memory(text)


@pytest.mark.parametrize(
    "count, text", [(7, "7 B"), (1536, "1.5 KiB"), (4 << 30, "4.0 GiB"), (1 << 60, "1048576.0 TiB")]
)
def test_bytes_as_a_text(count, text):
    assert units.binary(count) == text
