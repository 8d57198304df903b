"""Consoles that show what they can: a terminal, a pipe or a locale may know ASCII alone."""

from __future__ import annotations

import codecs
import io
import sys
from typing import Any, Final

from rich.console import Console as RichConsole
from rich.text import Text

# How a sign of the tables is written where it cannot be shown.
SPELT: Final = {
    "γ": "gamma",
    "α": "alpha",
    "ℓ": "l",
    "Σ": "sum",
    "÷": "/",
    "×": "x",
    "\u0302": "^",  # over the q of a rounded row
    "…": "...",
    "–": "-",
}


class Console(RichConsole):
    """Rich's, whose own words are spelt in what the stream's encoding has.

    Before they are laid out, so that columns stay columns.
    """

    def render_str(self, text: str, **options: Any) -> Text:
        """As Rich's; every string that is printed or stands in a table comes by here."""
        return super().render_str(spelt(text, self.encoding), **options)


def spelt(text: str, encoding: str) -> str:
    """``text`` in characters that ``encoding`` has."""
    if _fits(text, encoding):
        return text
    return "".join(c if _fits(c, encoding) else SPELT.get(c) or _escaped(c) for c in text)


def _fits(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _escaped(character: str) -> str:
    return character.encode("ascii", "backslashreplace").decode("ascii")


def _instead(error: UnicodeError) -> tuple[str | bytes, int]:
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] == "…":
        return "~", error.start + 1
    return codecs.backslashreplace_errors(error)


def escape_what_has_no_code() -> None:
    """No character ends a command midway: where stdout or stderr lack it, its escape is written.

    But for the ellipsis: Rich cuts what a column has no room for itself, and leaves one column.
    """
    codecs.register_error("draftlink.escaped", _instead)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="draftlink.escaped")
