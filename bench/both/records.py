"""The records that are played: of the embedded pair's own text, ``coupled`` at temperature 1."""

from __future__ import annotations

from typing import Any

import tinypair
from bench.link import Bench
from bench.virtual.record import FAR, Record
from device_runtime.device import Coupled, Sampling
from device_runtime.drafting.drafter import Drafter
from draftlink.distribution import noise
from draftlink.link.shaping import LinkProfile
from draftlink.protocol import frames

FAST = LinkProfile(1e9, 1e9, 0.0)


def records(count: int, tokens: int) -> list[Record]:
    """So many texts of so many tokens."""
    bench = Bench()
    return [_record(bench, number, prompt, tokens)
            for number, prompt in enumerate(tinypair.prompts(count))]  # fmt: skip


def _record(bench: Bench, number: int, prompt: str, tokens: int) -> Record:
    scheme, params = Coupled(), Sampling(1.0)
    result = bench.write(FAST, 0.001, prompt, tokens, 0, mode="stream", scheme=scheme, seed=number,
                         sampling=params)  # fmt: skip
    ids = bench.tokenizer.encode(prompt).ids
    start = frames.Start(1, 0, ids, params, scheme, "stream", tokens, [], number)
    bench.draft.rollback(0)
    key = noise.key_from_seed(number, "coupled")
    model: Any = bench.draft
    drafter = Drafter(model, start, bench.target.vocab_size, key)
    drafter.beside = 1
    right, chances, seconds = [], [], []
    for place, token in enumerate(result.tokens):
        ((drafted, chance, later),) = drafter.propose([*ids, *result.tokens[:place]], 1, len(ids))
        bench.draft.rollback(len(ids) + place)
        right.append(drafted.token == token)
        chances.append(chance)
        seconds.append((min(later[0], FAR), drafted.beside[0] == token) if later else (FAR, False))
    bench.draft.forget()
    bench.target.forget()
    return Record(number, len(ids), tuple(right), tuple(chances), tuple(seconds))
