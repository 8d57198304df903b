"""The log: one line an event, as text or as JSON, each with the id of the request it is about.

Strangers can make events, and put words into them: the number of lines is bounded for each place in
the code that writes them, and nothing in a line can act on who reads it.
"""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import sys
import textwrap
from contextvars import ContextVar
from typing import Any, Literal, Protocol

from bs_runtime.operations.limits import Bucket
from draftlink.host.plain import printable

Format = Literal["text", "json"]


class Named(Protocol):
    """What a line is about: a connection, and the generation that it has reached."""

    request_id: str


# Read when a line is written, so that all tasks of a connection name its present generation.
current: ContextVar[Named | None] = ContextVar("request", default=None)

LINE = 4000  # characters
LINES_PER_S = 20.0  # of one kind, for which all devices may be the cause
WARNINGS_PER_S = 1.0
ERRORS_PER_S = 0.25  # a traceback has 5 kB, and a peer's input may be what fails


def new_id() -> str:
    """An id for a connection."""
    return secrets.token_hex(4)


class Throttle(logging.Filter):
    """Lets a kind of line pass at its rate; the next one that does says how many were left out.

    A kind is a place in the code: what a line says is often up to others. Time is the record's.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[str, int, int], tuple[Bucket, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written."""
        kind = record.pathname, record.lineno, record.levelno
        rate = LINES_PER_S if record.levelno < logging.WARNING else WARNINGS_PER_S
        if record.levelno >= logging.ERROR:
            rate = ERRORS_PER_S
        bucket, left_out = self._kinds.get(kind) or (Bucket(rate, record.created), 0)
        passes = bucket.spend(1, record.created)
        self._kinds[kind] = bucket, 0 if passes else left_out + 1
        if passes and left_out:
            record.left_out = left_out
        return passes


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    named = current.get()
    fields = {} if named is None else {"request": named.request_id}
    fields |= getattr(record, "values", {})
    if hasattr(record, "left_out"):
        fields["left_out"] = record.left_out
    return {name: _shown(value) for name, value in fields.items()}


def _shown(value: Any) -> Any:
    """Numbers as they are; whatever is text, or becomes it, in one line that does nothing."""
    return value if value is None or isinstance(value, int | float) else printable(str(value), LINE)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    if not record.exc_info:
        return []
    return [
        printable(line, LINE) for line in formatter.formatException(record.exc_info).split("\n")
    ]


class TextFormatter(logging.Formatter):
    """For people. On a ``terminal`` a line that is too long goes on below, in whole words."""

    def __init__(self, terminal: bool = False) -> None:
        super().__init__()
        self._terminal = terminal

    def format(self, record: logging.LogRecord) -> str:
        """A line, and a traceback's lines behind it, indented: none of them can pass for a line."""
        fields = _fields(record).items()
        values = "".join(f" {name}={value}" for name, value in fields if value != "")
        message = _shown(record.getMessage())
        line = f"{self.formatTime(record)} {record.levelname.lower()} {message}{values}"
        lines = [line, *_traceback(self, record)]
        if self._terminal:
            # Indented, as a traceback is: what goes on cannot pass for a line.
            columns = shutil.get_terminal_size().columns - 2
            whole = {"break_long_words": False, "break_on_hyphens": False}
            lines = [part for each in lines for part in textwrap.wrap(each, columns, **whole)]  # type: ignore[arg-type]
        return "\n  ".join(lines)


class JsonFormatter(logging.Formatter):
    """For machines: an object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _shown(record.getMessage()),
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = "\n".join(_traceback(self, record))
        return json.dumps(entry, ensure_ascii=True)


def setup(form: Format, level: Literal["info", "warning"]) -> None:
    """Send this process's log to stderr: the base station's from ``level``, others' warnings."""
    handler = logging.StreamHandler()
    people = TextFormatter(sys.stderr.isatty())
    handler.setFormatter(JsonFormatter() if form == "json" else people)
    handler.addFilter(Throttle())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)  # Python's, which libraries give; in the same form
    logging.getLogger("draftlink").setLevel(level.upper())
