"""What a Welcome tells of the target: read wrongly, a device would end its texts wrongly."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import GenerationConfig

from bs_runtime.facts import Facts, read_facts
from draftlink.faults import MAX_SUPPRESSED
from draftlink.sampling import Sampling


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
    assert len(read_facts(config, letters()).suppressed_ids) == MAX_SUPPRESSED
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


def test_ids_beyond_the_logits_are_left_out():
    facts = Facts((1, 100), (99, 100), (0, 2**40), Sampling(0.5)).within(100)
    assert facts == Facts((1,), (99,), (0,), Sampling(0.5))
