"""What a target's own files say of its texts: where they end and begin, and how to sample them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tokenizers import Tokenizer

from draftlink.distribution.sampling import Sampling
from draftlink.host.plain import printable
from draftlink.protocol.validate import MAX_BOS, MAX_EOS, MAX_SUPPRESSED

log = logging.getLogger("draftlink.bs")

# What shapes a text in transformers or elsewhere, and has no counterpart here. Their neutral values
# are transformers' defaults, or false.
FOREIGN = (
    "min_length",
    "min_new_tokens",
    "num_beams",
    "num_beam_groups",
    "penalty_alpha",
    "dola_layers",
    "typical_p",
    "top_h",
    "epsilon_cutoff",
    "eta_cutoff",
    "diversity_penalty",
    "encoder_repetition_penalty",
    "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size",
    "bad_words_ids",
    "force_words_ids",
    "constraints",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "forced_decoder_ids",
    "exponential_decay_length_penalty",
    "begin_suppress_tokens",
    "sequence_bias",
    "guidance_scale",
    "watermarking_config",
    "stop_strings",
    "frequency_penalty",
    "presence_penalty",
)
SHOWN = 80  # characters of a setting that are told


@dataclass(frozen=True)
class Facts:
    """A Welcome tells these to devices; ``sampling`` is None where the files suggest nothing."""

    eos_ids: tuple[int, ...] = ()
    bos_ids: tuple[int, ...] = ()  # that the tokenizer puts before a text
    suppressed_ids: tuple[int, ...] = ()  # that are never written
    sampling: Sampling | None = None
    unapplied: tuple[str, ...] = ()  # settings that are not applied, whoever asks

    def within(self, vocab_size: int) -> Facts:
        """These facts without ids that no row of logits has; a config may name such."""

        def known(ids: tuple[int, ...]) -> tuple[int, ...]:
            return tuple(i for i in ids if 0 <= i < vocab_size)

        return replace(
            self,
            eos_ids=known(self.eos_ids),
            bos_ids=known(self.bos_ids),
            suppressed_ids=known(self.suppressed_ids),
        )


def read_facts(generation: Any, tokenizer: Tokenizer) -> Facts:
    """The facts in a transformers GenerationConfig, and in the tokenizer.

    One line in the log says which settings of the config are not applied; so does one where there
    are more ids than a Welcome may carry.
    """
    # What the files themselves say: transformers' own defaults are nobody's suggestion.
    said: dict[str, Any] = generation.to_diff_dict()
    unapplied = [name for name in FOREIGN if _matters(name, said.get(name))]
    suppressed = _ids(generation.suppress_tokens)
    if len(suppressed) > MAX_SUPPRESSED:
        unapplied.append("suppress_tokens")
    sampling = _sampling(said, generation.do_sample, unapplied)
    told = tuple(_setting(name, said[name]) for name in unapplied)
    if told:
        log.warning("the target's generation config has what is not applied: %s", ", ".join(told))
    return Facts(
        _few("EOS", _ids(generation.eos_token_id), MAX_EOS),
        _few("BOS", _bos(tokenizer), MAX_BOS),
        _few("suppressed", suppressed, MAX_SUPPRESSED),
        sampling,
        told,
    )


def _matters(name: str, value: Any) -> bool:
    """Whether a setting of that value changes a text; 0 may be an id."""
    return value is not None if name.endswith("_token_id") else bool(value)


def _setting(name: str, value: Any) -> str:
    shown = f"{len(value)} entries" if isinstance(value, list | dict) else str(value)
    return printable(f"{name}={shown}", SHOWN)


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


def _sampling(said: dict[str, Any], draws: bool, unapplied: list[str]) -> Sampling | None:
    """What the files suggest; where that cannot be, none, and its parts are ``unapplied``."""
    names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")
    values = {name: said[name] for name in names if said.get(name) is not None}
    if not draws:  # transformers writes the likeliest token then
        values["temperature"] = 0.0
    if not values or (values == {"temperature": 0.0} and "do_sample" not in said):
        return None
    try:
        suggested = Sampling(**values)
        suggested.check()
    except (TypeError, ValueError) as error:
        log.warning("the target suggests a sampling that cannot be used (%s)", error)
        unapplied += [name for name in names if name in said]
        return None
    return suggested
