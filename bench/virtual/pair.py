"""The embedded pair with every forward remembered: what a history is followed by is computed once.

Many cells of a table go through the same histories. Rows are the models' own; what is left out is
computing them again. ``forget`` frees the memory, some 50 MB for a text of 256 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bs_runtime.model.commands import Command
from bs_runtime.model.kv import Feed
from bs_runtime.model.step import Serial


class _Node:
    """A history: what may follow, and the row behind it."""

    __slots__ = ("following", "row")

    def __init__(self) -> None:
        self.following: dict[int, _Node] = {}
        self.row: Any = None

    def after(self, token: int) -> _Node:
        node = self.following.get(token)
        if node is None:
            node = self.following[token] = _Node()
        return node


class _Path:
    """A cache that holds a history: ids, and their nodes."""

    def __init__(self, root: _Node) -> None:
        self.ids: list[int] = []
        self.nodes: list[_Node] = []
        self.bytes = 0  # rows are shared, and no budget is measured here
        self.in_flight = False
        self._root = root

    @property
    def length(self) -> int:
        return len(self.ids)

    def bytes_for(self, length: int, *, spare: bool = False) -> int:
        """Bytes for so many tokens: see ``Slot``."""
        return 0

    def reserve(self, length: int, *, spare: bool = True) -> None:
        """Room for so many tokens: there always is."""

    def extend(self, ids: Sequence[int]) -> None:
        node = self.nodes[-1] if self.nodes else self._root
        for token in ids:
            node = node.after(token)
            self.nodes.append(node)
        self.ids += ids

    def rollback(self, length: int) -> None:
        if not 0 <= length <= len(self.ids):
            raise ValueError(f"cannot roll {len(self.ids)} tokens back to {length}")
        del self.ids[length:], self.nodes[length:]

    def drop(self) -> None:
        self.rollback(0)

    def take_commands(self) -> Sequence[Command]:
        """None: what is to be done is done at once."""
        return ()


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading ids are the same."""
    short = min(len(a), len(b))
    if a[:short] == b[:short]:
        return short
    return next(i for i in range(short) if a[i] != b[i])


class Draft:
    """A draft model over another that computes what is not yet known."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._fed: list[int] = []
        self._root = _Node()
        self._path = _Path(self._root)
        self.forwards = 0

    def forget(self) -> None:
        """Free all rows; the cache is empty."""
        self._root = _Node()
        self._path = _Path(self._root)

    @property
    def length(self) -> int:
        """Tokens in the cache."""
        return self._path.length

    def rollback(self, length: int) -> None:
        """Cut the cache back."""
        self._path.rollback(length)

    def forward(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Feed ids; the last one's logits (V,)."""
        path = self._path
        path.extend(ids)
        node = path.nodes[-1]
        if node.row is None:
            kept = min(_common(self._fed, path.ids), len(path.ids) - 1)
            self._model.rollback(kept)
            node.row = self._model.forward(path.ids[kept:]).copy()
            self._fed = list(path.ids)
            self.forwards += 1
        row: NDArray[np.float32] = node.row
        return row


class Target(Serial):
    """A target over another that computes what is not yet known."""

    def __init__(self, target: Any) -> None:
        self.name, self.dtype = target.name, target.dtype
        self.tokenizer_hash, self.vocab_size = target.tokenizer_hash, target.vocab_size
        self.context = target.context
        self.facts = target.facts
        self._target = target
        self._slot = target.open()
        self._fed: list[int] = []
        self._root = _Node()
        self.forwards = 0

    def forget(self) -> None:
        """Free all rows; slots opened before are not to be used any more."""
        self._root = _Node()

    def open(self) -> Any:
        """A new, empty slot."""
        return _Path(self._root)

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        """Feed many slots at once: see ``Engine.forward``."""
        rows: list[torch.Tensor] = []
        for feed in feeds:
            path: Any = feed.slot
            path.extend(list(feed.ids))
            begin = path.length - feed.rows
            wanted = path.nodes[begin:]
            missing = [i for i, node in enumerate(wanted, begin) if node.row is None]
            if missing:
                self._compute(path, missing[0])
            rows += [node.row for node in wanted]
        return torch.stack(rows) if rows else torch.empty(0, self.vocab_size)

    def _compute(self, path: Any, first: int) -> None:
        """The rows from ``first`` on."""
        kept = min(_common(self._fed, path.ids), first)
        self._slot.rollback(kept)
        ids = path.ids[kept:]
        rows = self._target.forward([Feed(self._slot, ids, len(path.ids) - first)])
        self._fed = list(path.ids)
        for node, row in zip(path.nodes[first:], rows, strict=True):
            node.row = row.clone()
        self.forwards += 1
