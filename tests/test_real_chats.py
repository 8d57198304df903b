"""The chat templates of the two pretrained models, by the product and by transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from bs_runtime.checkpoint.gguf_file import open_gguf
from bs_runtime.checkpoint.words import read_gguf_words
from device_runtime.templates.template import Template
from tests.chats import GEMMA, chat

pytestmark = pytest.mark.real
fetch = pytest.importorskip("bench.real.fetch")


@pytest.mark.parametrize("name", ["smollm2", "gemma3"])
def test_ids_of_fifty_chats_are_those_of_transformers(name):
    try:
        read = read_gguf_words(open_gguf(Path(fetch.gguf(name))))
    except fetch.OutOfReach as error:
        pytest.skip(str(error))
    source = read.template or GEMMA  # Gemma's file has none
    words = PreTrainedTokenizerFast(tokenizer_object=read.tokenizer, **read.tokens)
    template = Template(source, read.tokens)
    try:
        for seed in range(50):
            turns = chat(seed)
            expected = words.apply_chat_template(
                turns, chat_template=source, add_generation_prompt=True, return_dict=False
            )
            text = template.render(turns)
            assert read.tokenizer.encode(text, add_special_tokens=False).ids == expected
            assert len(expected) > 5
    finally:
        template.close()
