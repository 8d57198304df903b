"""The two pretrained GGUF files: their ids, and what else of them comes along."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from tokenizers import pre_tokenizers

from bs_runtime.checkpoint.gguf_config import read_gguf_config
from bs_runtime.checkpoint.gguf_file import GgufFile, open_gguf
from bs_runtime.checkpoint.stops import turn_end
from bs_runtime.checkpoint.words import read_gguf_words
from draftlink.protocol.tokenizer import TEXTS
from tests.device_runtime.tokenizers_by_kind import CORPUS

pytestmark = pytest.mark.real
fetch = pytest.importorskip("bench.real.fetch")

# The two steps of SmolLM's own: each digit by itself, and GPT-2's pattern on what is between.
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def opened(name: str) -> GgufFile:
    try:
        return open_gguf(Path(fetch.gguf(name)))
    except fetch.OutOfReach as error:
        pytest.skip(str(error))


@cache
def letters() -> dict[int, str]:
    """GPT-2's characters for bytes."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    printed = [b for b in range(256) if chr(b).isprintable() and b != 32 and b != 173]
    found, spare = {b: chr(b) for b in printed}, iter(range(256, 512))
    found |= {b: chr(next(spare)) for b in range(256) if b not in found}
    assert set(found.values()) == set(level.alphabet())
    return found


def plain(text: str, ids: dict[str, int], ranks: dict[tuple[str, str], int]) -> list[int]:
    """Byte-level BPE as its paper has it, and nothing else."""
    found = []
    pieces = [p for part in regex.split(r"(\p{N})", text) for p in regex.findall(PATTERN, part)]
    for piece in pieces:
        word = [letters()[byte] for byte in piece.encode()]
        while len(word) > 1:
            pairs = list(pairwise(word))
            best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            at = pairs.index(best)
            word[at : at + 2] = ["".join(best)]
        found += [ids[token] for token in word]
    return found


def test_ids_of_smollm2_are_those_of_its_own_merges():
    file = opened("smollm2")
    words = read_gguf_words(file)
    ids = {token: i for i, token in enumerate(file.texts("tokenizer.ggml.tokens"))}
    merges = file.texts("tokenizer.ggml.merges")
    ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(merges)}
    for text in [*TEXTS, *CORPUS, "x  12   345 a1b22", " " * 40 + "x\n\n\n  y"]:
        if "<|" not in text:  # special tokens are found before
            assert words.tokenizer.encode(text).ids == plain(text, ids, ranks), text
    chat = "<|im_start|>user\nhi 12<|im_end|>\n"
    assert words.tokenizer.encode(chat).ids == [1, *plain("user\nhi 12", ids, ranks), 2, 198]
    assert turn_end(words.template, words.tokenizer, words.tokens) == 2


def test_gemma_3_is_read_with_its_windows_and_its_runs_of_spaces():
    file = opened("gemma3")
    config, words = read_gguf_config(file), read_gguf_words(file)
    assert words.tokenizer.encode("The capital of France is").ids == [
        2, 818, 5279, 529, 7001, 563,
    ]  # fmt: skip
    for text, ids in {
        " " * 31 + "y": [167, 236762],  # the longest run that has a token
        " " * 33 + "y": [167, 138, 236762],
        "\t\tz\n\n\nq": [255969, 236802, 109, 236809],
        "Hello  world 123": [9259, 138, 12392, 236743, 236770, 236778, 236800],
        "<start_of_turn>user\nhi<end_of_turn>\n": [105, 2364, 107, 2202, 106, 107],
    }.items():
        assert words.tokenizer.encode(text, add_special_tokens=False).ids == ids
    assert (config.query_pre_attn_scalar, config.sliding_window) == (256, 512)
    assert [i for i, kind in enumerate(config.layer_types) if "full" in kind] == [5, 11, 17]
    assert config.tie_word_embeddings and config.vocab_size == 262_144
