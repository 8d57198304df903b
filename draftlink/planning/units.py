"""Durations, bit rates and amounts of memory as people write them."""

from __future__ import annotations

import math
import re

_SECONDS = {"": 1.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6}
_BITS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_BYTES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12} | {
    f"{unit[0].lower()}i": 1024.0**power for power, unit in enumerate(_BINARY) if power
}


def seconds(text: str) -> float:
    """``45ms``, ``0.045``, ``1.5s`` or ``300us`` in s. Raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9.eE+-]+?) ?(s|ms|us|µs)?", text.strip())
    return _value(match, _SECONDS, text, "a time such as 45ms, 0.045 or 1.5s")


def bits_per_s(text: str) -> float:
    """``5M``, ``5Mbit``, ``800k`` or ``5e6`` in bit/s. Raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9.eE+-]+?) ?([kMGmg])?(?:bit|bit/s|bps)?", text.strip())
    return _value(match, _BITS, text, "a rate such as 5M, 800k or 5e6 (bit/s)")


def memory(text: str) -> int:
    """``4GiB``, ``512MB`` or ``1e9`` in bytes. Raises ValueError for anything else."""
    match = re.fullmatch(r"([0-9.eE+-]+?) ?([kKMGTmgt]i?)?B?", text.strip())
    return int(_value(match, _BYTES, text, "an amount of memory such as 4GiB, 512MB or 1e9"))


def binary(count: float) -> str:
    """Bytes to a text such as ``3.9 GiB``."""
    power = 0
    while count >= 1024 and power < len(_BINARY) - 1:
        count, power = count / 1024, power + 1
    return f"{count:.0f} B" if power == 0 else f"{count:.1f} {_BINARY[power]}"


def _value(match: re.Match[str] | None, units: dict[str, float], text: str, what: str) -> float:
    try:
        if match is None:
            raise ValueError
        value = float(match[1]) * units[(match[2] or "").lower()]
    except ValueError:
        raise ValueError(f"{text!r} is not {what}") from None
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{text!r} is not {what}: it must be at least 0")
    return value
