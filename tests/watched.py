"""A list that counts what is read of it."""

from __future__ import annotations


class Watched(list[int]):
    """A history; ``read``: how many of its ids have been read."""

    read = 0

    def __getitem__(self, at):
        found = super().__getitem__(at)
        self.read += len(found) if isinstance(at, slice) else 1
        return found

    def __iter__(self):
        self.read += len(self)
        return super().__iter__()
