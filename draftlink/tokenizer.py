"""When are two tokenizers the same? A hash over what they do, not over how the file is written."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def tokenizer_hash(tokenizer_json: str) -> str:
    """SHA-256 (hex) over vocabulary, merges, normaliser, pre-tokenizer and added tokens.

    ``tokenizer_json`` is the text of a ``tokenizer.json``. Raises ValueError where it is none.
    """
    try:
        whole: dict[str, Any] = json.loads(tokenizer_json)
        model = dict(whole["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"not a tokenizer.json: {error!r}") from None
    # "a b" and ["a", "b"] are two spellings of one merge.
    model["merges"] = [m.split(" ") if isinstance(m, str) else m for m in model.get("merges") or ()]
    # A cache size or a dropout left at its default may or may not be written down.
    model = {name: value for name, value in model.items() if value not in (None, False)}
    same = {
        "model": model,
        "normalizer": whole.get("normalizer"),
        "pre_tokenizer": whole.get("pre_tokenizer"),
        "added_tokens": [
            {key: token[key] for key in ("id", "content", "special")}
            for token in whole.get("added_tokens") or ()
        ],
    }
    text = json.dumps(same, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
