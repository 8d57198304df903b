"""What a Welcome tells of the target: read wrongly, a device would end its texts wrongly."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GenerationConfig

from bs_runtime.checkpoint.facts import Facts, read_facts
from draftlink.distribution.sampling import Sampling
from draftlink.protocol.validate import MAX_SUPPRESSED


def letters(template: str | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<s>": 7, "</s>": 8}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if template is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 7), ("</s>", 8)]
        )
    return tokenizer


@pytest.mark.parametrize(
    ("template", "bos"),
    [(None, ()), ("<s> $A", (7,)), ("$A </s>", ()), ("<s> <s> $A </s>", (7, 7))],
)
def test_bos_is_what_the_tokenizer_puts_before_a_text(template, bos):
    assert read_facts(GenerationConfig(), letters(template)).bos_ids == bos


@pytest.mark.parametrize(("value", "ids"), [(None, ()), (5, (5,)), ([5, 1], (5, 1))])
def test_eos(value, ids):
    assert read_facts(GenerationConfig(eos_token_id=value), letters()).eos_ids == ids


def test_suppressed_ids_are_no_more_than_a_welcome_carries(caplog):
    config = GenerationConfig(suppress_tokens=list(range(MAX_SUPPRESSED + 3)))
    facts = read_facts(config, letters())
    assert len(facts.suppressed_ids) == MAX_SUPPRESSED
    assert facts.unapplied == (f"suppress_tokens={MAX_SUPPRESSED + 3} entries",)
    assert f"names {MAX_SUPPRESSED + 3} suppressed ids" in caplog.text


@pytest.mark.parametrize(
    ("said", "suggested"),
    [
        ({}, None),  # transformers' defaults are nobody's suggestion
        ({"do_sample": True}, None),
        ({"do_sample": True, "temperature": 0.6, "top_p": 0.9}, Sampling(0.6, top_p=0.9)),
        ({"do_sample": True, "top_k": 20}, Sampling(top_k=20)),
        ({"repetition_penalty": 1.1}, Sampling(0.0, repetition_penalty=1.1)),
        ({"do_sample": True, "temperature": 1e9}, None),  # cannot be used
    ],
)
def test_sampling_is_what_the_files_suggest(said, suggested):
    assert read_facts(GenerationConfig(**said), letters()).sampling == suggested


@pytest.mark.parametrize(
    ("said", "unapplied"),
    [
        # Applied, or of no account for a text.
        ({"suppress_tokens": [5], "max_length": 99, "use_cache": False, "num_beams": 1}, ()),
        ({"renormalize_logits": True, "no_repeat_ngram_size": 0, "presence_penalty": 0.0}, ()),
        ({"num_beams": 4, "no_repeat_ngram_size": 3}, ("num_beams=4", "no_repeat_ngram_size=3")),
        ({"begin_suppress_tokens": [5, 6]}, ("begin_suppress_tokens=2 entries",)),
        ({"forced_bos_token_id": 0}, ("forced_bos_token_id=0",)),
        ({"do_sample": True, "typical_p": 0.9, "min_new_tokens": 5},
         ("min_new_tokens=5", "typical_p=0.9")),
        ({"presence_penalty": 1.5}, ("presence_penalty=1.5",)),
        ({"do_sample": True, "temperature": 1e9, "top_p": 0.9},
         ("temperature=1000000000.0", "top_p=0.9")),
        ({"stop_strings": "\x1b[2J"}, ("stop_strings=\\x1b[2J",)),
    ],
)  # fmt: skip
def test_settings_that_are_not_applied_are_named_in_one_line(said, unapplied, caplog):
    found = read_facts(GenerationConfig(**said), letters())
    assert found.unapplied == unapplied
    lines = [r.getMessage() for r in caplog.records if "is not applied" in r.getMessage()]
    assert len(lines) == bool(unapplied)
    assert all(name in line for line in lines for name in unapplied)


def test_ids_beyond_the_logits_are_left_out():
    facts = Facts((1, 100), (99, 100), (0, 2**40), Sampling(0.5)).within(100)
    assert facts == Facts((1,), (99,), (0,), Sampling(0.5))
