"""What a target's own files say of its texts: where they end and begin, and how to sample them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from draftlink.faults import MAX_BOS, MAX_EOS, MAX_SUPPRESSED
from draftlink.sampling import Sampling

log = logging.getLogger("draftlink.bs")


@dataclass(frozen=True)
class Facts:
    """A Welcome tells these to devices; ``sampling`` is None where the files suggest nothing."""

    eos_ids: tuple[int, ...] = ()
    bos_ids: tuple[int, ...] = ()  # that the tokenizer puts before a text
    suppressed_ids: tuple[int, ...] = ()  # that are never written
    sampling: Sampling | None = None

    def within(self, vocab_size: int) -> Facts:
        """These facts without ids that no row of logits has; a config may name such."""

        def known(ids: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(i for i in ids if 0 <= i < vocab_size)

        return Facts(
            known(self.eos_ids), known(self.bos_ids), known(self.suppressed_ids), self.sampling
        )


def read_facts(generation: Any, tokenizer: Tokenizer) -> Facts:
    """The facts in a transformers GenerationConfig, and in the tokenizer.

    More ids than a Welcome may carry are left out, with a line in the log.
    """
    return Facts(
        _few("EOS", _ids(generation.eos_token_id), MAX_EOS),
        _few("BOS", _bos(tokenizer), MAX_BOS),
        _few("suppressed", _ids(generation.suppress_tokens), MAX_SUPPRESSED),
        _sampling(generation),
    )


def _ids(value: int | Sequence[int] | None) -> tuple[int, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, int) else tuple(map(int, value))


def _few(name: str, ids: tuple[int, ...], most: int) -> tuple[int, ...]:
    if len(ids) > most:
        log.warning(
            "the target names %d %s ids; devices are told the first %d", len(ids), name, most
        )
    return ids[:most]


def _bos(tokenizer: Tokenizer) -> tuple[int, ...]:
    """What a text gets in front of it, whatever it is."""
    plain = tokenizer.encode("a", add_special_tokens=False).ids
    whole = tokenizer.encode("a", add_special_tokens=True).ids
    for begin in range(len(whole) - len(plain) + 1):
        if whole[begin : begin + len(plain)] == plain:
            return tuple(whole[:begin])
    return ()


def _sampling(generation: Any) -> Sampling | None:
    """What the files themselves suggest; transformers' own defaults are nobody's suggestion."""
    said = generation.to_diff_dict()
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    values = {name: said[name] for name in names if said.get(name) is not None}
    if not generation.do_sample:  # transformers writes the likeliest token then
        values["temperature"] = 0.0
    if not values or (values == {"temperature": 0.0} and "do_sample" not in said):
        return None
    try:
        suggested = Sampling(**values)
        suggested.check()
    except (TypeError, ValueError) as error:
        log.warning("the target suggests a sampling that cannot be used (%s)", error)
        return None
    return suggested
