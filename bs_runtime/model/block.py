"""The tokens behind a slot's committed chain that are under verification: a chain, or a tree.

A token of the block is named by its index in the order in which the block was fed, from 0 on. That
is also where its keys and values lie, counted from the end of the committed chain. Every token has
a *parent*, which was fed before it: the index of another token of the block, or ``ROOT`` for the
end of the committed chain. The *ancestors* of a token are a bit mask over the block's indices: bit
j is set if token j lies on the path from the chain to this token, the token itself included. A
token attends to the whole committed chain and to its ancestors, and to nothing else, so that its
row is that of its own path. Its position is the chain's length plus its depth, which is the number
of its ancestors less one.
"""

from __future__ import annotations

from collections.abc import Sequence

from bs_runtime.model.errors import TargetError

ROOT = -1  # the parent of a token that follows the committed chain
MOST = 64  # tokens of a block that branches: a token's ancestors are one int64


class Block:
    """Token ids in the order fed, and their ancestors.

    A block in which each token's parent is the one before it is a plain chain: causal attention
    says all that there is to say, so no masks are kept, and it may have any length.
    """

    def __init__(self) -> None:
        self.ids: list[int] = []
        self._masks: list[int] = []  # of each token, once the block is not a plain chain

    def __len__(self) -> int:
        return len(self.ids)

    def ancestors(self, parents: Sequence[int]) -> list[int] | None:
        """The ancestors of tokens that are fed next; None if with them it is a plain chain.

        Raises TargetError for a parent that is not fed before its child, and for too many tokens.
        """
        begin = len(self.ids)
        if not self._masks and _is_chain(parents, begin):
            return None
        if begin + len(parents) > MOST:
            raise TargetError(
                f"a block that branches has at most {MOST} tokens, not {begin + len(parents)}"
            )
        masks = self._known()
        for parent in parents:
            if not ROOT <= parent < len(masks):
                raise TargetError(
                    f"token {len(masks)} of a block cannot follow token {parent}: feed parents"
                    f" before their children, and give {ROOT} for the end of the chain"
                )
            masks.append((masks[parent] if parent != ROOT else 0) | 1 << len(masks))
        return masks[begin:]

    def extend(self, ids: Sequence[int], parents: Sequence[int]) -> None:
        """These tokens were fed. Raises what ``ancestors`` raises."""
        masks = self.ancestors(parents)
        if masks is not None:
            self._masks = self._known() + masks
        self.ids += ids

    def path(self, indices: Sequence[int]) -> list[int]:
        """The ids of a path from the committed chain on. Raises TargetError where it is none."""
        if not self._masks and indices == range(min(len(indices), len(self.ids))):
            return self.ids[: len(indices)]
        masks, passed = self._known(), 0
        for at in indices:
            if not 0 <= at < len(masks) or masks[at] ^ passed != 1 << at:
                raise TargetError(f"{list(indices)} is not a path of the block under verification")
            passed = masks[at]
        return [self.ids[at] for at in indices]

    def clear(self) -> None:
        """There is no block."""
        self.ids.clear()
        self._masks.clear()

    def _known(self) -> list[int]:
        """The ancestors of each token, as a list of one's own."""
        return list(self._masks) or [(2 << i) - 1 for i in range(len(self.ids))]


def _is_chain(parents: Sequence[int], begin: int) -> bool:
    """Whether each token follows the one before it. Of a range it takes no time to say so."""
    chain = range(begin - 1, begin - 1 + len(parents))
    return parents == chain or (not isinstance(parents, range) and list(parents) == list(chain))
