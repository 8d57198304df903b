"""Integers and blocks in a compact frame: unsigned LEB128, and so many bytes behind a length."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 5  # of an integer


def varints(*values: int) -> bytes:
    """Each value, from 0 to 2³² − 1, in seven bits a byte, the least significant first."""
    out = bytearray()
    for value in values:
        while value >= 0x80:
            out.append(value & 0x7F | 0x80)
            value >>= 7
        out.append(value)
    return bytes(out)


def block(data: bytes) -> bytes:
    """A block as a frame has it: its length before it; nothing for an empty one."""
    return varints(len(data)) + data if data else b""


def read(data: bytes) -> NDArray[np.int64]:
    """All integers of which ``data`` is made. Raises ValueError for anything else.

    As ``Reader`` reads them, and many at once in far less time.
    """
    octets = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(octets < 0x80)
    if len(octets) and (not len(ends) or ends[-1] != len(octets) - 1):
        raise ValueError("the last integer ends too early")
    begins = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    sizes = ends - begins + 1
    if (sizes > MOST_BYTES).any() or ((sizes > 1) & (octets[ends] == 0)).any():
        raise ValueError("an integer is longer than 32 bits or padded")
    values: NDArray[np.int64] = (octets[begins] & 0x7F).astype(np.int64)
    for place in range(1, sizes.max(initial=1)):
        longer = np.flatnonzero(sizes > place)
        values[longer] |= (octets[begins[longer] + place] & 0x7F).astype(np.int64) << 7 * place
    if (values >= 1 << 32).any():
        raise ValueError("an integer is longer than 32 bits")
    return values


class Reader:
    """Reads bytes from ``at`` on. Raises ValueError where they are not what is asked for."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at

    def byte(self) -> int:
        """The next one."""
        if self._at >= len(self._data):
            raise ValueError("the frame ends too early")
        self._at += 1
        return self._data[self._at - 1]

    def varint(self) -> int:
        """An integer in its shortest form."""
        value = 0
        for shift in range(0, 35, 7):
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value >= 1 << 32 or (shift and not byte):
                    break  # too large, or not the shortest form
                return value
        raise ValueError("an integer of the frame is longer than 32 bits or padded")

    def positive(self) -> int:
        """An integer that would be left out if it were 0: a frame has one form."""
        value = self.varint()
        if not value:
            raise ValueError("a number of the frame is 0, and would be left out")
        return value

    def rest(self) -> bytes:
        """All that is left."""
        begin, self._at = self._at, len(self._data)
        return self._data[begin:]

    def block(self) -> bytes:
        """A length, and so many bytes."""
        length = self.varint()
        begin, self._at = self._at, self._at + length
        # An empty block is not sent: a frame has one form.
        if not length or self._at > len(self._data):
            raise ValueError("a block of the frame is empty or ends too early")
        return self._data[begin : self._at]

    def flags(self, known: int) -> int:
        """A byte of flags, none but the ``known``."""
        flags = self.byte()
        if flags & ~known:
            raise ValueError(f"unknown flags {flags:#x}")
        return flags

    def finish(self) -> None:
        """Nothing is left."""
        if self._at != len(self._data):
            raise ValueError("the frame has bytes left over")
