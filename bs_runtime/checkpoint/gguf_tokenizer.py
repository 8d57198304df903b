"""The tokenizer that a GGUF file describes, so that a text gets the ids of the source's own.

A file has a vocabulary, what each entry is for, merges or scores, and the name of the way in which
texts are cut before (``tokenizer.ggml.pre``); the patterns themselves are known to who reads it.
They are here for those that were compared with the model families' own ``tokenizer.json``; any
other is refused by its name, since a text that is cut elsewhere gets other ids without an error.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

import numpy as np
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

from bs_runtime.checkpoint.errors import CheckpointError
from bs_runtime.checkpoint.gguf_file import GgufFile
from draftlink.protocol.validate import MAX_VOCAB

KEY: Final = "tokenizer.ggml."
MARK: Final = "▁"  # what SentencePiece writes for a space
MAX_PIECE: Final = 512  # characters


class Use(IntEnum):
    """What an entry of the vocabulary is for, as llama.cpp numbers it."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    DEFINED = 4  # by whoever trained it: never cut into pieces
    UNUSED = 5
    BYTE = 6


_WORDS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _bytes(*, pattern: bool = True) -> Any:
    """Bytes as characters; where ``pattern``, cut by GPT-2's own before."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern)


def _cut(numbers: str) -> Any:
    split = pre_tokenizers.Split(Regex(f"{_WORDS}|{numbers}|{_REST}"), "isolated")
    return pre_tokenizers.Sequence([split, _bytes(pattern=False)])


def _digits_apart() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _bytes()])


LLAMA_3: Final = ("llama-bpe", "llama3", "llama-v3")
WHOLE_WORDS: Final = LLAMA_3  # are looked up before they are merged; and a BOS begins a text
# How texts are cut, by the name of it.
CUTS: Final[dict[str, Callable[[], Any]]] = {
    "gpt-2": _bytes,
    **dict.fromkeys(("smollm", "starcoder", "refact"), _digits_apart),
    **dict.fromkeys(LLAMA_3, lambda: _cut(r"\p{N}{1,3}")),
    "qwen2": lambda: _cut(r"\p{N}"),
}
COMPOSED: Final = ("qwen2",)  # Unicode's NFC before anything else


def read_tokenizer(file: GgufFile) -> Tokenizer:
    """The tokenizer. Raises CheckpointError for one that is not known, or that cannot be."""
    tokens, uses = _vocabulary(file)
    kind = file.text(f"{KEY}model")
    make, begins = {"gpt2": (_byte_level, False), "llama": (_sentencepiece, True)}.get(
        kind or "", (None, False)
    )
    if make is None:
        file.refuse(f"its tokenizer is of kind {kind}; gpt2 and llama are read")
    try:
        made = make(file, tokens, uses)
        made.add_tokens(_added(tokens, uses, kind == "llama"))
        _frame(file, made, tokens, begins or file.text(f"{KEY}pre") in WHOLE_WORDS)
    except CheckpointError:
        raise
    except Exception as error:  # tokenizers has no exceptions of its own
        file.refuse(f"its tokenizer cannot be: {error}")
    return made


def special_id(file: GgufFile, name: str) -> int | None:
    """The id of a name, such as ``bos``, if it has one. Raises CheckpointError for no token's."""
    return file.integer(f"{KEY}{name}_token_id", most=len(file.texts(f"{KEY}tokens") or ()))


def _vocabulary(file: GgufFile) -> tuple[list[str], list[int]]:
    """Tokens by id, and what each is for."""
    tokens = file.texts(f"{KEY}tokens")
    if not tokens or len(tokens) > MAX_VOCAB:
        file.refuse(f"it has {len(tokens or ())} tokens, where 1 to {MAX_VOCAB} can be")
    uses = file.numbers(f"{KEY}token_type", len(tokens))
    if uses is None:
        file.refuse(f"it does not say what its tokens are for ({KEY}token_type)")
    return tokens, [int(use) for use in uses]


def _added(tokens: list[str], uses: list[int], marked: bool) -> list[AddedToken]:
    """What is found in a text before it is cut.

    Runs of spaces that SentencePiece was told to keep are ``marked`` and merged instead, as the
    families' own tokenizers have it.
    """
    return [
        AddedToken(token, special=use != Use.DEFINED, normalized=False)
        for token, use in zip(tokens, uses, strict=True)
        if use in (Use.UNKNOWN, Use.CONTROL, Use.DEFINED) and not (marked and _spaces(token, use))
    ]


def _spaces(token: str, use: int) -> bool:
    return use == Use.DEFINED and not token.strip(" ")


def _by_token(file: GgufFile, tokens: list[str], uses: list[int]) -> dict[str, int]:
    """Ids by token, without those that only fill the rows of an embedding."""
    kept = [i for i, use in enumerate(uses) if use != Use.UNUSED or tokens[i] != f"[PAD{i}]"]
    found = {tokens[i]: i for i in kept}
    if len(found) < len(kept):
        twice = next(tokens[i] for i in kept if found[tokens[i]] != i)
        file.refuse(f"it has the token {twice!r} twice")
    return found


def _byte_level(file: GgufFile, tokens: list[str], uses: list[int]) -> Tokenizer:
    """As GPT-2 has it: merges of bytes that are written as characters."""
    name = file.text(f"{KEY}pre")
    if name not in CUTS:
        file.refuse(
            f"it does not say how texts are cut ({KEY}pre): convert it with a newer llama.cpp"
            if name in (None, "default")
            else f"how it cuts texts ({KEY}pre {name}) is not known; known are {', '.join(CUTS)}"
        )
    pairs = [tuple(merge.split(" ")) for merge in file.texts(f"{KEY}merges") or ()]
    if not pairs or any(len(pair) != 2 for pair in pairs):
        file.refuse(f"its {KEY}merges are not pairs of tokens")
    made = Tokenizer(
        models.BPE(
            vocab=_by_token(file, tokens, uses), merges=pairs, ignore_merges=name in WHOLE_WORDS
        )
    )
    if name in COMPOSED:
        made.normalizer = normalizers.NFC()
    made.pre_tokenizer = CUTS[name]()
    made.decoder = decoders.ByteLevel()
    return made


def _sentencepiece(file: GgufFile, tokens: list[str], uses: list[int]) -> Tokenizer:
    """As transformers converts SentencePiece's BPE: merges of pieces, the best score first."""
    scores = file.numbers(f"{KEY}scores", len(tokens))
    if scores is None or not np.isfinite(scores).all() or not scores.any():
        file.refuse(f"it has no {KEY}scores to merge its pieces by")
    for key in ("precompiled_charsmap", "remove_extra_whitespaces"):
        value = file.fields.get(f"{KEY}{key}", False)
        if value is not False:
            file.refuse(f"its tokenizer changes texts by {KEY}{key}, which is not known")
    pieces = [
        MARK * len(token) if _spaces(token, use) else token
        for token, use in zip(tokens, uses, strict=True)
    ]
    ids = _by_token(file, pieces, uses)
    # What was defined goes before anything that was learned.
    ranks = {
        piece: np.inf if use == Use.DEFINED else float(score)
        for piece, use, score in zip(pieces, uses, scores, strict=True)
        if use in (Use.NORMAL, Use.DEFINED)
    }
    if max(map(len, ranks), default=0) > MAX_PIECE:
        file.refuse(f"it has a token of more than {MAX_PIECE} characters")
    unknown = special_id(file, "unknown")
    made = Tokenizer(
        models.BPE(
            vocab=ids,
            merges=_merges(ids, ranks),
            unk_token=None if unknown is None else tokens[unknown],
            fuse_unk=True,
            byte_fallback=Use.BYTE in uses,
        )
    )
    prefix = file.flag(f"{KEY}add_space_prefix") is not False
    marks = normalizers.Replace(" ", MARK)
    made.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), marks]) if prefix else marks
    chain = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    made.decoder = decoders.Sequence(chain + [decoders.Strip(" ", 1, 0)] * prefix)
    return made


def _merges(ids: dict[str, int], ranks: dict[str, float]) -> list[tuple[str, str]]:
    """Every way to make a piece of two, in the order in which transformers makes them."""
    found = [
        (rank, piece[:cut], piece[cut:])
        for piece, rank in ranks.items()
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    found.sort(key=lambda pair: (pair[0], len(pair[1]), len(pair[2])), reverse=True)
    return [pair[1:] for pair in found]


def _frame(file: GgufFile, made: Tokenizer, tokens: list[str], begins: bool) -> None:
    """What is put before and behind a text; ``begins``: a BOS, where the file does not say."""
    said = {name: file.flag(f"{KEY}add_{name}_token") for name in ("bos", "eos")}
    ids = {name: special_id(file, name) for name in said}
    wanted = [ids["bos"] if (begins if said["bos"] is None else said["bos"]) else None,
              ids["eos"] if said["eos"] else None]  # fmt: skip
    if wanted == [None, None]:
        return
    before, behind = ([] if i is None else [tokens[i]] for i in wanted)
    made.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *behind],
        pair=[*before, "$A", *behind, *before, "$B:1", *behind],
        special_tokens=[(tokens[i], i) for i in wanted if i is not None],
    )
