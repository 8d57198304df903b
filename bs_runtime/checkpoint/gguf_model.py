"""The weights of a GGUF file, through transformers' own reader."""

from __future__ import annotations

import contextlib
import copy
import io
from typing import Any, Final

import torch
from transformers import GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import logging

from bs_runtime.checkpoint.gguf_file import GgufFile
from bs_runtime.checkpoint.gguf_tokenizer import special_id

SAMPLING: Final = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}


def load_gguf_model(file: GgufFile, config: Any, **options: Any) -> Any:
    """The model, by transformers' reader; ``options`` are those of its ``from_pretrained``.

    The file must have passed ``read_gguf_config``. Raises CheckpointError where a weight is
    missing after all.
    """
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    made: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    with torch.device("meta"):
        empty = made(copy.deepcopy(config))
    with contextlib.ExitStack() as shown:
        if not logging.is_progress_bar_enabled():  # its own bar asks nobody
            shown.enter_context(contextlib.redirect_stderr(io.StringIO()))
        read = load_gguf_checkpoint(str(file.path), return_tensors=True, model_to_load=empty)
    pair: Any = made.from_pretrained(
        None, config=config, state_dict=read.pop("tensors"), output_loading_info=True, **options
    )
    model, report = pair
    for fault in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if report[fault]:
            file.refuse(f"transformers' reader has {fault} {sorted(report[fault])[0]}")
    model.generation_config = read_generation(file, config)
    return model


def read_generation(file: GgufFile, config: Any) -> GenerationConfig:
    """What the file says of texts: the tokens that end one, and how to sample it."""
    ends = [special_id(file, name) for name in ("eos", "eot", "eom")]
    found = GenerationConfig.from_model_config(config)
    found.eos_token_id = list(dict.fromkeys(i for i in ends if i is not None)) or None
    values = {key: file.number(f"general.sampling.{name}") for name, key in SAMPLING.items()}
    said: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    if said:
        if "top_k" in said:
            said["top_k"] = int(said["top_k"])
        found.update(do_sample=said.get("temperature") != 0.0, **said)
    return found
