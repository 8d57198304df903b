"""Consoles that show what they can: a terminal, a pipe or a locale may know ASCII alone."""

from __future__ import annotations

import codecs
import io
import sys
import textwrap
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console as RichConsole
from rich.table import Column, Table
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


FRAME = 3  # columns that a column of a table takes beside what stands in it
LABEL = 34  # columns of a table's first one, where others have to share the width with it


class Console(RichConsole):
    """Rich's, whose own words are spelt in what the stream's encoding has.

    Before they are laid out, so that columns stay columns. A table that is wider than the screen,
    or than 80 columns of a pipe, is several below one another: no digit is cut off.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """As Rich's."""
        if len(objects) == 1 and isinstance(objects[0], Table):
            for part in folded(objects[0], self.width, self):
                super().print(part, **options)
        else:
            super().print(*objects, **options)

    def say(
        self, text: str, style: str = "", lead: str = "", colour: str = "red", under: int = 0
    ) -> None:
        """Write a line that is one to a pipe; a terminal has it in whole words, never cut.

        ``lead`` begins it, in ``colour``. What goes on stands ``under`` columns further right.
        """
        line = f"{lead} {text}" if lead else text
        if self.is_terminal:
            whole = {"break_long_words": False, "break_on_hyphens": False}
            lines = textwrap.wrap(line, self.width, subsequent_indent=" " * under, **whole)  # type: ignore
            line = "\n".join(lines or [""])
        shown = Text(spelt(line, self.encoding), style)
        shown.stylize(colour, 0, len(lead))
        super().print(shown, soft_wrap=True, highlight=False)

    def copied(self, *parts: str) -> None:
        """Write a command to be copied; a terminal has its ``parts`` whole, on lines that go on."""
        lines = [f"  {parts[0]}"]
        for part in parts[1:]:
            if self.is_terminal and cell_len(f"{lines[-1]} {part} \\") > self.width:
                lines[-1] += " \\"
                lines.append(f"      {part}")
            else:
                lines[-1] += f" {part}"
        super().print(Text(spelt("\n".join(lines), self.encoding)), soft_wrap=True, highlight=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """As Rich's; every string that is printed or stands in a table comes by here."""
        return super().render_str(spelt(text, self.encoding), **options)


def folded(table: Table, width: int, console: RichConsole) -> list[Table]:
    """The tables that a table is where it is wider than ``width``: each with its first column.

    Titles are wrapped between words; what stands in a cell is whole, but for the first column's.
    """

    def lengths(column: Column, parted: bool) -> int:
        """The longest cell, or title; ``parted``: the longest word of a title."""
        cells = [_plain(cell, console) for cell in column.cells]
        title = _plain(column.header, console)
        return max(map(cell_len, [*(title.split() if parted else [title]), *cells, " "]))

    if sum(lengths(column, False) + FRAME for column in table.columns) < width:
        return [table]
    first, *others = table.columns
    words = [word for cell in first.cells for word in _plain(cell, console).split()]
    label = max([min(lengths(first, True), LABEL), *map(cell_len, words)])
    parts: list[list[tuple[Column, int]]] = [[(first, label)]]
    for column in others:
        # What has no room at all is parted, as Rich does it.
        part = (column, max(1, min(lengths(column, True), width - 1 - label - 2 * FRAME)))
        taken = sum(wide + FRAME for _, wide in [*parts[-1], part])
        if taken >= width and len(parts[-1]) > 1:
            parts.append([(first, label)])
        parts[-1].append(part)
    return [_part(table, part) for part in parts]


def _plain(cell: Any, console: RichConsole) -> str:
    return console.render_str(cell).plain if isinstance(cell, str) else str(cell)


def _part(table: Table, columns: list[tuple[Column, int]]) -> Table:
    """Some columns of a table, with their widths."""
    part = Table(title=table.title, box=table.box)
    for column, wide in columns:
        part.add_column(
            column.header,
            justify=column.justify,
            style=column.style,
            overflow=column.overflow,
            width=wide,
        )
    cells = zip(*(column.cells for column, _ in columns), strict=True)
    for row, values in zip(table.rows, cells, strict=True):
        part.add_row(*values, style=row.style, end_section=row.end_section)
    return part


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
