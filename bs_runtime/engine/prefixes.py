"""Prefix caching: which slot holds the longest common prefix with a text.

Texts are cut into blocks, and of each prefix that is a whole number of blocks long a hash is kept,
the hash of the prefix before it and of its last block. So the longest common prefix is found by a
binary search over one text's hashes, whatever the number of slots; within a block ids are compared.
A hash only says where to look: ids are compared after every hit, as another text's keys and values
would spoil the text that they are copied to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from bs_runtime.model.kv import Slot
from draftlink.protocol.history import common

BLOCK = 16  # tokens; a shorter common prefix is not found, as a copy would not be worth it
# Nobody who does not know it can make texts that collide, and so make searches long.
SEED = int.from_bytes(os.urandom(7), "little")


def digest(before: int, block: Sequence[int]) -> int:
    """The hash of a prefix, from the hash of what stands before its last block, and that block."""
    return hash((before, *block))


def extend(digests: list[int], ids: Sequence[int], depth: int) -> None:
    """Add hashes until there is one for each prefix of up to ``depth`` blocks of ``ids``."""
    for begin in range(len(digests) * BLOCK, depth * BLOCK, BLOCK):
        digests.append(digest(digests[-1] if digests else SEED, ids[begin : begin + BLOCK]))


@dataclass(frozen=True)
class Prefix:
    """The first ``length`` tokens of ``source`` are those of a round, and need not be fed."""

    source: Slot
    length: int


class Chain:
    """A text that does not change, with the hashes of its prefixes, made when they are wanted."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids = ids
        self._digests: list[int] = []

    def at(self, depth: int) -> int:
        """The hash of the first ``depth`` blocks, from 1 to as many as the text has."""
        extend(self._digests, self.ids, depth)
        return self._digests[depth - 1]

    def shares(self, other: Chain, count: int) -> bool:
        """Whether both texts begin with the same ``count`` tokens."""
        if min(len(self.ids), len(other.ids)) < count:
            return False
        depth = count // BLOCK
        same = depth == 0 or self.at(depth) == other.at(depth)
        return same and self.ids[:count] == other.ids[:count]


@dataclass(eq=False)
class Entry:
    """A slot in an index. ``used`` is larger for a slot that was used later.

    ``digests`` are the hashes of a part of what the slot holds: it may hold more since, or less.
    """

    slot: Slot
    used: int = 0
    digests: list[int] = field(default_factory=list)


class Index:
    """The slots whose contents one tenant may copy.

    A slot is entered anew (``update``) after it was fed, and cut back (``cut``) before it is fed,
    as it may have been rolled back in the meantime, or emptied.
    """

    def __init__(self) -> None:
        self._holders: dict[int, dict[Entry, None]] = {}  # of each prefix, by its hash

    def __bool__(self) -> bool:
        return bool(self._holders)

    def update(self, entry: Entry) -> None:
        """Enter what a slot holds now. What was entered of it before must still be there."""
        known, depth = len(entry.digests), entry.slot.length // BLOCK
        if depth > known:
            extend(entry.digests, entry.slot.ids, depth)
            for found in entry.digests[known:]:
                self._holders.setdefault(found, {})[entry] = None

    def cut(self, entry: Entry) -> None:
        """Forget what a slot does not hold any more."""
        self._forget(entry, entry.slot.length // BLOCK)

    def remove(self, entry: Entry) -> None:
        """Forget a slot."""
        self._forget(entry, 0)

    def _forget(self, entry: Entry, depth: int) -> None:
        for found in entry.digests[depth:]:
            holders = self._holders.get(found, {})
            holders.pop(entry, None)
            if not holders:
                self._holders.pop(found, None)
        del entry.digests[depth:]

    def find(self, text: Chain, least: int) -> tuple[Entry, int] | None:
        """Which slot has the longest common prefix with a text, and its length.

        None if that is less than ``least`` tokens, which must be ``BLOCK`` or more. Of prefixes
        that are as long, that of the slot which was used last. After a collision of hashes None,
        too.
        """
        depth, holders = self._deepest(text, least // BLOCK)
        if not depth:
            return None
        begin = depth * BLOCK
        rest = text.ids[begin : begin + BLOCK]
        same, _, entry = max(
            (
                (begin + common(one.slot.ids[begin : begin + BLOCK], rest), one.used, one)
                for one in holders
            ),
            key=lambda found: found[:2],
        )
        if same < least or entry.slot.ids[:begin] != text.ids[:begin]:
            return None
        return entry, same

    def _deepest(self, text: Chain, least: int) -> tuple[int, Sequence[Entry]]:
        """The most blocks that a slot shares with a text, and the slots; 0 if less than ``least``.

        By their hashes, where each that is known has all before it known, too.
        """
        while True:
            low, high = least - 1, len(text.ids) // BLOCK
            while low < high:
                middle = (low + high + 1) // 2
                if text.at(middle) in self._holders:
                    low = middle
                else:
                    high = middle - 1
            if low < least:
                return 0, ()
            holders = list(self._holders[text.at(low)])
            rolled_back = [one for one in holders if one.slot.length < low * BLOCK]
            if not rolled_back:
                return low, holders
            for one in rolled_back:
                self.cut(one)
