"""The log: one line an event, as text or as JSON, each with the id of the request it is about."""

from __future__ import annotations

import json
import logging
import secrets
from contextvars import ContextVar
from typing import Any, Literal, Protocol

Format = Literal["text", "json"]


class Named(Protocol):
    """What a line is about: a connection, and the generation that it has reached."""

    request_id: str


# Read when a line is written, so that all tasks of a connection name its present generation.
current: ContextVar[Named | None] = ContextVar("request", default=None)

# Texts of peers may stand in a message: nothing in them may begin a line or move a cursor.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}


def new_id() -> str:
    """An id for a connection."""
    return secrets.token_hex(4)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    named = current.get()
    request = {} if named is None else {"request": named.request_id}
    return {**request, **getattr(record, "values", {})}


class TextFormatter(logging.Formatter):
    """For people."""

    def format(self, record: logging.LogRecord) -> str:
        """A line, and a traceback's lines behind it."""
        values = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{self.formatTime(record)} {record.levelname.lower()} {record.getMessage()}{values}"
        trace = "\n" + self.formatException(record.exc_info) if record.exc_info else ""
        return line.translate(_CONTROLS) + trace


class JsonFormatter(logging.Formatter):
    """For machines: an object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The object."""
        entry = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=True, default=str)


def setup(form: Format, level: Literal["info", "warning"]) -> None:
    """Send this process's log to stderr: the base station's from ``level``, others' warnings."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)  # Python's, which libraries give; in the same form
    logging.getLogger("draftlink").setLevel(level.upper())
