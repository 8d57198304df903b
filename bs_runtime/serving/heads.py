"""The head of a stranger's request, before any parser is made for it: whether it can be one here.

A parser, a transport and what hangs on them cost half a millisecond, and a stranger sends what no
parser takes as fast as he can open connections. What is looked at here costs some microseconds.
"""

from __future__ import annotations

import hashlib
import re

MOST_BYTES = 1 << 14  # of a head; a browser's can be long by other pages' cookies
MOST_LINES = 100
MOST_LINE_BYTES = 8190  # what the WebSocket parser takes; Apache's limit, too
_ENDS = b"\n\r\n", b"\n\n"
_BODY = re.compile(
    rb"\n(?:transfer-encoding[ \t]*:|content-length[ \t]*:(?![ \t]*0+[ \t]*\r?\n))", re.I
)
_CLAIM = re.compile(rb"\nauthorization[ \t]*:[ \t]*([^\r\n]*)", re.I)
LONG = (431, "The head of a request is too long here")
BODY = (400, "No request has a body here")
OTHER = (400, "This is no HTTP")


def end(data: bytes, begin: int = 0) -> int | None:
    """How long the head is, its empty line included; None where its end has not come.

    ``begin``: where it is looked for, if what is before has been looked at.
    """
    begin = max(0, begin - 2)  # an end may have come in parts
    found = [at + len(mark) for mark in _ENDS if (at := data.find(mark, begin)) >= 0]
    return min(found, default=None)


def fault(data: bytes, end: int | None) -> tuple[int, str] | None:
    """Why what has come can be no request of this server's, if so: a status, and a line.

    ``end``: the head's. It is looked at once, when it has come whole: a byte may come alone.
    """
    if not data[:1].isalpha():
        return OTHER
    if end is None:
        return LONG if len(data) > MOST_BYTES else None
    head = data[:end]
    if len(head) > MOST_BYTES or head.count(b"\n") > MOST_LINES:
        return LONG
    if len(head) > MOST_LINE_BYTES and max(map(len, head.split(b"\n"))) > MOST_LINE_BYTES:
        return LONG
    return BODY if _BODY.search(head) else None


def claim(head: bytes) -> bytes:
    """Who a request says it is from: a hash of its ``Authorization``, which may be wrong."""
    found = _CLAIM.search(head)
    return hashlib.sha256(found[1]).digest() if found else b""


def answer(status: int, text: str) -> bytes:
    """A whole response."""
    phrase = {400: "Bad Request", 431: "Request Header Fields Too Large"}[status]
    return (
        f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(text) + 1}\r\n\r\n{text}\n"
    ).encode()
