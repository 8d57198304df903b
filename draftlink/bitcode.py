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
        self._bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), bitorder="little")
        self._at = 0

    def read(self, count: int, width: int) -> NDArray[np.int64]:
        """The next ``count`` fields, int64 (count,). Raises ValueError past the end."""
        end = self._at + count * width
        if end > len(self._bits):
            raise ValueError(f"the payload ends {end - len(self._bits)} bits too early")
        fields = self._bits[self._at : end].reshape(count, width).astype(np.int64)
        self._at = end
        values: NDArray[np.int64] = fields @ (np.int64(1) << np.arange(width, dtype=np.int64))
        return values

    def finish(self) -> None:
        """Raise ValueError unless only zero padding of less than a byte is left."""
        rest = self._bits[self._at :]
        if len(rest) >= 8 or rest.any():
            raise ValueError("the payload has bits left over")
