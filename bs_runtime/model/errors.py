"""What a target cannot do."""

from __future__ import annotations


class TargetError(ValueError):
    """The model cannot be a target, or not do this; the text says why, and what to do."""
