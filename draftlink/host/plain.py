"""Text of somebody else's, made fit for one line of a terminal or a log.

Names, reasons and ids come from peers and files. Shown as they are, they could move a cursor,
begin a line that we never wrote, or reverse the order in which the rest is read.
"""

from __future__ import annotations

import unicodedata

LIMIT = 1000  # characters; what is longer says nothing more to a reader


def printable(text: str, limit: int = LIMIT) -> str:
    r"""One line of ``text`` that does nothing, of at most ``limit`` characters.

    Controls, formats (bidirectional marks, zero widths, tags), surrogates, private and unassigned
    characters (Unicode's categories C*) and the separators of lines and paragraphs (Zl, Zp) are
    written as ``\x1b``, ``\u2028`` or ``\U000e0041``. What is cut off is marked by an ellipsis.
    """
    if text.isascii() and text.isprintable() and len(text) <= limit:
        return text
    cut = len(text) > limit
    shown: list[str] = []
    room = limit - cut
    for character in text[:limit]:
        piece = _escaped(character) if _acts(character) else character
        if len(piece) > room:
            cut = True
            break
        room -= len(piece)
        shown.append(piece)
    if cut:
        while shown and room < 1:
            room += len(shown.pop())
        shown.append("…")
    return "".join(shown)


def _acts(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] == "C" or category in ("Zl", "Zp")


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
