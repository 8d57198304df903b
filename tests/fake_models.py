"""Models without weights and with a known distribution; what a device needs of them, no PyTorch.

The next token depends on the last one only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from device_runtime.device import Device

HASH = "fake"
DRAFT_CONTEXT = 2048  # a small draft model's


class FakeModel:
    """A bigram table of logits (V, V), with the cache discipline of a real model.

    It is a draft (``forward`` gives the last row) or a slot (all rows), and it refuses to read
    entries that were rolled back: its cache is the only place that it looks at. Nor does it take
    more than its context, by default a small draft's or a large target's.
    """

    def __init__(self, table: np.ndarray, rows: bool, context: int | None = None) -> None:
        self.table = table
        self.cache: list[int] = []
        self.rows = rows
        self.context = (1 << 20 if rows else DRAFT_CONTEXT) if context is None else context
        self.forwards = 0
        self.in_flight = False

    @property
    def length(self) -> int:
        return len(self.cache)

    @property
    def bytes(self) -> int:
        return 8 * len(self.cache)

    def bytes_for(self, length: int, *, spare: bool = False) -> int:
        return 8 * max(length, len(self.cache))

    def reserve(self, length: int, *, spare: bool = True) -> None:
        pass

    @property
    def ids(self) -> list[int]:
        return self.cache

    def adopt(self, source: FakeModel, ids: Sequence[int]) -> None:
        end = min(source.length, len(ids))
        if source.cache[:end] == ids[:end] and self.cache == ids[: self.length]:
            self.cache += ids[self.length : end]

    def forward(self, ids: Sequence[int], *, last: bool = False) -> np.ndarray:
        assert len(ids) > 0
        if len(self.cache) + len(ids) > self.context:
            raise ValueError(f"{len(ids)} tokens after {len(self.cache)}, of {self.context}")
        self.forwards += 1
        self.cache += ids
        if not self.rows:
            return self.table[ids[-1]]
        return self.table[list(ids[-1:] if last else ids)]

    def rollback(self, length: int) -> None:
        assert 0 <= length <= len(self.cache)
        del self.cache[length:]

    def drop(self) -> None:
        self.cache.clear()

    def close(self) -> None:
        self.drop()

    def take_commands(self) -> Sequence[object]:
        return ()  # what is to be done is done at once


def random_logits(seed: int, size: int, spread: float = 2.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, spread, (size, size))


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def letters(size: int) -> Tokenizer:
    """A tokenizer whose token i is the letter chr(97 + i)."""
    tokenizer = Tokenizer(models.BPE({chr(97 + i): i for i in range(size)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def fake_device(url: str, table: np.ndarray, eos_ids: tuple[int, ...] = (), **kw: int) -> Device:
    model = FakeModel(table, rows=False, context=kw.get("context"))
    return Device.from_parts(
        model,
        letters(len(table)),
        url,
        tokenizer_hash=HASH,
        vocab_size=len(table),
        context=model.context,
        eos_ids=eos_ids,
    )
