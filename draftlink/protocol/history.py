"""Histories of token ids, and texts, as both ends compare them."""

from __future__ import annotations

from collections.abc import Sequence

BLOCK = 512  # tokens that are compared at once


def common(a: Sequence[object], b: Sequence[object]) -> int:
    """The length of the longest common prefix. Either is read once, as far as they are the same.

    Both are of one kind, two lists or two texts: their parts are compared as wholes.
    """
    longest = min(len(a), len(b))
    for begin in range(0, longest, BLOCK):
        end = min(begin + BLOCK, longest)
        if a[begin:end] != b[begin:end]:
            return next(i for i in range(begin, end) if a[i] != b[i])
    return longest
