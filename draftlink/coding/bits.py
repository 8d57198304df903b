"""Fixed-width fields to bits and back, least significant bit first.

This is the simple reference form. A peer's bytes that do not parse raise ``ValueError``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def width_for(count: int) -> int:
    """Bits that tell ``count`` values apart: ceil(log2(count)), 0 for a single value."""
    return max(0, count - 1).bit_length()


class BitWriter:
    """Collects fields."""

    def __init__(self) -> None:
        self._pieces: list[NDArray[np.uint8]] = []
        self.bits = 0

    def write(self, values: ArrayLike, width: int) -> None:
        """Append integers in [0, 2**width), one field of ``width`` bits each."""
        fields = np.atleast_1d(np.asarray(values, dtype=np.int64))
        if width == 0 or not len(fields):
            return
        bits = (fields[:, None] >> np.arange(width)) & 1
        self._pieces.append(bits.astype(np.uint8).ravel())
        self.bits += width * len(fields)

    def bytes(self) -> bytes:
        """All fields, padded with zero bits to a whole byte."""
        if not self._pieces:
            return b""
        return np.packbits(np.concatenate(self._pieces), bitorder="little").tobytes()


class BitReader:
    """Reads what a ``BitWriter`` wrote."""

    def __init__(self, data: bytes) -> None:
        # Behind each byte there are eight to read: a field of any width that is written lies in
        # the 64 bits that begin with its first byte.
        self._words = np.ndarray((len(data),), "<u8", data + bytes(8), strides=(1,))
        self._data = data
        self._at = 0  # in bits

    def read(self, count: int, width: int) -> NDArray[np.int64]:
        """The next ``count`` fields of at most 56 bits, int64 (count,).

        Raises ValueError past the end.
        """
        begin, end = self._at, self._at + count * width
        self._reach(end)
        if not width:
            return np.zeros(count, np.int64)
        if width % 8 == 0 and begin % 8 == 0:
            fields = self._words[begin // 8 : end // 8 : width // 8]
        else:
            bits = np.arange(begin, end, width)
            fields = self._words[bits >> 3] >> (bits & 7).astype(np.uint64)
        return (fields & np.uint64((1 << width) - 1)).astype(np.int64)

    def field(self, width: int) -> int:
        """The next field. Raises ValueError past the end."""
        begin, end = self._at, self._at + width
        self._reach(end)
        word = int.from_bytes(self._data[begin >> 3 : (end + 7) >> 3], "little")
        return word >> (begin & 7) & ((1 << width) - 1)

    def _reach(self, end: int) -> None:
        """Fields are read up to the bit ``end``. Raises ValueError if there are not so many."""
        if end > 8 * len(self._data):
            raise ValueError(f"the payload ends {end - 8 * len(self._data)} bits too early")
        self._at = end

    def finish(self) -> None:
        """Raise ValueError unless only zero padding of less than a byte is left."""
        at, shift = divmod(self._at, 8)
        rest = self._data[at:]
        if len(rest) > 1 or (rest and (not shift or rest[0] >> shift)):
            raise ValueError("the payload has bits left over")
