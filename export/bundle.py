"""``draftlink export``: checkpoint in, checked bundle out."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import onnx
from tokenizers import Tokenizer

from bs_runtime.checkpoint.facts import read_facts
from bs_runtime.checkpoint.gguf_file import is_gguf
from bs_runtime.checkpoint.words import Words
from device_runtime.model.bundle import (
    FORMAT,
    GRAPH,
    MANIFEST,
    TOKENIZER,
    Bundle,
    BundleError,
    Check,
    Manifest,
    digest,
)
from device_runtime.model.draft_model import DraftModel
from draftlink.protocol.tokenizer import tokenizer_hash
from export import ExportError, Kind, check, first_line, npu, place, quantize, source
from export.graph import cache_shapes, export_shared
from export.portable import check_portable, export_portable, keep_last_position
from export.quantize import Precision
from export.static import export_static

PACKAGES = (
    *("draftlink", "torch", "transformers", "tokenizers", "gguf", "optimum", "optimum-onnx"),
    *("onnx", "onnxruntime", "onnxscript"),
)
MANIFEST_BYTES = 1 << 20  # what is larger is none of ours
Progress = Callable[[str], None]
Traced = dict[int, onnx.ModelProto]  # graphs by the tokens that they are fed at once


def export_bundle(
    model: str | Path,
    out: Path,
    precision: Precision = "int8",
    *,
    graph: Kind = "shared",
    context: int | None = None,
    text: Path | None = None,
    calibrate: Path | None = None,
    target: str | Path | None = None,
    progress: Progress = lambda step: None,
) -> Bundle:
    """Export a model (a transformers folder or a hub id) to a bundle folder ``out``.

    ``graph``: "shared" rolls back for nothing, "portable" has standard operators only and copies
    its cache, "static" has fixed shapes for NPUs and, in int8, is quantized by ranges measured on
    the text in ``calibrate``. ``context``: tokens that the KV cache holds, the model's own where
    None. ``text``: a file to check on instead of the built-in paragraph. ``target``: the model that
    shall verify this draft, whose tokenizer must be the same. Raises ExportError; a
    failed check is one, and then nothing is left at ``out``.
    """
    if graph == "static" and precision == "int4":
        raise ExportError("an NPU's graph is int8 or fp32; leave int4 to the shared graph")
    if (graph == "static" and precision == "int8") != (calibrate is not None):
        raise ExportError(
            "an int8 graph for NPUs, and no other, is calibrated; give a text with --calibrate"
        )
    if graph == "portable":
        check_portable()
    with place.beside(out, OURS) as there:
        progress(f"loading {model}")
        loaded, words = source.load(model)
        if target is not None:
            source.check_target(words, target)
        context = source.context(loaded, context)
        ids = _check_ids(words.tokenizer, text)[: min(check.POSITIONS, context)]
        sample = [] if calibrate is None else _check_ids(words.tokenizer, calibrate)
        scratch, folder = there.scratch, there.new
        buckets = [n for n in npu.BUCKETS if n < context] if graph == "static" else []
        traced = (
            {n: _traced(loaded, graph, context, scratch, progress, n) for n in buckets}
            if buckets
            else {1: _traced(loaded, graph, context, scratch, progress)}
        )
        (folder / TOKENIZER).write_text(words.tokenizer.to_str(), encoding="utf-8")
        manifest = _manifest(_name(model), loaded, words, graph, context, buckets)
        # The float graph first: it is what the quantized ones are made from.
        for step in dict.fromkeys(("fp32", precision)):
            if step != "fp32":
                progress(f"quantizing to {step}")
                traced = _quantized(traced, step, manifest, sample, scratch)
            manifest = _written(traced, folder, msgspec.structs.replace(manifest, precision=step))
            result = _checked(
                Bundle(folder, manifest), loaded, ids, text.name if text else "built-in", progress
            )
        manifest = msgspec.structs.replace(manifest, check=result)
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        there.put()
    return Bundle(out, manifest)


def _quantized(
    traced: Traced, precision: Precision, manifest: Manifest, sample: list[int], scratch: Path
) -> Traced:
    """Float graphs, quantized; those for NPUs by the ranges of values on ``sample``."""
    with _quiet():
        if manifest.buckets:
            return npu.quantized(traced, manifest, sample, scratch)
        quantize.quantize(traced[1], precision)
        return traced


def _written(traced: Traced, folder: Path, manifest: Manifest) -> Manifest:
    """The manifest with the files of a bundle's folder, whose graphs are now these."""
    for path in folder.glob(f"{Path(GRAPH).stem}*"):
        path.unlink()
    if manifest.buckets:
        npu.write(traced, folder)
    else:
        quantize.write(traced[1], folder / GRAPH)
    files = {path.name: digest(path) for path in sorted(folder.iterdir())}
    return msgspec.structs.replace(manifest, files=files)


def _objection(folder: Path) -> str | None:
    """Why a folder is not a bundle of ours and nothing else; None where it is, or is empty."""
    names = sorted(os.listdir(folder))
    if not names:
        return None
    path, manifest = folder / MANIFEST, None
    with contextlib.suppress(OSError, ValueError):
        if path.is_file() and path.stat().st_size <= MANIFEST_BYTES:
            manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    if manifest is None:
        return "exists and is not a bundle; choose another folder"
    others = [
        name
        for name in names
        if name != MANIFEST and (name not in manifest.files or (folder / name).is_dir())
    ]
    if others:
        listed = ", ".join(map(repr, others[:3])) + f" and {len(others) - 3} more" * (
            len(others) > 3
        )
        return f"is a bundle that also holds {listed}: move that away, or choose another folder"
    return None


OURS = place.Ours(MANIFEST, _objection)


def _check_ids(tokenizer: Tokenizer, text: Path | None) -> list[int]:
    """The tokens to check on. Raises ExportError for a text that is not there, or too short."""
    if text is None:
        words, least = check.TEXT, 1
    else:
        least = 16
        try:
            words = text.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ExportError(f"cannot read the text {text}: {first_line(error)}") from None
    ids: list[int] = tokenizer.encode(words).ids
    if len(ids) < least:
        raise ExportError(f"{text} has {len(ids)} tokens; give a text of {least} or more")
    return ids


def _traced(
    model: Any, kind: Kind, context: int, scratch: Path, progress: Progress, count: int = 0
) -> onnx.ModelProto:
    """The float graph, constants folded; ``count``: the tokens of a static one.

    Raises ExportError.
    """
    progress(f"tracing the {kind} graph" + f" of {count} tokens" * bool(count))
    try:
        with _quiet():
            if kind == "shared":
                return export_shared(model, context)
            if kind == "static":
                return export_static(model, context, count)
            path = export_portable(model, scratch / "traced")
            progress("folding constants")
            proto = quantize.fold(path, scratch / "folded.onnx")
    except Exception as error:  # an architecture can fail anywhere in three libraries
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        other = "; use another model" if kind == "portable" else "; try --graph portable"
        raise ExportError(
            f"{type(model).__name__} has no {kind} graph ({first_line(error)}){other}"
        ) from error
    keep_last_position(proto)
    return proto


def _name(model: str | Path) -> str:
    return Path(model).stem if is_gguf(Path(model)) else Path(model).name


def _manifest(
    name: str, model: Any, words: Words, kind: Kind, context: int, buckets: list[int]
) -> Manifest:
    """What the device must know; precision, files and check are still to come."""
    config = model.config.get_text_config()
    shapes = cache_shapes(model)
    with _quiet():  # what of it cannot be applied is the target's to say
        facts = read_facts(model.generation_config, words.tokenizer).within(int(config.vocab_size))
    return Manifest(
        format=FORMAT,
        model=name,
        architecture=type(model).__name__,
        graph=kind,
        precision="fp32",
        vocab_size=int(config.vocab_size),
        context=context,
        layers=len(shapes) // 2,
        kv_heads=shapes[0][0],
        head_dim=shapes[0][1],
        tokenizer_hash=tokenizer_hash(words.tokenizer),
        bos_token_id=words.id_of("bos_token"),
        eos_token_ids=list(facts.eos_ids),
        versions=_versions(),
        files={},
        check=None,
        buckets=buckets,
        chat_template=words.template,
        sampling=facts.sampling,
    )


def _versions() -> dict[str, str]:
    """What made the bundle, of what is installed: some packages belong to one graph or format."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _checked(bundle: Bundle, model: Any, ids: list[int], text: str, progress: Progress) -> Check:
    """The passed check of a graph. Raises ExportError for a failed one."""
    precision, kind = bundle.manifest.precision, bundle.manifest.graph

    def tell(position: int) -> None:
        progress(f"checking {precision} against PyTorch, {position} of {len(ids)} tokens")

    try:
        draft = DraftModel(bundle, threads=1)
        result = check.compare(draft, model, ids, precision, text, tell)
    except BundleError as error:
        raise ExportError(f"the {precision} {kind} graph does not load: {error}") from error
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise ExportError(
            f"the {precision} {kind} graph does not run: {first_line(error)}"
        ) from error
    if not result.passed:
        raise ExportError(
            f"the {precision} {kind} graph does not match PyTorch (overlap {result.overlap:.4f},"
            f" largest logit difference {result.max_logit_difference:.2g}, after a rollback"
            f" {result.rollback_difference:.2g}); nothing was written"
        )
    return result


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporters and the quantizer tell one line per node; the caller wants one per step."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
