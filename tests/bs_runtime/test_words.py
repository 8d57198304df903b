"""A folder's tokenizer is what its files say, whichever transformers is installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import GenerationConfig, GPT2Config

from bs_runtime.checkpoint.errors import CheckpointError
from bs_runtime.checkpoint.stops import turn_end
from bs_runtime.checkpoint.words import Words, read_words
from draftlink.protocol.tokenizer import TEXTS, differences, tokenizer_hash
from tests.device_runtime.tokenizers_by_kind import BYTES, QWEN

MERGES = ["Ġ t", "h e", "Ġt he", "i n", "o n", "Ġ s", "q u", "Ġ Ġ", "1 2", "12 3", "ĠĠ ĠĠ"]


def byte_level(*special: str) -> Tokenizer:
    """Made by hand, so that it is the same in every version of the library."""
    pairs = [tuple(merge.split(" ")) for merge in MERGES]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*special, *alphabet, *("".join(pair) for pair in pairs)]
    made = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=pairs))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    return made


def begun(made: Tokenizer, single: str) -> Tokenizer:
    names = [piece for piece in single.split() if piece != "$A"]
    made.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(name, made.token_to_id(name)) for name in names]
    )
    return made


def qwen() -> Tokenizer:
    made = byte_level("<|endoftext|>", "<|im_end|>")
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return made


def cohere() -> Tokenizer:
    made = byte_level("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>")
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return begun(made, "<BOS_TOKEN> $A")


def llama() -> Tokenizer:
    learned = ["▁t", "he", "▁the", "in", "▁"]
    letters = [chr(c) for c in range(33, 127)]
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *learned, *letters]
    pairs = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("i", "n")]
    made = Tokenizer(
        models.BPE(
            vocab={t: i for i, t in enumerate(tokens)},
            merges=pairs,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    return begun(made, "<s> $A")


# By the class that the settings name: the tokenizer, the settings, and the hash on any version.
KINDS: dict[str, tuple[Callable[[], Tokenizer], dict[str, Any], str]] = {
    "LlamaTokenizer": (
        llama,
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        "5672ab1f708415ed67cad7df71b4d68c9b804d7bf754d711885eea1dff3c1ec8",
    ),
    "GPT2Tokenizer": (
        lambda: byte_level("<|endoftext|>"),
        dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>"),
        "45ca75a32588ceff8202296b3aeb3100da76bd4a1a5e97e8459322d7cd7c635e",
    ),
    "Qwen2Tokenizer": (
        qwen,
        {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": None},
        "45332cf02d0e72cd923ecce72660684297c6864bb515bc47a896ddd31c347dfb",
    ),
    "GPTNeoXTokenizer": (
        lambda: byte_level("<|endoftext|>", "<|padding|>"),
        {"eos_token": "<|endoftext|>"},
        "d3af397bd86573698aa4476ee6ff1f27de20e3f8cd6f5edb30a7ff409ef76210",
    ),
    "CohereTokenizer": (
        cohere,
        {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>"},
        "7beab44f1d4d3809458155c9cb6afc881476764ec67a761c98fdb907fbc73562",
    ),
}


def saved(folder: Path, tokenizer: Tokenizer, **settings: Any) -> str:
    folder.mkdir()
    GPT2Config().save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_the_hash_is_the_same_on_every_transformers(kind, tmp_path):
    """The hashes here were made on 4.57.6 and on 5.24.0: CI runs both."""
    make, settings, expected = KINDS[kind]
    source = make()
    words = read_words(saved(tmp_path / "x", source, tokenizer_class=kind, **settings))
    assert differences(words.tokenizer, source) == []
    assert tokenizer_hash(words.tokenizer) == tokenizer_hash(source) == expected
    for text in TEXTS:
        assert words.tokenizer.encode(text).ids == source.encode(text).ids


def test_what_cuts_and_fills_texts_is_left_out(tmp_path):
    """A ``tokenizer.json`` may have them; a device would cut its prompts, without an error."""
    source = byte_level("<|endoftext|>")
    plain = tokenizer_hash(source)
    source.enable_truncation(4)
    source.enable_padding(length=64)
    words = read_words(saved(tmp_path / "x", source, tokenizer_class="GPT2Tokenizer"))
    assert len(words.tokenizer.encode("one two three four").ids) == 15
    assert tokenizer_hash(words.tokenizer) == plain


def test_the_settings_add_to_the_file(tmp_path):
    """Tokens of their own, a name for one of the vocabulary, and whether a BOS comes first."""
    source = byte_level("<|endoftext|>")
    size = source.get_vocab_size()
    entry = {"content": "<|im_end|>", "special": True, "normalized": False}
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "added_tokens_decoder": {str(size): entry},
        "bos_token": {"content": "the", "special": True},
        "eos_token": "<|im_end|>",
    }
    words = read_words(saved(tmp_path / "x", source, **settings))
    assert words.tokenizer.encode("a<|im_end|>").ids == [source.token_to_id("a"), size]
    assert words.tokens == {"eos_token": "<|im_end|>", "bos_token": "the"}
    assert (words.id_of("eos_token"), words.id_of("bos_token")) == (size, None)
    begins = read_words(
        saved(tmp_path / "y", source, bos_token="<|endoftext|>", add_bos_token=True)
    )
    assert begins.tokenizer.encode("a").ids == [0, source.token_to_id("a")]
    ends = read_words(
        saved(
            tmp_path / "z", begun(byte_level("<|endoftext|>", "</s>"), "<|endoftext|> $A"),
            bos_token="<|endoftext|>", eos_token="</s>", add_bos_token=False, add_eos_token=True,
        )
    )  # fmt: skip
    assert ends.tokenizer.encode("a").ids[1:] == [1]
    broken = settings | {"added_tokens_decoder": {str(size + 7): entry}}
    with pytest.raises(CheckpointError, match="save both again"):
        read_words(saved(tmp_path / "w", source, **broken))


def test_others_before_a_text_stay(tmp_path):
    """What a family puts there beside a BOS is not for two flags to take away."""
    source = begun(byte_level("[gMASK]", "<sop>"), "[gMASK] <sop> $A")
    words = read_words(saved(tmp_path / "x", source, bos_token="<sop>", add_bos_token=False))
    assert words.tokenizer.encode("a").ids[:2] == [0, 1]


CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
)


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (CHAT, "<|im_end|>"),
        (CHAT.replace("<|im_end|>", "{{ eos_token }}"), "<|endoftext|>"),
        (CHAT.replace("<|im_end|>", ""), "<|im_start|>"),  # the next turn's begin ends this one
        ("{% for m in messages %}{{ m['content'] }}\n\nUser: {% endfor %}", None),
        ("{{ raise_exception('no such turns') }}", None),
        ("{% for", None),
        ("{{ messages.__class__.__mro__ }}", None),
    ],
)
def test_what_a_template_ends_a_turn_with_ends_a_text(template, end):
    tokenizer = byte_level("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    found = turn_end(template, tokenizer, {"eos_token": "<|endoftext|>"})
    assert found == (None if end is None else tokenizer.token_to_id(end))


def test_every_token_that_ends_a_text_is_named_once():
    tokenizer = byte_level("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    words = Words(tokenizer, CHAT, {"eos_token": "<|endoftext|>"})
    for stated, ends in ((7, [7, 0, 2]), ([2, 5], [2, 5, 0]), (None, [0, 2])):
        generation = GenerationConfig(eos_token_id=stated)
        words.end_texts(generation)
        assert generation.eos_token_id == ends
    generation = GenerationConfig()
    Words(tokenizer).end_texts(generation)
    assert generation.eos_token_id is None
