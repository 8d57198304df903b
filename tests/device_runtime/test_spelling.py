"""Single tokens as bytes: joined they are the text, whatever each of them is alone."""

from __future__ import annotations

import pytest

from device_runtime.spelling import Spelling
from device_runtime.text import Detokenizer
from tests.device_runtime.tokenizers_by_kind import KINDS

TEXTS = ["a boat, and a table", "é日🙂 x", "two\n\nlines\t. 👨‍👩‍👧"]
BY_BYTE = ["gpt-2", "llama-3", "qwen"]  # any text is in their letters
BY_FALLBACK = ["llama-2", "phi-3", "gemma"]  # or in tokens of a byte each


def made(kind: str):
    tokenizer = KINDS[kind]()
    return tokenizer, Spelling(tokenizer, Detokenizer(tokenizer))


@pytest.mark.parametrize("kind", BY_BYTE)
def test_bytes_joined_are_the_text(kind):
    tokenizer, spelling = made(kind)
    partial = 0
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert b"".join(spelling.octets(token) for token in ids).decode() == text
        partial += sum("\\x" in spelling.text(token) for token in ids)
    assert partial > 3  # tokens that are a part of a character


@pytest.mark.parametrize("kind", BY_FALLBACK)
def test_words_and_single_bytes_joined_are_the_text(kind):
    tokenizer, spelling = made(kind)
    ids = tokenizer.encode("the sky is blue", add_special_tokens=False).ids
    ids += [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in "🙂".encode()]
    joined = b"".join(spelling.octets(token) for token in ids).decode()
    assert joined.lstrip() == tokenizer.decode(ids).lstrip() == "the sky is blue🙂"
    assert spelling.text(ids[-4]) == "\\xf0"


def test_what_is_no_text():
    tokenizer, spelling = made("qwen")
    assert spelling.text(tokenizer.token_to_id("<|im_end|>")) == "<|im_end|>"
    assert spelling.text(tokenizer.token_to_id("<tool_call>")) == "<tool_call>"
    assert spelling.octets(1 << 20) == b"" and spelling.text(1 << 40) == ""
    first = tokenizer.encode("🙂", add_special_tokens=False).ids[0]
    assert spelling.text(first).startswith("\\xf0")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in BY_BYTE + BY_FALLBACK])
def test_every_other_kind_says_something_of_every_word(kind):
    tokenizer, spelling = made(kind)
    for token in tokenizer.encode("the boat", add_special_tokens=False).ids:
        assert spelling.text(token)
