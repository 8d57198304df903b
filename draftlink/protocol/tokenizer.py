"""When are two tokenizers the same? By their tokens, and by what they make of texts.

How a ``tokenizer.json`` says it does not count: one library writes a null where another writes an
empty text, one cuts digits apart by a pattern where another has a step for it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Final, Protocol

# What families of tokenizers treat differently: contractions, code, digits, spaces, lines,
# letters that Unicode writes in two ways, scripts, emoji, what looks like a special token, and
# characters that no vocabulary has.
TEXTS: Final = (
    "",
    "a",
    " The quick brown fox doesn't jump; it's WE'RE, I'LL and THEY'VE, isn't it? ",
    "def f(x_1, *args):\n    return {'a': x_1 ** 2, \"b\": [args[0]]}  # camelCase\r\n\r\n\tend\n",
    "one two  three   four    seven       tabs\t\t\tlines\n\n\n\n \n  \n",
    "0 12 345 6789 3.14159 1,000,000 0x1F 2026-11-28 ½ ² ٣ Ⅳ 一二三",
    "D\u00e9j\u00e0 vu, de\u0301ja\u0300 vu, na\u00efve; \ufb01 \u212b \u00df \u1e9e \u0130 \uff21",
    "Небо голубое. 空は青いです。天空是蓝色的，对吗？ 하늘은 파랗다 नमस्ते שלום السلام ไทย",
    "😀 🇩🇪 👨\u200d👩\u200d👧 👍🏽 ☃ \u200b \ufeff \u00a0 \u2003 \u3000 \u2028",
    "http://example.org/?q=a&b=c#d user@host <b>x</b> [y](z) `c` $\\frac{1}{2}$ C:\\new ~~ --- !!",
    "▁▁a ▁b Ġa Ċ <0x0A> <|endoftext|> <s> </s> <unk> [INST] <|im_end|> <end_of_turn>",
    "\ue000\u0378\U0010fffd\x00\x01\x7f",
)


class Tokenizer(Protocol):
    """A tokenizer of Hugging Face's ``tokenizers``, as far as it matters here."""

    def to_str(self) -> str:
        """Its ``tokenizer.json``."""

    def encode(self, sequence: str, *, add_special_tokens: bool) -> Any:
        """What has the ids of a text as ``ids``; with what is put before and behind it, or not."""


def _parsed(tokenizer: Tokenizer) -> dict[str, Any]:
    """A tokenizer's JSON. Raises ValueError."""
    try:
        whole: dict[str, Any] = json.loads(tokenizer.to_str())
        dict(whole["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a tokenizer.json: {error!r}") from None
    return whole


def _hashed(tokenizer: Tokenizer, whole: dict[str, Any]) -> dict[str, Any]:
    """What a tokenizer is: two spellings of the same are equal."""
    model, added = whole["model"], whole.get("added_tokens") or ()
    vocab, scores = model.get("vocab") or {}, []
    if not isinstance(vocab, dict):  # of a unigram model: pairs of token and score
        vocab, scores = {entry[0]: i for i, entry in enumerate(vocab)}, [e[1] for e in vocab]
    known = sorted((token["id"], token["content"]) for token in added)
    # What an added token takes with it of the spaces around it, and whether it needs them.
    around = "".join(f"a {content} b{content}c" for _, content in known)
    return {
        "kind": model.get("type") or "",
        "tokens": vocab | {content: index for index, content in known},
        "scores": scores,
        # "a b" and ["a", "b"] are two spellings of one merge.
        "merges": [m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or ()],
        "whole_words": bool(model.get("ignore_merges")),
        "added": [list(pair) for pair in known],
        "ids": [
            [list(tokenizer.encode(text, add_special_tokens=flag).ids) for flag in (False, True)]
            for text in (*TEXTS, around)
        ],
    }


def tokenizer_hash(tokenizer: Tokenizer) -> str:
    """SHA-256 (hex) over tokens, merges, added tokens, and the ids of the texts above.

    Raises ValueError where the tokenizer has no ``tokenizer.json``.
    """
    same = _hashed(tokenizer, _parsed(tokenizer))
    text = json.dumps(same, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(draft: Tokenizer, target: Tokenizer, most: int = 3) -> list[str]:
    """The first differences of two tokenizers, at most ``most`` of each kind; none: same hash.

    Each is a line, the draft's side first. Raises ValueError for what has no ``tokenizer.json``.
    """
    wholes = [_parsed(one) for one in (draft, target)]
    sides = [_hashed(one, whole) for one, whole in zip((draft, target), wholes, strict=True)]
    if sides[0] == sides[1]:
        return []
    lines: list[str] = []
    for kind, entries in PARTS.items():
        one, other = (entries(side | {"whole": w}) for side, w in zip(sides, wholes, strict=True))
        found = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
        lines += [
            f"{kind}{key}: {_short(one.get(key))} against {_short(other.get(key))}"
            for key in found[:most]
        ]
        if len(found) > most:
            lines.append(f"and {len(found) - most:,} more of this kind")
    return lines or ["the same entries in another order"]


def _ids(side: dict[str, Any]) -> dict[str, Any]:
    """The ids of each text; those with a BOS or EOS only where they differ from those without."""
    names = [repr(text[:20]) for text in TEXTS] + ["around added tokens"]
    return {name: ids[1] for name, ids in zip(names, side["ids"], strict=True)}


# What is told of a difference: how it is written where that explains it, then what it does.
PARTS: dict[str, Callable[[dict[str, Any]], dict[Any, Any]]] = {
    "id ": lambda one: {index: token for token, index in one["tokens"].items()},
    "score ": lambda one: dict(enumerate(one["scores"])),
    "merge ": lambda one: dict(enumerate(one["merges"])),
    "added token ": lambda one: dict(one["added"]),
    "": lambda one: {
        name: one["whole"].get(name) for name in ("normalizer", "pre_tokenizer", "post_processor")
    },
    "model's ": lambda one: {
        k: v for k, v in one["whole"]["model"].items() if k not in ("vocab", "merges") and v
    },
    "ids of ": _ids,
}


def _short(value: Any) -> str:
    """A value as JSON, in a few characters."""
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
