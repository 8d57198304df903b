"""A target without weights that takes blocks which branch, and whose rows are of what is cached.

The slots' counts are the real ones; their contents are ids in the place of keys and values, which
feeds and a step's commands alone change. A row depends on all that its token may look at, so what
is moved wrongly, or not at all, shows in the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bs_runtime.model.kv import Feed
from tests.bs_runtime.late import TOKEN_BYTES, Shelf
from tests.fakes import FakeTarget


class Branching(FakeTarget):
    """``behind``: of the ids that a token sees, itself the last, its row (V,)."""

    branches = True
    token_bytes = TOKEN_BYTES
    layout = model = None

    def __init__(self, table: np.ndarray, behind, context: int = 1 << 20) -> None:
        super().__init__(table, context)
        self._behind = behind
        self.rows = self.branched = 0  # fed, and of them those beside a chain

    def open(self) -> Shelf:
        self.slots.append(Shelf(self))
        return self.slots[-1]

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        self.batches.append(len(feeds))
        found = []
        for feed in feeds:
            slot: Shelf = feed.slot
            slot.carry_out()
            begin, first, ancestors = slot.length, feed.first, feed.ancestors
            slot.reserve(begin + len(feed.ids))
            slot._bytes = TOKEN_BYTES * slot.capacity
            slot.held[begin:] = feed.ids
            rows = []
            for at in range(begin, len(slot.held)):
                seen = slot.held[: at + 1]
                if (
                    ancestors is not None
                    and (j := at - begin - len(feed.ids) + len(ancestors)) >= 0
                ):
                    block = [i for i in range(64) if ancestors[j] >> i & 1]
                    seen = slot.held[:first] + [slot.held[first + i] for i in block]
                    self.branched += len(block) <= at - first
                rows.append(self._behind(seen))
            self.rows += len(rows)
            slot.advance(feed.ids, feed.parents)
            found += rows[len(rows) - feed.rows :]
        return torch.as_tensor(np.array(found)) if found else torch.empty(0, self.vocab_size)
