"""Chats as the product and as transformers render them: the same ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from bs_runtime.checkpoint.gguf_file import open_gguf
from bs_runtime.checkpoint.words import read_gguf_words
from device_runtime.templates.template import Template
from tests.chats import GEMMA, TEMPLATES, chat

CHATS = [chat(seed) for seed in range(50)]


def different(source: str, words: PreTrainedTokenizerFast, tokens: dict[str, str], **more) -> int:
    """How many of the chats have ids of their own; both have the same ones for each."""
    template = Template(source, tokens)
    found = set()
    try:
        for turns in CHATS:
            expected = words.apply_chat_template(
                turns, chat_template=source, add_generation_prompt=True, return_dict=False, **more
            )
            text = template.render(turns, more=more)
            assert words.backend_tokenizer.encode(text, add_special_tokens=False).ids == expected
            found.add(tuple(expected))
    finally:
        template.close()
    return len(found)


@pytest.mark.parametrize("family", TEMPLATES)
@pytest.mark.parametrize("more", [{}, {"enable_thinking": False}], ids=["plain", "with a variable"])
def test_of_templates_as_five_families_write_them(family, more, tokenizer):
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, **tokens)
    assert different(TEMPLATES[family], words, tokens, **more) >= 45  # they are different chats


@pytest.mark.real
@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_of_pretrained_models(name):
    fetch = pytest.importorskip("bench.real.fetch")
    try:
        read = read_gguf_words(open_gguf(Path(fetch.gguf(name))))
    except fetch.OutOfReach as error:
        pytest.skip(str(error))
    words = PreTrainedTokenizerFast(tokenizer_object=read.tokenizer, **read.tokens)
    source = read.template or GEMMA  # Gemma's file has none
    assert different(source, words, read.tokens) >= 45
