"""Where a trained model goes: the place of an older one of its sizes, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from export import place

# What a published model is known by, and what save_pretrained writes of it.
SIZES = (
    *("model_type", "hidden_size", "num_hidden_layers", "intermediate_size"),
    *("num_attention_heads", "num_key_value_heads"),
)
FILES = (
    *("config.json", "generation_config.json", "model.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
)


def published(config: LlamaConfig) -> place.Ours:
    """What an older model of the same sizes is known by, that a new one may replace."""
    sizes = {name: getattr(config, name) for name in SIZES}

    def objection(folder: Path) -> str | None:
        names = sorted(path.name for path in folder.iterdir())
        if not names:
            return None
        try:
            found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            ours = {name: found[name] for name in SIZES} == sizes
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            return "exists and is not a model of these sizes; choose another --out"
        if others := [name for name in names if name not in FILES]:
            return f"also holds {', '.join(map(repr, others))}: move that away"
        return None

    return place.Ours("config.json", objection)


def publish(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a transformers folder with 16-bit weights. Raises ExportError."""
    with place.beside(folder, published(model.config)) as there:
        # float16, not bfloat16: the weights are small, and three more bits of mantissa are free.
        model.half().save_pretrained(there.new)
        tokenizer.save_pretrained(there.new)
        there.put()
