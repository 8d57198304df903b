"""A GGUF file's tokenizer gives the ids of the source's own, or is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import gguf
import pytest
import transformers
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from bs_runtime.checkpoint.errors import CheckpointError
from bs_runtime.checkpoint.gguf_file import open_gguf
from bs_runtime.checkpoint.gguf_tokenizer import read_tokenizer
from draftlink.protocol.tokenizer import TEXTS, tokenizer_hash
from tests.device_runtime.tokenizers_by_kind import BYTES, CORPUS, gpt2, llama3, qwen
from tests.gguf_files import words

if transformers.__version__.startswith("4."):
    from transformers.convert_slow_tokenizer import generate_merges
else:
    from transformers.tokenization_utils_base import generate_merges

MANY = [
    *TEXTS,
    *CORPUS,
    "x  12   3    4",
    "12345 1234567 a1b22c333 ١٢٣ ",
    " " * 31 + "x" + " " * 7 + "\ty",
]


def smollm() -> Tokenizer:
    """SmolLM's tokenizer.json: digits apart, then GPT-2's."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_end|>")],
        show_progress=False,
    )
    made.train_from_iterator([*CORPUS, "a  b   c    d"], trainer)
    return made


def begun(tokenizer: Tokenizer, token: str) -> Tokenizer:
    """With a BOS before every text, as Llama's and Gemma's files have it."""
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{token} $A",
        pair=f"{token} $A {token} $B:1",
        special_tokens=[(token, tokenizer.token_to_id(token))],
    )
    return tokenizer


def llama_3() -> Tokenizer:
    """Whole words are looked up first: one that no merges make tells it apart."""
    trained = llama3()
    size = trained.get_vocab_size()
    vocab = trained.get_vocab(with_added_tokens=False) | {"ĠDächern": size, "12": size + 1}
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    made.pre_tokenizer, made.decoder = trained.pre_tokenizer, trained.decoder
    made.add_special_tokens(["<|begin_of_text|>", "<|eot_id|>"])
    return begun(made, "<|begin_of_text|>")


def scored(prefix: bool) -> tuple[Tokenizer, dict[str, float]]:
    """SentencePiece's BPE, converted by transformers: Llama's with a prefix, Gemma's without."""
    letters = sorted({c for text in CORPUS for c in text if ord(c) < 0x500} - {" "})
    learned = ["▁t", "he", "▁the", "in", "▁s", "▁sk", "sky", "▁sky", "bo", "at", "boat", "▁boat",
               "12", "34", "▁a", "th", "hat", "that", "ey", "▁they", "re", "here"]  # fmt: skip
    special = ["<unk>", "<s>", "</s>", "<start_of_turn>"]
    defined = ["\n\n", "\n\n\n", "<table>", *("▁" * n for n in range(2, 32))] if not prefix else []
    learned += ["k", "y", "▁"]
    pieces = [*special, *defined, *BYTES, *learned, *(c for c in letters if c not in learned)]
    scores = {piece: -float(i) for i, piece in enumerate([*learned, *letters])}
    # What was defined is found before anything is merged: as with the best score of all.
    ranks = {p: 1.0 if p in defined else scores[p] for p in pieces if p in defined or p in scores}
    vocab = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=generate_merges(vocab, ranks),
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    marks = normalizers.Replace(" ", "▁")
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), marks]) if prefix else marks
    made.add_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    made.add_tokens([AddedToken(t, special=False, normalized=False) for t in defined])
    return begun(made, "<s>"), scores


def read(path: Path, write: Callable[[gguf.GGUFWriter], object]) -> Tokenizer:
    writer = gguf.GGUFWriter(path, "llama")
    write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return read_tokenizer(open_gguf(path))


def check(found: Tokenizer, source: Tokenizer) -> None:
    around = [f"a {t.content} b{t.content}c" for t in source.get_added_tokens_decoder().values()]
    for text in [*MANY, *around]:
        for flag in (False, True):
            ids = found.encode(text, add_special_tokens=flag).ids
            assert ids == source.encode(text, add_special_tokens=flag).ids, text


BYTE_LEVEL = {
    "gpt-2": (gpt2, {}),
    "smollm": (smollm, {}),
    "llama-bpe": (llama_3, {"bos": "<|begin_of_text|>"}),
    "qwen2": (qwen, {}),
}


@pytest.mark.parametrize("pre", BYTE_LEVEL)
def test_ids_of_byte_level_tokenizers(pre, tmp_path):
    make, special = BYTE_LEVEL[pre]
    source = make()
    ids = {name: source.token_to_id(token) for name, token in special.items()}
    found = read(tmp_path / "x.gguf", lambda w: words(w, source, "gpt2", pre, **ids))
    check(found, source)
    assert tokenizer_hash(found) == tokenizer_hash(source)
    for text in MANY:
        assert found.decode(found.encode(text).ids) == source.decode(source.encode(text).ids)


@pytest.mark.parametrize(("pre", "wrong"), [("smollm", "gpt-2"), ("llama-bpe", "qwen2")])
def test_another_way_of_cutting_gives_other_ids(pre, wrong, tmp_path):
    """The control: the texts tell the ways apart, so that a reader's wrong one would be seen."""
    make, special = BYTE_LEVEL[pre]
    source = make()
    ids = {name: source.token_to_id(token) for name, token in special.items()}
    found = read(tmp_path / "x.gguf", lambda w: words(w, source, "gpt2", wrong, **ids))
    with pytest.raises(AssertionError):
        check(found, source)


@pytest.mark.parametrize("prefix", [True, False], ids=["llama", "gemma"])
def test_ids_of_sentencepiece(prefix, tmp_path):
    source, scores = scored(prefix)

    def write(writer: gguf.GGUFWriter) -> None:
        words(writer, source, "llama", "default", scores, unknown=0, bos=1, eos=2)
        writer.add_add_space_prefix(prefix)

    found = read(tmp_path / "x.gguf", write)
    check(found, source)
    assert tokenizer_hash(found) == tokenizer_hash(source)


def test_rows_that_only_fill_the_embedding_are_no_tokens(tmp_path):
    source = qwen()
    source.add_tokens(["<one>"])

    def write(writer: gguf.GGUFWriter) -> None:
        words(writer, source, "gpt2", "qwen2")
        tokens = [t for t, _ in sorted(source.get_vocab().items(), key=lambda pair: pair[1])]
        fill = [f"[PAD{len(tokens) + i}]" for i in range(5)]
        writer.kv_data[0]["tokenizer.ggml.tokens"].value = tokens + fill
        writer.kv_data[0]["tokenizer.ggml.token_type"].value += [gguf.TokenType.UNUSED] * 5

    found = read(tmp_path / "x.gguf", write)
    assert found.get_vocab_size() == source.get_vocab_size()
    check(found, source)


def refused(path: Path, **changes: object) -> str:
    """Of a file of GPT-2's kind with other values under some keys; None leaves the key out."""

    def write(writer: gguf.GGUFWriter) -> None:
        words(writer, gpt2(), "gpt2", "gpt-2")
        for key, value in changes.items():
            name, data = f"tokenizer.ggml.{key}", writer.kv_data[0]
            if value is None:
                del data[name]
            elif name in data:
                data[name].value = value
            elif isinstance(value, bool):
                writer.add_bool(name, value)
            else:
                writer.add_uint32(name, value)

    with pytest.raises(CheckpointError) as caught:
        read(path, write)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_what_is_not_known_is_refused_by_its_name(tmp_path):
    path = tmp_path / "x.gguf"
    assert "tokenizer.ggml.pre tekken) is not known; known are gpt-2" in refused(path, pre="tekken")
    assert "does not say how texts are cut" in refused(path, pre="default")
    assert "does not say how texts are cut" in refused(path, pre=None)
    assert "of kind rwkv; gpt2 and llama are read" in refused(path, model="rwkv")
    assert "no tokenizer.ggml.scores" in refused(path, model="llama")
    assert "does not say what its tokens are for" in refused(path, token_type=None)
    assert "it has 0 tokens" in refused(path, tokens=None)
    assert "merges are not pairs" in refused(path, merges=["a b c"])
    assert "its tokenizer cannot be" in refused(path, merges=["nowhere tobefound"])
    assert "add_bos_token" not in refused(path, bos_token_id=1 << 30, add_bos_token=True)
    size = gpt2().get_vocab_size()
    assert "the token 'x' twice" in refused(path, tokens=["x"] * size)
    assert f"token_type has {1} numbers, where {size} are needed" in refused(path, token_type=[1])
