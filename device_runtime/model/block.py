"""The tokens behind a cache's chain that branch: which of them sees which.

A token of the block is named by its index, in the order in which the block was fed, from 0 on: so
far behind the chain its keys and values lie. Its *parent* was fed before it, and is another token
of the block, or ``ROOT`` for the chain's end. It sees the chain, its ancestors and itself; these
are bits of a number, bit j for token j. Its position is as far behind the chain as it has
ancestors. (``bs_runtime.model.block`` says the same of a base station's slot.)
"""

from __future__ import annotations

from collections.abc import Sequence

ROOT = -1  # the parent of a token that follows the chain


class Block:
    """What each of its tokens sees."""

    def __init__(self) -> None:
        self._sight: list[int] = []

    def __len__(self) -> int:
        return len(self._sight)

    def extend(self, parents: Sequence[int]) -> list[int]:
        """Tokens with such parents are fed: what each of them sees. Raises ValueError for a parent
        that is not fed before its child; the block is then as it was."""
        made = list(self._sight)
        for parent in parents:
            if not ROOT <= parent < len(made):
                raise ValueError(f"token {len(made)} of a block cannot follow token {parent}")
            made.append((made[parent] if parent != ROOT else 0) | 1 << len(made))
        fresh, self._sight = made[len(self._sight) :], made
        return fresh

    def keep(self, chain: Sequence[int], rest: Sequence[int]) -> list[int]:
        """The path ``chain`` joins the chain, of what follows it ``rest`` stays, the others go.

        What stays is numbered anew, in the order of ``rest``. The indices from which the entries
        come that lie behind the old chain from now on. Raises ValueError for a path that is none,
        and for what does not follow it, or follows something that goes; the block is then as it
        was.
        """
        passed = 0
        for at in chain:
            if not 0 <= at < len(self) or self._sight[at] ^ passed != 1 << at:
                raise ValueError(f"{list(chain)} is not a path of the block")
            passed = self._sight[at]
        known, made = passed, list[int]()
        number = {at: place for place, at in enumerate(rest)}
        for at in rest:
            if not 0 <= at < len(self) or self._sight[at] & ~known != 1 << at:
                raise ValueError(f"token {at} of the block does not follow what is kept before it")
            if self._sight[at] & passed != passed:
                raise ValueError(f"token {at} of the block does not follow the path that is kept")
            known |= 1 << at
            made.append(sum(1 << number[j] for j in number if self._sight[at] >> j & 1))
        self._sight = made
        return [*chain, *rest]

    def clear(self) -> None:
        """Nothing branches."""
        self._sight.clear()
