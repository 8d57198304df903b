"""When are two tokenizers the same? By what they do, not by how the file is written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any


def _canonical(tokenizer_json: str) -> dict[str, Any]:
    """What a tokenizer does: two spellings of the same are equal. Raises ValueError."""
    try:
        whole: dict[str, Any] = json.loads(tokenizer_json)
        model = dict(whole["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a tokenizer.json: {error!r}") from None
    # "a b" and ["a", "b"] are two spellings of one merge.
    model["merges"] = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or ()]
    # A cache size or a dropout left at its default may or may not be written down.
    model = {name: value for name, value in model.items() if value not in (None, False)}
    return {
        "model": model,
        "normalizer": whole.get("normalizer"),
        "pre_tokenizer": whole.get("pre_tokenizer"),
        "added_tokens": [
            {key: token[key] for key in ("id", "content", "special")}
            for token in whole.get("added_tokens") or ()
        ],
    }


def tokenizer_hash(tokenizer_json: str) -> str:
    """SHA-256 (hex) over vocabulary, merges, normaliser, pre-tokenizer and added tokens.

    ``tokenizer_json`` is the text of a ``tokenizer.json``. Raises ValueError where it is none.
    """
    same = _canonical(tokenizer_json)
    text = json.dumps(same, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differences(draft_json: str, target_json: str, most: int = 3) -> list[str]:
    """The first differences of two tokenizers, at most ``most`` of each kind; none: same hash.

    Each is a line, the draft's side first. Raises ValueError for what is no ``tokenizer.json``.
    """
    draft, target = _canonical(draft_json), _canonical(target_json)
    lines: list[str] = []
    for kind, entries in PARTS.items():
        one, other = entries(draft), entries(target)
        found = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
        lines += [
            f"{kind}{key}: {_short(one.get(key))} against {_short(other.get(key))}"
            for key in found[:most]
        ]
        if len(found) > most:
            lines.append(f"and {len(found) - most:,} more of this kind")
    if not lines and draft != target:
        lines.append("the same entries in another order")
    return lines


def _by_id(canonical: dict[str, Any]) -> dict[int, Any]:
    """The vocabulary's tokens by id; of a unigram model with their scores."""
    vocab = canonical["model"].get("vocab", {})
    if isinstance(vocab, dict):
        return {index: token for token, index in vocab.items()}
    return dict(enumerate(vocab))


def _settings(canonical: dict[str, Any]) -> dict[str, Any]:
    """Of the model, what is neither vocabulary nor merges."""
    return {k: v for k, v in canonical["model"].items() if k not in ("vocab", "merges")}


PARTS: dict[str, Callable[[dict[str, Any]], dict[Any, Any]]] = {
    "id ": _by_id,
    "merge ": lambda one: dict(enumerate(one["model"].get("merges", ()))),
    "added token ": lambda one: {token["id"]: token for token in one["added_tokens"]},
    "": lambda one: {name: one[name] for name in ("normalizer", "pre_tokenizer")},
    "model's ": _settings,
}


def _short(value: Any) -> str:
    """A value as JSON, in a few characters."""
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:37] + "..."
