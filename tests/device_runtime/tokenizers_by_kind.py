"""Small tokenizers of each real kind, as their model families build them."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

CORPUS = [
    "I see the sky. The sky is blue, isn't it? I don't know; we'll see.\n\n\tdef f(x):\n",
    "Once upon a time there was a small boat, and it went down the river.",
    "Über den Dächern fliegt ein Vogel; déjà vu, naïve café.",
    "Небо голубое, и птица летит над рекой.",
    "空は青いです。鳥が川の上を飛びます。",
    "smile 😀 flag 🇩🇪 family 👨‍👩‍👧 hand 👍🏽 \ufffd [bold] :smile: C:\\new\r\n",
] * 2

LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN = LLAMA_3.replace(r"\p{N}{1,3}", r"\p{N}")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = {character for text in CORPUS for character in text if ord(character) < 0x500}
ALPHABET = sorted({"▁", *LETTERS} - {" "})


def _special(*words: str) -> list[AddedToken]:
    return [AddedToken(word, special=True, normalized=False) for word in words]


def _byte_level(*words: str, pattern: str | None = None) -> Tokenizer:
    """Bytes as characters: GPT-2's own pattern, or another before."""
    tokenizer = Tokenizer(models.BPE())
    if pattern is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=_special(*words),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def gpt2() -> Tokenizer:
    return _byte_level("<|endoftext|>")


def llama3() -> Tokenizer:
    return _byte_level("<|begin_of_text|>", "<|eot_id|>", pattern=LLAMA_3)


def qwen() -> Tokenizer:
    tokenizer = _byte_level("<|endoftext|>", "<|im_start|>", "<|im_end|>", pattern=QWEN)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_tokens([AddedToken("<tool_call>", special=False, normalized=False)])
    return tokenizer


def _sentencepiece(decoder: decoders.Decoder, *, prepend: bool = True) -> Tokenizer:
    """SentencePiece's BPE with byte fallback, as transformers converts it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    marks = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), marks] if prepend else [marks]
    )
    tokenizer.decoder = decoder
    trainer = trainers.BpeTrainer(
        vocab_size=520,
        special_tokens=[*_special("<unk>", "<s>", "</s>")],
        initial_alphabet=ALPHABET,
        limit_alphabet=len(ALPHABET),
        show_progress=False,
    )
    words = [word for text in CORPUS for word in text.split()]
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.add_tokens(BYTES)
    return tokenizer


def llama2() -> Tokenizer:
    return _sentencepiece(
        decoders.Sequence(
            [
                decoders.Replace("▁", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
    )


def phi3() -> Tokenizer:
    tokenizer = llama2()
    tokenizer.add_special_tokens(
        [AddedToken(word, rstrip=True, special=True) for word in ("<|user|>", "<|end|>")]
    )
    return tokenizer


def gemma() -> Tokenizer:
    chain = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return _sentencepiece(decoders.Sequence(chain), prepend=False)


def _unigram(decoder: decoders.Decoder) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoder
    trainer = trainers.UnigramTrainer(
        vocab_size=200,
        special_tokens=_special("<unk>", "</s>"),
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def t5() -> Tokenizer:
    return _unigram(decoders.Metaspace())


def unigram_with_bytes() -> Tokenizer:
    tokenizer = _unigram(decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]))
    tokenizer.add_tokens(BYTES)
    return tokenizer


def metaspace_without_prefix() -> Tokenizer:
    return _unigram(decoders.Metaspace(prepend_scheme="never"))


def _wordpiece(cleanup: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=cleanup)
    trainer = trainers.WordPieceTrainer(
        vocab_size=350, special_tokens=_special("[UNK]", "[CLS]", "[SEP]"), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def bert() -> Tokenizer:
    return _wordpiece(cleanup=True)


def bert_as_it_is() -> Tokenizer:
    return _wordpiece(cleanup=False)


def word_ends() -> Tokenizer:
    """The first BPE: a word's last token says so."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=_special("<unk>"),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def words() -> Tokenizer:
    """No decoder: a space between any two."""
    tokenizer = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=_special("[UNK]"), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt-2": gpt2,
    "llama-3": llama3,
    "qwen": qwen,
    "llama-2": llama2,
    "phi-3": phi3,
    "gemma": gemma,
    "t5": t5,
    "unigram with bytes": unigram_with_bytes,
    "metaspace without prefix": metaspace_without_prefix,
    "bert": bert,
    "bert as it is": bert_as_it_is,
    "word ends": word_ends,
    "words": words,
}
