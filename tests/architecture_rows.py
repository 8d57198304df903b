"""The architectures of docs/architectures.md, each as a tiny random model; and its table.

``python -m tests.architecture_rows`` writes the table anew. What it says is what the tests hold:
``test_architecture_table`` writes a text with each row, ``test_refused_files`` has those refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import transformers

MAJOR = int(transformers.__version__.partition(".")[0])
DOCS = Path(__file__).parent.parent / "docs" / "architectures.md"
BEGIN, END = "<!-- made by tests/architecture_rows.py -->\n", "<!-- end -->\n"
WINDOW = 12  # less than a text, and than its prompt and a draft
LOCAL = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
Since = Literal["always", "5", "never"]  # transformers 4.57, or from 5 on


@dataclass(frozen=True)
class Row:
    """``packed``: whether sessions share a forward. ``draft``: the graph, None for a target only.

    ``quick``: whether its draft is exported in every run of the tests.
    """

    models: str
    kind: str  # transformers' model type
    tried: str  # what of it differs from Llama, and is in the tiny one
    changes: dict[str, Any] = field(default_factory=dict)
    packed: Since = "always"
    draft: Literal["shared", "portable"] | None = "shared"
    quick: bool = False


def rope(kind: str, **said: Any) -> dict[str, Any]:
    """A rotation that is scaled, in the words of the installed transformers."""
    scaled = {"rope_type": kind, **said}
    if MAJOR >= 5:
        return {"rope_parameters": {"rope_theta": 10000.0, **scaled}}
    return {"rope_scaling": scaled}


LLAMA_3 = rope(
    "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
    original_max_position_embeddings=16,
)  # fmt: skip
GRANITE = {
    "embedding_multiplier": 3.0, "attention_multiplier": 0.2, "residual_multiplier": 0.5,
    "logits_scaling": 0.5,
}  # fmt: skip
UNTIED = {"tie_word_embeddings": False}  # tied, the random one repeats itself
FALCON = {"alibi": False, "new_decoder_architecture": False, "multi_query": True, **UNTIED}
NO_ROPE = {"pad_token_id": 0, "no_rope_layers": [1, 0]}
CAPPED = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}

ROWS = (
    Row("Llama 2", "llama", ""),
    Row("Llama 3, 3.1, 3.2", "llama", "scaled rotary", LLAMA_3),
    Row("Qwen2.5", "qwen2", "biases"),
    Row("Qwen3", "qwen3", "norms of queries and keys"),
    Row("Gemma 2", "gemma2", "window, soft caps, query scaling", LOCAL | CAPPED | UNTIED),
    Row("Gemma 3 (270M, 1B)", "gemma3_text", "window, two rotary bases", LOCAL),
    Row("Mistral", "mistral", "window", {"sliding_window": WINDOW}),
    Row("Phi-3", "phi3", "one projection, window", {"pad_token_id": 0, "sliding_window": WINDOW}),
    Row("Phi-4-mini", "phi3", "partial rotary", {"pad_token_id": 0, "partial_rotary_factor": 0.75},
        quick=True),
    Row("SmolLM3", "smollm3", "layers without rotary", NO_ROPE),
    Row("OLMo 2", "olmo2", "norms behind"),
    Row("Granite 3", "granite", "multipliers", GRANITE),
    Row("Cohere Command R", "cohere", "parallel layers, logit scale", {"logit_scale": 0.5}),
    Row("GPT-2", "gpt2", "learned positions"),
    Row("OPT", "opt", "learned positions, heads of 8", quick=True),
    Row("GPT-NeoX, Pythia", "gpt_neox", "partial rotary, parallel layers", {"rotary_pct": 0.25}),
    Row("StarCoder 1", "gpt_bigcode", "one key-value head", packed="5", draft=None),
    Row("StarCoder2", "starcoder2", "biases, layer norms"),
    Row("Falcon 7B", "falcon", "own attention, one key-value head", FALCON, "never", "portable"),
    Row("Mixtral", "mixtral", "experts", draft=None),
    Row("Qwen3-MoE", "qwen3_moe", "experts", draft=None),
    Row("Gemma 3 (4B and above): text", "gemma3", "within a multimodal checkpoint", draft=None),
)  # fmt: skip

REFUSED = {
    "mamba": ({"hidden_size": 16, "num_hidden_layers": 1}, "a recurrent state"),
    "recurrent_gemma": (
        {"num_hidden_layers": 2, "lru_width": 32, "block_types": ["recurrent", "attention"]},
        "a recurrent state",
    ),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, "layers of kind conv"),
    "bloom": ({"n_layer": 1, "n_head": 4}, "(ALiBi)"),
    "mpt": ({"n_layers": 1, "n_heads": 4, "d_model": 32}, "(ALiBi)"),
    "falcon": ({"alibi": True}, "(ALiBi)"),
}


def table() -> str:
    """The table in Markdown."""
    packed = {"always": "one forward", "5": "one forward from transformers 5 on", "never": "apart"}
    lines = [
        "| models | type | tried with | as a target, sessions run in | as a draft |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        draft = "–" if row.draft is None else f"`{row.draft}`"
        told = row.models, f"`{row.kind}`", row.tried or "–", packed[row.packed], draft
        lines.append(f"| {' | '.join(told)} |")
    for kind, (_, why) in REFUSED.items():
        also = ", with `alibi`" if kind == "falcon" else ""
        lines.append(f"| – | `{kind}`{also} | {why.strip('()')} | refused | refused |")
    return "\n".join(lines) + "\n"


def rewritten(text: str) -> str:
    """The page with the table as it is now."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.partition(END)[2]


if __name__ == "__main__":
    DOCS.write_text(rewritten(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
