"""A target's files: a transformers folder, a GGUF file, or an id on the Hugging Face hub."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from bs_runtime.checkpoint import quantized
from bs_runtime.checkpoint.config import read_config
from bs_runtime.checkpoint.errors import CheckpointError
from bs_runtime.checkpoint.gguf_config import read_gguf_config
from bs_runtime.checkpoint.gguf_file import GgufFile, is_gguf, open_gguf
from bs_runtime.checkpoint.gguf_model import load_gguf_model
from bs_runtime.checkpoint.hub import hub_answers
from bs_runtime.checkpoint.refused import refuse_state
from bs_runtime.checkpoint.words import Words, read_gguf_words, read_words
from bs_runtime.model.errors import TargetError


@dataclass(frozen=True)
class Files:
    """A checkpoint whose configuration is read, and nothing else of it yet.

    ``method``: how its weights are quantized, None where they are floats or a GGUF file's.
    """

    source: str
    config: Any
    gguf: GgufFile | None = None
    method: str | None = None
    offline: bool = False

    @property
    def parameters(self) -> int | None:
        """Numbers that the model has, tied ones once; None where it cannot be built without any."""
        try:
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(copy.deepcopy(self.config))
        except Exception:  # some look at their numbers while they are made
            return None
        return sum(int(each.numel()) for each in model.parameters())

    @property
    def bytes(self) -> int | None:
        """Of a folder's files of weights; None of what is not here."""
        folder = Path(self.source)
        sizes = [f.stat().st_size for f in folder.glob("*") if f.suffix in (".safetensors", ".bin")]
        return sum(sizes) if sizes else None

    def load(self, dtype: torch.dtype, place: torch.device) -> tuple[Any, Words]:
        """The model, on the CPU or where it shall be, and its words.

        Raises TargetError, CheckpointError.
        """
        if self.gguf is not None:
            words = read_gguf_words(self.gguf)
            return load_gguf_model(self.gguf, self.config, dtype=dtype), words
        return _load_folder(self, dtype, place)


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


def open_model(source: str) -> Files:
    """What ``find_model`` found, with its configuration. Raises TargetError, CheckpointError.

    What cannot be a target by its configuration is refused here, before anything large is read.
    """
    path = Path(source)
    if is_gguf(path):
        file = open_gguf(path)
        return Files(source, read_gguf_config(file), file)
    # Without the hub what is cached still loads, and without retries.
    offline = not path.is_dir() and not hub_answers(source)
    try:
        config = read_config(source, trust_remote_code=False, local_files_only=offline)
    except CheckpointError:
        raise
    except Exception as error:  # a file of any content: each reader has its own
        raise _unloadable(source, error) from None
    config._attn_implementation = None  # it could name code on the hub, or what is not here
    if config.is_encoder_decoder:
        raise TargetError(
            f"{source} is an encoder-decoder model; use a decoder-only one (a causal LM)"
        )
    refuse_state(config.get_text_config())
    method = quantized.method_of(config, source)
    if method is not None:
        quantized.need(method, source)
    return Files(source, config, method=method, offline=offline)


def generation_config(model: str, config: Any, offline: bool) -> GenerationConfig:
    """What transformers would read by itself, and then run the folder's ``custom_generate``.

    It does so whatever ``trust_remote_code`` says, but not where a generation config is given.
    """
    try:
        return GenerationConfig.from_pretrained(model, local_files_only=offline)
    except OSError:  # there is none
        return GenerationConfig.from_model_config(config)


def _unloadable(source: str, error: Exception) -> TargetError:
    """Whatever a library makes of files that are missing, broken or foreign, in one line."""
    if "trust_remote_code" in str(error):
        return TargetError(
            f"{source} needs code of its own, which is never run; use a model that transformers"
            " itself knows"
        )
    line = (str(error).strip() or repr(error)).splitlines()[0]
    return TargetError(
        f"cannot load {source}: {line.rstrip('.')}. Give a transformers folder with its"
        " tokenizer, or a hub id that this machine can reach."
    )


def _load_folder(files: Files, dtype: torch.dtype, place: torch.device) -> tuple[Any, Words]:
    """The model of a folder or hub id and its words. Raises TargetError, CheckpointError."""
    source, config = files.source, files.config
    options: dict[str, Any] = {}
    if files.method is not None and place.type != "cpu":
        options["device_map"] = {"": place}  # many kinds of codes cannot be moved afterwards
    try:
        words = read_words(source, local_files_only=files.offline)
        pair: Any = AutoModelForCausalLM.from_pretrained(
            source,
            config=config,
            dtype=dtype,
            generation_config=generation_config(source, config, files.offline),
            output_loading_info=True,
            trust_remote_code=False,
            local_files_only=files.offline,
            **options,
        )
    except (CheckpointError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of weights or quantizers: each has its own, AssertionError too
        if files.method is not None:
            line = (str(error).strip() or repr(error)).splitlines()[0]
            raise TargetError(
                f"{source} is quantized by {files.method}, and cannot be loaded here so:"
                f" {line.rstrip('.')}; {quantized.FLOATS}"
            ) from None
        raise _unloadable(source, error) from None
    loaded, report = pair
    if missing := sorted(report["missing_keys"]):
        raise TargetError(
            f"{source} has no weights for {missing[0]}, which would be random; use a model that was"
            " saved as a causal LM"
        )
    return loaded, words
