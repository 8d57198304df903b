"""A configuration means the same whichever transformers wrote it, or is refused.

Were ``rope_parameters`` passed over, an export would pass its check: the reference would be turned
by the wrong base, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from bs_runtime.checkpoint.config import MAJOR, read_config
from bs_runtime.checkpoint.errors import CheckpointError
from bs_runtime.model.errors import TargetError
from bs_runtime.model.target import Target
from export import ExportError, source
from tests.bs_runtime.tiny import SHAPE, tokenizer

LLAMA_3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
WINDOWS = {
    "head_dim": 16,
    "sliding_window": 48,
    "layer_types": ["sliding_attention", "full_attention"],
}
# A kind of model, what transformers 5 writes, and what 4.57 wrote for the same.
SAVED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama": (
        "llama",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
        {"rope_theta": 500.0},
    ),
    "llama 3": (
        "llama",
        {"rope_parameters": LLAMA_3 | {"rope_theta": 500.0}},
        {"rope_theta": 500.0, "rope_scaling": LLAMA_3},
    ),
    "yarn": (
        "qwen2",
        {"rope_parameters": YARN | {"rope_theta": 500.0}},
        {"rope_theta": 500.0, "rope_scaling": YARN},
    ),
    "linear": (
        "qwen3",
        {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}},
        {"rope_theta": 500.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    ),
    "gemma 3": (
        "gemma3_text",
        WINDOWS | {"rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 77.0},
        }},
        WINDOWS | {
            "rope_theta": 5000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 4.0},
            "rope_local_base_freq": 77.0,
        },
    ),
    "part of a head": (
        "phi",
        {"rope_parameters": {
            "rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.25,
        }},
        {"rope_theta": 500.0, "partial_rotary_factor": 0.25},
    ),
    "neox": (
        "gpt_neox",
        {"rope_parameters": {
            "rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5,
        }},
        {"rotary_emb_base": 500.0, "rotary_pct": 0.5},
    ),
}  # fmt: skip


def saved(folder: Path, kind: str, **changes: Any) -> Path:
    """A random model, the same for all ``changes`` of its configuration."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SHAPE | WINDOWS if "gemma3" in kind else SHAPE)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer()).save_pretrained(folder)
    path = folder / "config.json"
    said = json.loads(path.read_text())
    for name in ("rope_parameters", "rope_theta", "rope_scaling", "rope_local_base_freq",
                 "partial_rotary_factor", "rotary_emb_base", "rotary_pct"):  # fmt: skip
        said.pop(name, None)
    path.write_text(json.dumps(said | changes))
    return folder


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.arange(40)[None], use_cache=False).logits[0]


@pytest.mark.parametrize("name", SAVED)
def test_whoever_wrote_it(name, tmp_path):
    kind, new, old = SAVED[name]
    models = [
        source.load(saved(tmp_path / str(i), kind, **said))[0] for i, said in enumerate((new, old))
    ]
    rows, same = map(logits, models)
    assert torch.equal(rows, same)
    # The control: what the defaults would give is another model.
    defaults = source.load(saved(tmp_path / "defaults", kind))[0]
    assert (logits(defaults) - rows).abs().max() > 1e-3
    if name == "gemma 3":
        return  # its window is as long as its context
    target = Target.load(tmp_path / "0")
    torch.testing.assert_close(target.open().forward(list(range(40))), rows, rtol=0, atol=1e-4)


@pytest.mark.skipif(MAJOR >= 5, reason="transformers 5 knows its own words")
@pytest.mark.parametrize(
    ("kind", "rope"),
    [
        ("llama", {"rope_type": "proportional", "rope_theta": 500.0}),
        ("gpt2", {"rope_type": "default", "rope_theta": 500.0}),
        ("llama", {
            "full_attention": {"rope_theta": 5.0}, "sliding_attention": {"rope_theta": 6.0},
        }),
        ("gemma3_text", {
            "full_attention": {"rope_theta": 5.0},
            "sliding_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 6.0},
        }),
        ("llama", {"rope_type": "default", "rope_theta": 500.0, "something_new": 1}),
    ],
)  # fmt: skip
def test_what_the_installed_version_does_not_know_is_refused(kind, rope, tmp_path):
    folder = saved(tmp_path / "model", kind, rope_parameters=rope)
    for error, load in ((ExportError, source.load), (TargetError, Target.load)):
        with pytest.raises(error, match="was written by a newer transformers") as caught:
            load(folder)
        assert "pip install -U transformers" in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError):
        read_config(str(folder))
