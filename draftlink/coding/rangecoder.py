"""A range coder: symbols of known frequency to the shortest byte string, and back.

Integers only, all below 2**57, so both ends agree on every platform and in every language. The
message is a number in [0, 1); each symbol narrows an interval in proportion to its frequency
(G. N. N. Martin, "Range encoding", 1979). The payload is the shortest bit string in the last
interval, so a whole frame costs less than one bit more than its symbols' information, before
padding to a byte.

A decoder accepts exactly the strings that an encoder writes; all others raise ``ValueError``.
"""

from __future__ import annotations

_TOP = 56  # bits of the first interval's width
_LOW = 40  # below 2**_LOW the width is scaled up
_WORD = _TOP - _LOW
_ONE = 1 << _TOP
_MASK = (1 << _WORD) - 1
MAX_TOTAL = 1 << 28  # of one symbol's frequencies: they keep at least 12 bits of precision


class RangeEncoder:
    """Collects symbols."""

    def __init__(self) -> None:
        self._words: list[int] = []  # the interval's lower end; most significant first
        self._low = 0  # and what comes after those words, below 2 * 2**_TOP
        self._width = _ONE

    def push(self, start: int, frequency: int, total: int) -> None:
        """Append the symbol that owns [start, start + frequency) of [0, total)."""
        unit = self._width // total
        self._low += unit * start
        width = unit * frequency
        while width < 1 << _LOW:
            self._settle()
            self._words.append(self._low >> _LOW)
            self._low = (self._low << _WORD) & (_ONE - 1)
            width <<= _WORD
        self._width = width

    def uniform(self, value: int, total: int) -> None:
        """Append one of ``total`` equally likely values."""
        self.push(value, 1, total)

    def _settle(self) -> None:
        """Carry what stands above 2**_TOP into the words."""
        if self._low >= _ONE:
            self._low -= _ONE
            at = len(self._words) - 1
            while self._words[at] == _MASK:
                self._words[at] = 0
                at -= 1
            self._words[at] += 1

    def finish(self) -> tuple[bytes, int]:
        """The payload, and its length in bits before padding. Nothing may be pushed after it."""
        self._settle()
        settled = b"".join(word.to_bytes(_WORD // 8, "big") for word in self._words)
        low = int.from_bytes(settled, "big") << _TOP | self._low
        return _shortest(low, self._width, len(settled) * 8 + _TOP)


class RangeDecoder:
    """Reads what a ``RangeEncoder`` wrote, given the same totals and frequencies."""

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._at = _TOP // 8  # bytes read; zeros without end follow the payload
        self._code = int.from_bytes(payload[: self._at].ljust(self._at, b"\0"), "big")
        self._width = _ONE
        self._unit = 0

    def peek(self, total: int) -> int:
        """The value in [0, total) that the next symbol owns; ``take`` that symbol next.

        Raises ValueError where no symbol of an encoder leads.
        """
        self._unit = self._width // total
        value = self._code // self._unit
        if value >= total:
            raise ValueError("the payload is none that an encoder writes")
        return value

    def take(self, start: int, frequency: int) -> None:
        """Consume the symbol that owns [start, start + frequency) of the last ``peek``'s total."""
        self._code -= self._unit * start
        self._width = self._unit * frequency
        if self._width < 1 << _LOW:
            self._refill()

    def uniform(self, total: int) -> int:
        """The next of ``total`` equally likely values."""
        unit = self._width // total
        value = self._code // unit
        if value >= total:
            raise ValueError("the payload is none that an encoder writes")
        self._code -= unit * value
        self._width = unit
        if unit < 1 << _LOW:
            self._refill()
        return value

    def _refill(self) -> None:
        while self._width < 1 << _LOW:
            word = self._payload[self._at : self._at + 2]
            self._code = self._code << _WORD | int.from_bytes(word.ljust(2, b"\0"), "big")
            self._width <<= _WORD
            self._at += 2

    def finish(self) -> None:
        """Raise ValueError unless the payload is the one that an encoder writes."""
        size = self._at
        if len(self._payload) > size:
            raise ValueError("the payload has bytes left over")
        low = int.from_bytes(self._payload.ljust(size, b"\0"), "big") - self._code
        if _shortest(low, self._width, size * 8)[0] != self._payload:
            raise ValueError("the payload is not the shortest of its meaning")


def _shortest(low: int, width: int, scale: int) -> tuple[bytes, int]:
    """The shortest bit string in [low, low + width) / 2**scale, padded to bytes; its bits.

    It ends where the last number below the interval and the last number in it first differ.
    """
    if low == 0:
        return b"", 0
    last = low + width - 1
    bits = scale + 1 - ((low - 1) ^ last).bit_length()
    size = (bits + 7) // 8
    # Shift the bits behind the string out, and padding in.
    value = last >> (scale - bits) << (size * 8 - bits)
    return value.to_bytes(size, "big"), bits
