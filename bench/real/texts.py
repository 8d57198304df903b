"""What drafts are measured on: the reference's own text of four kinds, at temperature 1.

A draft has to say what its target says where its target goes: so the text is the target's own, not
somebody else's. Chat goes through the model's template, and the rest is gone on with as it is.
Prompts are this file's own, apart from any that a format was calibrated or chosen with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from draftlink.host import files

KINDS = ("chat", "code", "prose", "scripts")
EACH = 10  # texts of a kind
TOKENS = 128  # of a text, unless it ends before
SEED = 0
PROMPTS: dict[str, list[str]] = json.loads(
    Path(__file__).with_name("prompts.json").read_text(encoding="utf-8")
)


class Text(msgspec.Struct, frozen=True):
    """A text's ids. Those from ``begin`` on are the reference's own, and are what counts."""

    kind: str
    ids: list[int]
    begin: int


def prompt_ids(tokenizer: Any, kind: str, prompt: str) -> list[int]:
    """A prompt as ids: chat by the model's template, where it has one."""
    if kind == "chat" and tokenizer.chat_template:
        said: list[int] = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
        )
        return list(said)
    return list(tokenizer(prompt)["input_ids"])


def load(folder: Path) -> tuple[Any, Any]:
    """The float32 model of a reference's folder, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
    )
    return model.eval(), AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def write(model: Any, tokenizer: Any, each: int, tokens: int) -> list[Text]:
    """``each`` texts of every kind, of at most ``tokens`` tokens; they end where the model does."""
    import torch

    torch.manual_seed(SEED)
    eos = model.generation_config.eos_token_id
    ends = set(eos) if isinstance(eos, list) else {eos}
    found = []
    for kind in KINDS:
        prompts = [prompt_ids(tokenizer, kind, prompt) for prompt in PROMPTS[kind][:each]]
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):  # on the right, so that all go on at one place
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        with torch.inference_mode():
            written = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=tokens, do_sample=True,
                temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0,
            )  # fmt: skip
        for prompt, row in zip(prompts, written[:, longest:].tolist(), strict=True):
            found.append(Text(kind, prompt + until_end(row, ends), len(prompt)))
    return found


def until_end(ids: Sequence[int], ends: set[int]) -> list[int]:
    """The ids up to the first that ends a text, which belongs to it."""
    for place, token in enumerate(ids):
        if token in ends:
            return list(ids[: place + 1])
    return list(ids)


def of(folder: Path, each: int = EACH, tokens: int = TOKENS) -> list[Text]:
    """A reference's texts, written on first use and kept in its folder."""
    kept = folder / f"texts-{each}x{tokens}.json"
    if not kept.exists():
        found = write(*load(folder), each, tokens)
        files.write(kept, msgspec.json.encode(found))
    return msgspec.json.decode(kept.read_bytes(), type=list[Text])
