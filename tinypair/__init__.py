"""The embedded pair: a small target and a smaller draft that share a tokenizer; prompts for it.

Both are ordinary transformers folders, so every command that takes a model folder takes these.
"""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).parent
TARGET = ROOT / "target"
DRAFT = ROOT / "draft"


def prompts(count: int) -> list[str]:
    """The first ``count`` of the listed prompts: held-out stories and dialogues, by turns."""
    listed = json.loads((ROOT / "prompts.json").read_text(encoding="utf-8"))
    return [entry["prompt"] for entry in listed[:count]]
