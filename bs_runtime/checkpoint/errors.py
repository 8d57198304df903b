"""What goes wrong while a checkpoint is read."""

from __future__ import annotations

from draftlink.host.plain import printable


class CheckpointError(Exception):
    """A checkpoint that cannot be read; the text says why and what to do, in one line."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))
