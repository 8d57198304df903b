"""A target's files: a transformers folder, a GGUF file, or an id on the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, GenerationConfig

from bs_runtime.checkpoint.config import read_config
from bs_runtime.checkpoint.gguf_config import read_gguf_config
from bs_runtime.checkpoint.gguf_file import is_gguf, open_gguf
from bs_runtime.checkpoint.gguf_model import load_gguf_model
from bs_runtime.checkpoint.hub import hub_answers
from bs_runtime.checkpoint.words import Words, read_gguf_words, read_words
from bs_runtime.model.errors import TargetError

# What transformers raises for files that are missing, broken or foreign.
FAULTS = (OSError, ValueError, KeyError, RuntimeError, SafetensorError, UnpicklingError)


def find_model(model: str | Path) -> tuple[str, str]:
    """Folder or hub id, and the model's name. Raises TargetError for a folder that is none."""
    folder = Path(model)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise TargetError(f"{model} has no config.json; give a transformers model folder")
        return str(folder), folder.resolve().name
    if is_gguf(folder):
        return str(folder), folder.stem
    if folder.exists():
        raise TargetError(f"{model} is a file; give the transformers folder that it is in")
    parts = str(model).split("/")
    if isinstance(model, Path) or len(parts) > 2 or parts[0] in ("", ".", "..", "~"):
        raise TargetError(f"there is no folder {model}; give a transformers folder or a hub id")
    return str(model), parts[-1]


def generation_config(model: str, config: Any, offline: bool) -> GenerationConfig:
    """What transformers would read by itself, and then run the folder's ``custom_generate``.

    It does so whatever ``trust_remote_code`` says, but not where a generation config is given.
    """
    try:
        return GenerationConfig.from_pretrained(model, local_files_only=offline)
    except OSError:  # there is none
        return GenerationConfig.from_model_config(config)


def load_model(source: str, dtype: torch.dtype) -> tuple[Any, Words]:
    """A model on the CPU, and its words. Raises TargetError, CheckpointError."""
    path = Path(source)
    return _load_gguf(path, dtype) if is_gguf(path) else _load_folder(source, dtype)


def _load_gguf(path: Path, dtype: torch.dtype) -> tuple[Any, Words]:
    """The model of a file and its words. Raises CheckpointError."""
    file = open_gguf(path)
    config, words = read_gguf_config(file), read_gguf_words(file)
    return load_gguf_model(file, config, dtype=dtype), words


def _load_folder(source: str, dtype: torch.dtype) -> tuple[Any, Words]:
    """The model of a folder or hub id and its words. Raises TargetError, CheckpointError."""
    # Without the hub what is cached still loads, and without retries.
    offline = not Path(source).is_dir() and not hub_answers(source)
    options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": offline}
    try:
        config = read_config(source, **options)
        config._attn_implementation = None  # it could name code on the hub
        if config.is_encoder_decoder:
            raise TargetError(
                f"{source} is an encoder-decoder model; use a decoder-only one (a causal LM)"
            )
        words = read_words(source, local_files_only=offline)
        pair: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            generation_config=generation_config(source, config, offline),
            output_loading_info=True,
            **options,
        )
    except FAULTS as error:
        if "trust_remote_code" in str(error):
            raise TargetError(
                f"{source} needs code of its own, which is never run; use a model that transformers"
                " itself knows"
            ) from None
        line = (str(error).strip() or repr(error)).splitlines()[0]
        raise TargetError(
            f"cannot load {source}: {line.rstrip('.')}. Give a transformers folder with its"
            " tokenizer, or a hub id that this machine can reach."
        ) from None
    loaded, report = pair
    if missing := sorted(report["missing_keys"]):
        raise TargetError(
            f"{source} has no weights for {missing[0]}, which would be random; use a model that was"
            " saved as a causal LM"
        )
    return loaded, words
