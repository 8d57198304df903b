"""How often each id has been seen: discounted counts, whose running sums are found in log time."""

from __future__ import annotations


class Seen:
    """Frequencies of ids in the order of their first appearance, which makes an id's *slot*.

    The first time that an id is seen counts ``one`` less ``discount``, every other time ``one``.
    Ids are forgotten in the reverse order of their appearance.
    """

    def __init__(self, one: int, discount: int) -> None:
        self.frequency: dict[int, int] = {}
        self.ids: list[int] = []  # by slot
        self.slot_of: dict[int, int] = {}
        self.total = 0  # of all frequencies
        self._one = one
        self._first = one - discount
        self._sums = [0]  # a Fenwick tree over the frequencies by slot, from index 1

    def add(self, token: int) -> None:
        """Once more."""
        before = self.frequency.get(token)
        if before is not None:
            self.frequency[token] = before + self._one
            self._change(self.slot_of[token], self._one)
            return
        self.frequency[token] = self._first
        self.total += self._first
        self.slot_of[token] = len(self.ids)
        self.ids.append(token)
        at = len(self.ids)
        total, step = self._first, 1
        while not at & step:  # the sums that end just before it and lie in its span
            total += self._sums[at - step]
            step <<= 1
        self._sums.append(total)

    def remove(self, token: int) -> None:
        """Once less."""
        if self.frequency[token] > self._first:
            self.frequency[token] -= self._one
            self._change(self.slot_of[token], -self._one)
            return
        self.total -= self._first
        del self.frequency[token], self.slot_of[token]
        self.ids.pop()
        self._sums.pop()

    def _change(self, slot: int, frequency: int) -> None:
        self.total += frequency
        at = slot + 1
        while at < len(self._sums):
            self._sums[at] += frequency
            at += at & -at

    def below(self, slot: int) -> int:
        """The sum of the frequencies of all slots before this one."""
        total = 0
        while slot:
            total += self._sums[slot]
            slot &= slot - 1
        return total

    def find(self, value: int) -> tuple[int, int]:
        """The slot that owns ``value``, and the sum of all before it."""
        slot, below = 0, 0
        step = 1 << len(self.ids).bit_length()
        while step:
            if slot + step < len(self._sums) and below + self._sums[slot + step] <= value:
                slot += step
                below += self._sums[slot]
            step >>= 1
        return slot, below
