"""How phones join: a link with a token of its own, and the QR code that a camera reads it from.

The token is the base station's own, kept in a file. Who has it may draft, and so the code is shown
in the operator's terminal, and on the live page to who gives that token; it is in no log.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bs_runtime.operations.kept import kept
from draftlink.host import joining

TOKEN: Final = "join.token"
BORDER: Final = 4  # light modules around it, which readers need
_INK, _END = "\x1b[38;5;231;48;5;16m", "\x1b[0m"  # white on black, whatever the terminal has
_HALVES = {("0", "0"): "█", ("0", "1"): "▀", ("1", "0"): "▄", ("1", "1"): " "}


@dataclass(frozen=True)
class Join:
    """A link, and its QR code: rows of "1" for dark modules and "0" for light ones, with border."""

    link: str = field(repr=False)
    rows: tuple[str, ...] = field(repr=False)


def invite(url: str, token: str, pin: str | None) -> Join:
    """How to join the base station at ``url``."""
    import segno  # who shows no code needs none of it

    link = joining.link(url, token, pin)
    # A screen is clean: the least correction makes the fewest modules, read from farthest.
    code = segno.make_qr(link, error="l", boost_error=False)
    rows = (
        "".join("1" if dark else "0" for dark in row) for row in code.matrix_iter(border=BORDER)
    )
    return Join(link, tuple(rows))


def terminal(join: Join) -> str:
    """The code for a terminal, two rows of modules a line."""
    rows = [*join.rows, *(["1" * len(join.rows[0])] if len(join.rows) % 2 else [])]
    lines = (
        "".join(_HALVES[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    )
    return "\n".join(f"{_INK}{line}{_END}" for line in lines)


def token(path: Path) -> str:
    """The token that is kept in a file, made if it is not there. Raises FileError, ValueError."""
    found = kept(path, lambda: secrets.token_urlsafe(32).encode() + b"\n", 256)
    try:
        text = found.decode("ascii").strip()
    except UnicodeDecodeError:
        text = ""
    if not text.isprintable() or len(text) < 16 or " " in text:
        raise ValueError(f"{path} holds no token; remove it, and another is made")
    return text
