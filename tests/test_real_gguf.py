"""The two pretrained GGUF files: their ids, and what else of them comes along."""

from __future__ import annotations

import random
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import regex
from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bench.real import fetch, texts
from bs_runtime.checkpoint.gguf_config import read_gguf_config
from bs_runtime.checkpoint.gguf_file import GgufFile, open_gguf
from bs_runtime.checkpoint.gguf_tokenizer import Use
from bs_runtime.checkpoint.stops import turn_end
from bs_runtime.checkpoint.words import Words, read_gguf_words, read_words
from draftlink.protocol.tokenizer import TEXTS, tokenizer_hash
from tests.device_runtime.tokenizers_by_kind import CORPUS

pytestmark = pytest.mark.real

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


@cache
def read(name: str) -> Words:
    return read_gguf_words(opened(name))


def test_ids_of_smollm2_are_those_of_its_own_merges():
    file, words = opened("smollm2"), read("smollm2")
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
    config, words = read_gguf_config(opened("gemma3")), read("gemma3")
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


class Pieces:
    """SentencePiece's BPE, as its paper and its encoder have it, and nothing else.

    What was defined is found first, the longest that fits; what is between is merged, the pair
    whose piece has the best score first, and of equals the one on the left.
    """

    def __init__(self, file: GgufFile) -> None:
        tokens = [t.replace(" ", "▁") for t in file.texts("tokenizer.ggml.tokens")]
        uses = file.numbers("tokenizer.ggml.token_type", len(tokens))
        scores = file.numbers("tokenizer.ggml.scores", len(tokens))
        self.ids = {token: i for i, token in enumerate(tokens)}
        both = list(zip(tokens, uses, scores, strict=True))
        self.scores = {token: score for token, use, score in both if use == Use.NORMAL}
        defined = sorted((t for t, use, _ in both if use == Use.DEFINED), key=len, reverse=True)
        self.defined = regex.compile("|".join(map(regex.escape, defined)))

    def encode(self, text: str) -> list[int]:
        text, at, found = text.replace(" ", "▁"), 0, []
        for match in self.defined.finditer(text):
            found += [*self.merged(text[at : match.start()]), self.ids[match[0]]]
            at = match.end()
        return found + self.merged(text[at:])

    def merged(self, text: str) -> list[int]:
        symbols = list(text)
        while True:
            joined = [left + right for left, right in pairwise(symbols)]
            known = [(-self.scores[j], at) for at, j in enumerate(joined) if j in self.scores]
            if not known:
                break
            at = min(known)[1]
            symbols[at : at + 2] = [joined[at]]
        return [i for symbol in symbols for i in self.by_bytes(symbol)]

    def by_bytes(self, symbol: str) -> list[int]:
        if symbol in self.ids:
            return [self.ids[symbol]]
        return [self.ids[f"<0x{byte:02X}>"] for byte in symbol.encode()]


def strange(count: int) -> list[str]:
    """Runs of characters of many scripts, of spaces and of lines."""
    rng = random.Random(0)
    ranges = ((0x20, 0x7E), (0xA0, 0x52F), (0x590, 0x6FF), (0x900, 0xDFF), (0x3040, 0x9FFF),
              (0xAC00, 0xD7A3), (0x1F300, 0x1F9FF), (0x2000, 0x2BFF), (0x10000, 0x1FFFF),
              (0x09, 0x0D), (0x20, 0x20))  # fmt: skip
    return [
        "".join(
            chr(rng.randint(*rng.choice(ranges))) * rng.choice((1, 1, 1, 1, 2, 5))
            for _ in range(rng.randint(1, 40))
        )
        for _ in range(count)
    ]


def test_ids_of_gemma_3_are_those_of_its_own_pieces():
    pieces, words = Pieces(opened("gemma3")), read("gemma3")
    prompts = [prompt for kind in texts.KINDS for prompt in texts.PROMPTS[kind]]
    spaces = [" " * n + "x" + "\n" * n + "\t" * n for n in range(40)]
    many = [*TEXTS, *CORPUS, *prompts, *spaces, *strange(300)]
    compared = [text for text in many if not regex.search(r"<\w+>", text)]  # found before
    assert len(compared) > len(many) - 10
    for text in compared:
        assert words.tokenizer.encode(text, add_special_tokens=False).ids == pieces.encode(text)


@pytest.mark.parametrize("name", sorted(fetch.SOURCES))
def test_a_file_and_a_folder_that_was_made_of_it_have_one_hash(name, tmp_path):
    """So that a device's bundle of the one drafts for the other."""
    words = read(name)
    made = PreTrainedTokenizerFast(tokenizer_object=words.tokenizer, **words.tokens)
    made.save_pretrained(tmp_path)
    again = read_words(str(tmp_path)).tokenizer
    assert tokenizer_hash(again) == tokenizer_hash(words.tokenizer)
