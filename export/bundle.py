"""``draftlink export``: checkpoint in, checked bundle out."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from device_runtime.bundle import (
    FORMAT,
    GRAPH,
    MANIFEST,
    TOKENIZER,
    Bundle,
    Check,
    Manifest,
    digest,
)
from device_runtime.draft_model import DraftModel
from draftlink.tokenizer import tokenizer_hash
from export import ExportError, check, graph, quantize
from export.quantize import Precision

PACKAGES = ("draftlink", "torch", "transformers", "onnx", "onnxruntime", "onnxscript")


def export_bundle(
    model: str | Path,
    out: Path,
    precision: Precision = "int8",
    *,
    context: int | None = None,
    text: Path | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> Bundle:
    """Export a model (a transformers folder or a hub id) to a bundle folder ``out``.

    ``context``: tokens that the KV cache holds, the model's own where None. ``text``: a file to
    check on instead of the built-in paragraph. Raises ExportError; a failed check is one, and then
    nothing is left at ``out``.
    """
    taken = out.exists() and any(out.iterdir() if out.is_dir() else [out])
    if taken and not (out / MANIFEST).is_file():
        raise ExportError(f"{out} exists and is not a bundle; choose another folder")
    progress(f"loading {model}")
    loaded, tokenizer = _load(model)
    config = loaded.config.get_text_config()
    limit = int(config.max_position_embeddings)
    if context is not None and not 1 <= context <= limit:
        raise ExportError(f"context must be between 1 and the model's {limit}, not {context}")
    context = context or limit
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        progress("tracing the graph")
        with _quiet():
            graph.export_shared(loaded, context, Path(scratch) / "traced.onnx")
        progress("folding constants")
        quantize.fold(Path(scratch) / "traced.onnx", Path(scratch) / "folded.onnx")
        # The float graph first: it is what the quantized ones are made from.
        quantize.quantize(Path(scratch) / "folded.onnx", folder / GRAPH, "fp32")
        (folder / TOKENIZER).write_text(tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
        shape = graph.cache_shape(config, context)
        manifest = Manifest(
            format=FORMAT,
            model=Path(model).name,
            architecture=config.architectures[0] if config.architectures else "unknown",
            graph="shared",
            precision="fp32",
            vocab_size=int(config.vocab_size),
            context=context,
            layers=int(config.num_hidden_layers),
            kv_heads=shape[1],
            head_dim=shape[3],
            tokenizer_hash=tokenizer_hash(tokenizer.backend_tokenizer.to_str()),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_ids=_eos(loaded),
            versions={name: importlib.metadata.version(name) for name in PACKAGES},
            files={},
            check=None,
        )
        progress("checking against PyTorch")
        words = text.read_text(encoding="utf-8") if text else check.TEXT
        ids = tokenizer(words)["input_ids"][: min(check.POSITIONS, context)]
        name = text.name if text else "built-in"
        result = _checked(Bundle(folder, manifest), loaded, ids, name)
        if precision != "fp32":
            progress(f"quantizing to {precision}")
            for path in folder.glob(f"{GRAPH}*"):
                path.unlink()
            with _quiet():
                quantize.quantize(Path(scratch) / "folded.onnx", folder / GRAPH, precision)
            manifest = msgspec.structs.replace(manifest, precision=precision)
            progress(f"checking {precision} against PyTorch")
            result = _checked(Bundle(folder, manifest), loaded, ids, name)
        files = {path.name: digest(path) for path in sorted(folder.iterdir())}
        manifest = msgspec.structs.replace(manifest, check=result, files=files)
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        if out.exists():
            shutil.rmtree(out)
        folder.replace(out)
    return Bundle(out, manifest)


def _checked(bundle: Bundle, model: Any, ids: list[int], text: str) -> Check:
    """The passed check of a graph. Raises ExportError for a failed one."""
    precision = bundle.manifest.precision
    result = check.compare(DraftModel(bundle), model, ids, precision, text)
    if not result.passed:
        raise ExportError(
            f"the {precision} graph does not match PyTorch (overlap {result.overlap:.4f}, largest"
            f" logit difference {result.max_logit_difference:.2g}, after a rollback"
            f" {result.rollback_difference:.2g}); nothing was written"
        )
    return result


def _load(model: str | Path) -> tuple[Any, Any]:
    try:
        if AutoConfig.from_pretrained(model).is_encoder_decoder:
            raise ExportError(f"{model} is an encoder-decoder model; a draft is decoder-only")
        tokenizer = AutoTokenizer.from_pretrained(model)  # type: ignore[no-untyped-call]
        loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    except (OSError, ValueError) as error:
        line = str(error).strip().splitlines()[0]
        raise ExportError(
            f"cannot load {model}: {line} Give a transformers folder with its tokenizer, or a hub"
            " id that this machine can reach."
        ) from None
    if not getattr(tokenizer, "is_fast", False):
        raise ExportError(f"{model} has no fast tokenizer (tokenizer.json)")
    return loaded.eval(), tokenizer


def _eos(model: Any) -> list[int]:
    eos = model.generation_config.eos_token_id
    return list(eos) if isinstance(eos, list) else [] if eos is None else [int(eos)]


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter and the quantizer tell one line per node; the caller wants one per step."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
