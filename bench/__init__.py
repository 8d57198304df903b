"""The numbers in the README, one command each, and the prompts that they are taken on."""

from __future__ import annotations

import json
from pathlib import Path


def prompts(count: int) -> list[str]:
    """The first ``count`` of the listed prompts: held-out stories and dialogues, by turns."""
    listed = json.loads((Path(__file__).parent / "prompts.json").read_text(encoding="utf-8"))
    return [entry["prompt"] for entry in listed[:count]]
