"""Where a run of ids stood last in a history that grows: a table, whose cost no text can raise.

For runs of a few fixed lengths a table says behind which position each was seen last, by a hash of
its ids; a newer one takes the place of an older one with the same hash, so a token costs an entry
for each length, whatever the text. What the table says is held against the history before it is
believed: a hash that two runs share, or a text that was cut back, costs a place that is not found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from draftlink.protocol.history import common

LENGTHS = (8, 4, 2)  # of runs; the longest that is found counts
TAIL = 16  # ids before a place that are compared, the run included
AT_ONCE = 4096  # tokens that are taken up between two steps: some 0.2 ms
LEAST = 1024  # entries of a table; it has at least as many as the history has tokens
_FACTORS = np.random.default_rng(0).integers(1 << 62, size=LENGTHS[0], dtype=np.uint64) * 2 + 1


class Found(NamedTuple):
    """Ids that stood behind the same last ids, ``same`` of them, at most ``TAIL``."""

    ids: list[int]
    same: int


class Runs:
    """Those of one history."""

    def __init__(self) -> None:
        self._bits = LEAST.bit_length() - 1
        self._tables = self._empty()
        self._end = 0  # runs that end at or before it are in the tables

    def add(self, history: Sequence[int]) -> None:
        """Take up what has come of a history, at most ``AT_ONCE`` ids: its end is left for later.

        The run at the very end would only find itself. The history may have been cut back.
        """
        last = max(len(history) - 1, 0)
        if last > len(self._tables[0]):
            self._bits = last.bit_length()
            self._tables, self._end = self._empty(), 0
        self._end = min(self._end, last)
        end = min(last, self._end + AT_ONCE)
        begin = max(0, self._end + 1 - LENGTHS[0])
        ids = np.array(history[begin:end], dtype=np.uint64)
        for table, length in zip(self._tables, LENGTHS, strict=True):
            first = max(self._end + 1, length)
            if first <= end:
                places = self._places(ids[first - length - begin :], length)
                table[places] = np.arange(first, end + 1)  # of equal places the last one stays
        self._end = end

    def has(self, history: Sequence[int]) -> bool:
        """Whether all of a history has been taken up."""
        return self._end >= len(history) - 1

    def find(self, history: Sequence[int], held: Sequence[int], most: int) -> Found | None:
        """What may stand behind ``held`` behind a history, as ``add`` has it; at most so many ids.

        None where nothing is found. What was found near the end goes on in a circle.
        """
        tail = [*history[-TAIL:], *held[-TAIL:]][-TAIL:]
        for table, length in zip(self._tables, LENGTHS, strict=True):
            if len(tail) < length:
                continue
            run = np.array(tail[-length:], dtype=np.uint64)
            at = int(table[self._places(run, length)[0]])
            if not length <= at <= self._end:
                continue
            before = history[max(0, at - TAIL) : at]
            same = common(before[::-1], tail[::-1])
            if same >= length:
                ids = list(history[at : at + most])
                ids += held[: max(0, most - len(ids))]
                around = len(history) - at + len(held)
                while len(ids) < most:
                    ids.append(ids[-around])
                return Found(ids, same)
        return None

    def _empty(self) -> NDArray[np.int32]:
        return np.zeros((len(LENGTHS), 1 << self._bits), dtype=np.int32)

    def _places(self, ids: NDArray[np.uint64], length: int) -> NDArray[np.intp]:
        """Entries of all runs of a length in ids (n,): (n - length + 1,)."""
        count = len(ids) - length + 1
        mixed = np.zeros(count, dtype=np.uint64)
        for place, factor in enumerate(_FACTORS[:length]):
            mixed += ids[place : place + count] * factor
        return (mixed >> np.uint64(64 - self._bits)).astype(np.intp)
