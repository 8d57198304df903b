"""A draft that wants to write given ids, and the program on it: a child needs no torch for that.

``python -m tests.scripted GIVEN ARGUMENTS...`` runs ``draftlink ARGUMENTS`` with such a device;
``GIVEN`` is JSON: tokenizer, ids, begins, url.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import numpy as np
from tokenizers import Tokenizer

import device_runtime.device
from device_runtime.device import Device
from draftlink import cli

HASH = "fake"  # as that of ``tests.fakes``


def rows(tokenizer: Tokenizer, ids: Sequence[int], begins: int, *, wrong: bool) -> np.ndarray:
    """Logits (positions, V) that are sure of ``ids``; of every third not, where ``wrong``."""
    table = np.full((begins + len(ids) + 100, max(tokenizer.get_vocab().values()) + 1), -30.0)
    for place, token in enumerate(ids):
        table[begins - 1 + place, 0 if wrong and place % 3 == 0 else token] = 30.0
    return table


class Draft:
    """A row depends on the position alone."""

    def __init__(self, table: np.ndarray) -> None:
        self.table = table
        self.length = 0

    def forward(self, ids: Sequence[int]) -> np.ndarray:
        self.length += len(ids)
        return self.table[self.length - 1]

    def rollback(self, length: int) -> None:
        self.length = length


def device(tokenizer: Tokenizer, ids: Sequence[int], begins: int, url: str) -> Device:
    """A device that drafts ``ids`` from position ``begins`` on, wrongly at places."""
    table = rows(tokenizer, ids, begins, wrong=True)
    return Device.from_parts(
        Draft(table),
        tokenizer,
        url,
        tokenizer_hash=HASH,
        vocab_size=table.shape[1],
        context=2048,
        eos_ids=(),
    )


if __name__ == "__main__":
    given = json.loads(sys.argv.pop(1))
    made = device(Tokenizer.from_str(given.pop("tokenizer")), **given)
    device_runtime.device.Device = lambda *_, **__: made  # type: ignore[assignment,misc]
    cli.main()
