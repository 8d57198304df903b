"""Models that replay a record: a text, and what a draft would have proposed at each of its tokens.

Of the pair's own text it is kept whether the draft's proposal behind the right prefix is the text's
own token, and how sure the draft was. Over a small vocabulary that plays thousands of times faster
than the pair, and to link, window and scheduler it is the same text: they see no ids. Behind a
wrong prefix nothing is right for long in either, and nothing that is proposed there matters.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bs_runtime.checkpoint.facts import Facts
from bs_runtime.model.block import ROOT, Block
from bs_runtime.model.commands import Command
from bs_runtime.model.kv import Feed
from bs_runtime.model.step import Serial

VOCAB = 256
HASH = "record"
CONTEXT = 4096
FAR = 1e6  # times later: as good as never
SURE = 20.0  # by which a target's own token leads


@dataclass(frozen=True)
class Record:
    """A text behind ``prompt`` tokens: whether the draft is right about each token, and how sure.

    ``number``: the prompt's first token, by which a target knows which text to write. ``seconds``:
    of each token's second candidate, how much later it arrives, and whether it is the text's own;
    none where there are to be none.
    """

    number: int
    prompt: int
    right: tuple[bool, ...]
    chances: tuple[float, ...]
    seconds: tuple[tuple[float, bool], ...] = ()

    @property
    def alpha(self) -> float:
        """The share of tokens that the draft is right about."""
        return sum(self.right) / len(self.right)

    def better(self, alpha: float, seed: int) -> Record:
        """The same, with wrong proposals made right at random until ``alpha`` is reached."""
        rng = random.Random(seed)
        wrong = [place for place, right in enumerate(self.right) if not right]
        rng.shuffle(wrong)
        left = round((1.0 - alpha) * len(self.right))
        mended = set(wrong[left:])
        right = tuple(right or place in mended for place, right in enumerate(self.right))
        seconds = tuple(
            (later, own and not mended)
            for (later, own), mended in zip(self.seconds, right, strict=False)
        )
        return replace(self, right=right, seconds=seconds)

    def token(self, position: int) -> int:
        """The text's token at a position, the prompt's included."""
        return (position * position + 5 * position + self.number) % VOCAB

    @property
    def ids(self) -> list[int]:
        """The prompt."""
        return [self.token(position) for position in range(self.prompt)]

    def drafted(self, position: int) -> NDArray[np.float32]:
        """The draft's logits (V,) for a position."""
        place = min(max(position - self.prompt, 0), len(self.right) - 1)
        later, second = self.seconds[place] if self.seconds else (FAR, False)
        # Unlikely ids win a race, too, and by a hair: what all others share must not hide them.
        least = 1.5 / VOCAB * (later if later < VOCAB / 3 else 1.0)
        chance = min(max(self.chances[place], least), 1.0 - 1e-6)
        row: NDArray[np.float32] = np.full(VOCAB, np.log((1.0 - chance) / (VOCAB - 1)), np.float32)
        row[(self.token(position) + (not self.right[place])) % VOCAB] = np.log(chance)
        if self.seconds:
            own = (self.token(position) + 2 * (not second)) % VOCAB
            row[own] = np.log(chance) - np.log(later)
        return row


class Draft:
    """A draft model that replays a record."""

    branches = False  # as a bundle that was exported without

    def __init__(self, record: Record) -> None:
        self.record = record
        self.length = 0
        self.bytes = 0
        self._depths: list[int] = []  # behind its tokens, of a block that branches

    def forward(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Feed ids; the last one's logits (V,)."""
        self.length += len(ids)
        return self.record.drafted(self.length)

    def rollback(self, length: int) -> None:
        """Cut the cache back."""
        self.length = length
        self._depths.clear()

    def branch(self, ids: Sequence[int], parents: Sequence[int]) -> NDArray[np.float32]:
        """Feed ids behind what they follow; the logits (n, V) of each.

        Behind a wrong token a row is that of its position, too, as in a chain: see above.
        """
        for parent in parents:
            self._depths.append(1 + (0 if parent == ROOT else self._depths[parent]))
        fresh = self._depths[len(self._depths) - len(ids) :]
        return np.stack([self.record.drafted(self.length + depth) for depth in fresh])

    def keep(self, chain: Sequence[int], rest: Sequence[int]) -> None:
        """See ``DraftModel``."""
        self.length += len(chain)
        self._depths = [self._depths[at] - len(chain) for at in rest]


class _Slot:
    """A cache: ids of a chain, and of a block behind it."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.block = Block()
        self.in_flight = False
        self.bytes = 0

    @property
    def length(self) -> int:
        return len(self.ids) + len(self.block)

    def ancestors(self, parents: Sequence[int]) -> list[int] | None:
        """See ``Slot``."""
        return self.block.ancestors(parents)

    def keep(self, path: Sequence[int]) -> None:
        """See ``Slot``."""
        self.ids += self.block.path(path)
        self.block.clear()

    def bytes_for(self, length: int, *, spare: bool = False) -> int:
        """Bytes for so many tokens: see ``Slot``."""
        return 0

    def reserve(self, length: int, *, spare: bool = True) -> None:
        """Room for so many tokens: there always is."""

    def rollback(self, length: int) -> None:
        self.keep(range(max(0, length - len(self.ids))))
        del self.ids[length:]

    def drop(self) -> None:
        self.block.clear()
        self.ids.clear()

    close = drop

    def take_commands(self) -> Sequence[Command]:
        """None: what is to be done is done at once."""
        return ()


class Target(Serial):
    """A target that replays records, by the first tokens of their prompts."""

    branches = True

    def __init__(self, records: Sequence[Record]) -> None:
        self.name, self.dtype, self.tokenizer_hash = "record", "float32", HASH
        self.vocab_size, self.context, self.facts = VOCAB, CONTEXT, Facts()
        self._records: Mapping[int, Record] = {record.number: record for record in records}
        self._rows = SURE * torch.eye(VOCAB)
        self.rows = 0  # that were asked for
        self.forwards = 0

    def open(self) -> Any:
        """A new, empty slot."""
        return _Slot()

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        """Feed many slots at once: see ``Engine.forward``."""
        tokens: list[int] = []
        self.forwards += 1
        for feed in feeds:
            slot: Any = feed.slot
            positions, chain = feed.positions, len(feed.ids) - len(feed.parents)
            slot.ids += feed.ids[:chain]
            slot.block.extend(feed.ids[chain:], feed.parents)
            self.rows += feed.rows
            record = self._records[slot.ids[0]]
            wanted = positions[len(positions) - feed.rows :]
            tokens += [record.token(position + 1) for position in wanted]
        return self._rows[tokens]
