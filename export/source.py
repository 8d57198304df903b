"""The model that is to be exported: a transformers folder, a GGUF file, or an id on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from bs_runtime.checkpoint import quantized
from bs_runtime.checkpoint.config import read_config
from bs_runtime.checkpoint.errors import CheckpointError
from bs_runtime.checkpoint.gguf_config import read_gguf_config
from bs_runtime.checkpoint.gguf_file import is_gguf, open_gguf
from bs_runtime.checkpoint.gguf_model import load_gguf_model
from bs_runtime.checkpoint.hub import absent, hub_answers
from bs_runtime.checkpoint.refused import refuse_state
from bs_runtime.checkpoint.words import Words, read_gguf_words, read_words
from draftlink.protocol.tokenizer import differences
from export import ExportError, first_line

# sdpa leaves out the softcap of Gemma 2.
OPTIONS: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}


def load(model: str | Path) -> tuple[Any, Words]:
    """The model in float32 on the CPU, and how its texts become ids. Raises ExportError.

    The model's generation config names every token that ends a text.
    """
    try:
        loaded, words = _gguf(Path(model)) if is_gguf(Path(model)) else _folder(model)
    except CheckpointError as error:
        raise ExportError(str(error)) from None
    words.end_texts(loaded.generation_config)
    return loaded.eval(), words


def _gguf(path: Path) -> tuple[Any, Words]:
    file = open_gguf(path)
    config, words = read_gguf_config(file), read_gguf_words(file)
    return load_gguf_model(file, config, **OPTIONS), words


def _folder(model: str | Path) -> tuple[Any, Words]:
    # Without the hub what is cached still loads, and without retries.
    offline = not Path(model).is_dir() and not hub_answers(str(model))
    config = _config(model, offline)
    if getattr(config, "is_encoder_decoder", False):
        raise ExportError(f"{model} is an encoder-decoder model; a draft must be decoder-only")
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    made_as = config.architectures or [known]
    if known is None or known not in made_as:
        # BERT's kind would load too, with a head of random weights.
        raise ExportError(
            f"{model} is a {made_as[0] or config.model_type}, not a decoder-only language model,"
            " as a draft must be"
        )
    refuse_state(config.get_text_config())
    if (method := quantized.method_of(config, str(model))) is not None:
        raise ExportError(
            f"{model} is quantized by {method}, and a draft is rounded from floats;"
            f" {quantized.FLOATS}"
        )
    words = _words(model, offline)
    try:
        both: Any = AutoModelForCausalLM.from_pretrained(
            model,
            config=config,
            generation_config=_generation_config(model, config, offline),
            output_loading_info=True,
            trust_remote_code=False,
            local_files_only=offline,
            **OPTIONS,
        )
    except Exception as error:  # missing, truncated or foreign weights: each its own exception
        raise ExportError(f"cannot load the weights of {model}: {first_line(error)}") from None
    loaded, info = both
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise ExportError(f"the weights of {model} lack {missing[0]} ({len(missing)} in all)")
    return loaded, words


def _generation_config(model: str | Path, config: Any, offline: bool) -> GenerationConfig:
    """What transformers would read by itself, and then run the folder's ``custom_generate``.

    It does so whatever ``trust_remote_code`` says, but not where a generation config is given.
    """
    try:
        return GenerationConfig.from_pretrained(model, local_files_only=offline)
    except OSError:  # there is none
        return GenerationConfig.from_model_config(config)


def _own_code(model: str | Path, error: Exception) -> None:
    """Raise ExportError for an error that says that a model would have to bring its own code."""
    if "trust_remote_code" in str(error):
        raise ExportError(
            f"{model} needs code of its own, which is never run; use a model that transformers"
            " itself knows"
        ) from None


def _config(model: str | Path, offline: bool) -> Any:
    path = Path(model)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ExportError(
                f"{model} is not a transformers folder: it has no config.json; give the folder"
                " that save_pretrained wrote"
            )
    elif path.exists() or path.is_absolute() or str(model).startswith("."):
        raise ExportError(
            f"there is no folder {model}; give a transformers folder, a GGUF file or a hub id"
        )
    try:
        return read_config(str(model), trust_remote_code=False, local_files_only=offline)
    except CheckpointError:
        raise
    except Exception as error:  # a file of any content: each reader has its own
        _own_code(model, error)
        if path.is_dir():
            raise ExportError(f"cannot read {path / 'config.json'}: {first_line(error)}") from None
        said = "it does not answer" if offline else str(error).strip().splitlines()[0].rstrip(".")
        raise ExportError(str(absent(str(model), said))) from None


def _words(model: str | Path, offline: bool) -> Words:
    try:
        return read_words(str(model), local_files_only=offline)
    except CheckpointError:
        raise
    except Exception as error:  # of the hub, say: each its own exception
        _own_code(model, error)
        raise ExportError(
            f"{model} has no tokenizer that loads ({first_line(error)}); save it into the model's"
            " folder"
        ) from None


def check_target(words: Words, target: str | Path) -> None:
    """Raise ExportError, with the first differences, unless the target's tokenizer is the same.

    The sizes of the two models' logits may differ: padding is no part of a tokenizer.
    """
    path = Path(target)
    try:
        if is_gguf(path):
            theirs = read_gguf_words(open_gguf(path))
        else:
            theirs = _words(target, not path.is_dir() and not hub_answers(str(target)))
    except CheckpointError as error:
        raise ExportError(str(error)) from None
    found = differences(words.tokenizer, theirs.tokenizer)
    if found:
        raise ExportError(
            f"the draft's tokenizer is not that of {target}: {'; '.join(found)}; choose a draft of"
            " the target's family"
        )


def context(model: Any, asked: int | None) -> int:
    """The tokens that the KV cache shall hold: ``asked``, or the model's own context.

    Raises ExportError for more than the model has, and for a cache that cannot be rolled back to
    any earlier length within them.
    """
    config = model.config.get_text_config()
    try:
        refuse_state(config, stateful=getattr(model, "_is_stateful", False))
    except CheckpointError as error:
        raise ExportError(str(error)) from None
    limit = getattr(config, "max_position_embeddings", None) or asked
    if not limit:
        raise ExportError(f"{config.model_type} states no context length; give one with --context")
    rope = getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) == "longrope":
        # Its frequencies change at this length, under the keys that are cached already.
        original = getattr(config, "original_max_position_embeddings", None)
        limit = min(limit, original or rope.get("original_max_position_embeddings") or limit)
    if asked is not None and not 1 <= asked <= limit:
        raise ExportError(f"context must be between 1 and the model's {limit}, not {asked}")
    return asked or int(limit)
