"""``draftlink export``: checkpoint in, checked bundle out."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import msgspec
import onnx
from tokenizers import Tokenizer

from bs_runtime.checkpoint.config import window_of
from bs_runtime.checkpoint.facts import read_facts
from bs_runtime.checkpoint.gguf_file import is_gguf
from bs_runtime.checkpoint.words import Words
from device_runtime.model.bundle import FORMAT, MANIFEST, TOKENIZER, Bundle, Manifest
from draftlink.protocol.tokenizer import tokenizer_hash
from export import ExportError, Kind, chat, check, choose, first_line, npu, place, quantize, source
from export.choose import Asked, Precision
from export.graph import WINDOWS, cache_shapes, export_shared, padded
from export.portable import check_portable, export_portable, keep_last_position
from export.stage import Progress, Stage, Traced, quiet
from export.static import export_static

PACKAGES = (
    *("draftlink", "torch", "transformers", "tokenizers", "gguf", "optimum", "optimum-onnx"),
    *("onnx", "onnxruntime", "onnxscript"),
)
MANIFEST_BYTES = 1 << 20  # what is larger is none of ours


def export_bundle(
    model: str | Path,
    out: Path,
    precision: Precision = "int8",
    *,
    graph: Kind = "shared",
    context: int | None = None,
    branches: bool = False,
    text: Path | None = None,
    calibrate: Path | None = None,
    target: str | Path | None = None,
    asked: Asked = Asked(),  # noqa: B008 (it is frozen)
    progress: Progress = lambda step: None,
) -> Bundle:
    """Export a model (a transformers folder or a hub id) to a bundle folder ``out``.

    ``precision``: "auto" is the fastest rounding that overlaps with float32 by ``front.ENOUGH`` or,
    with a ``target``, the one with the most expected tokens a second. ``graph``: "shared" rolls
    back for nothing, "portable" has standard operators only and copies its cache, "static" has
    fixed shapes for NPUs and, in int8, is quantized by ranges measured on the text in
    ``calibrate``. ``context``: tokens that the KV cache holds, the model's own where None.
    ``branches``: of a shared graph, whose tokens need not follow one another then. ``text``: a file
    to check on instead of the draft's own text. ``target``: the model that shall verify this draft,
    whose tokenizer must be the same. ``asked``: by what costs and with what effort a rounding is
    chosen. Raises ExportError; a failed check is one, and then nothing is left at ``out``.
    """
    _refuse(graph, precision, calibrate, branches=branches)
    with place.beside(out, OURS) as there:
        progress(f"loading {model}")
        loaded, words = source.load(model)
        if target is not None:
            source.check_target(words, target)
        context = source.context(loaded, context)
        cache_shapes(loaded)  # what has none has no graph of any kind
        ids = _check_ids(words.tokenizer, text)[: min(check.POSITIONS, context)]
        sample = [] if calibrate is None else _check_ids(words.tokenizer, calibrate)
        buckets = [n for n in npu.BUCKETS if n < context] if graph == "static" else []
        graphs = {
            n: traced(loaded, graph, context, there.scratch, progress, n, branches=branches)
            for n in buckets or [1]
        }
        name = _name(model)
        manifest = manifest_of(name, loaded, words, graph, context, buckets, branches=branches)
        stage = Stage(there.new, there.scratch, manifest, progress)
        (stage.folder / TOKENIZER).write_text(words.tokenizer.to_str(), "utf-8")
        # The float graph first: it is what the rounded ones are made from.
        stage.write(graphs)
        said = text.name if text else "built-in"
        result = stage.check(loaded, ids, said)
        if precision == "int8" and buckets:
            _quantize(stage, graphs, sample)
            result = stage.check(loaded, ids, said)
        elif precision != "fp32":
            del graphs
            own = None if text is None else (ids, said)
            result = choose.rounded(stage, loaded, words, precision, asked, own, target)
        manifest = msgspec.structs.replace(stage.manifest, check=result, chat=chat.form(stage))
        (stage.folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
        there.put()
    return Bundle(out, manifest)


def _quantize(stage: Stage, graphs: Traced, sample: list[int]) -> None:
    """Graphs for NPUs, by the ranges that values have on a text of ids."""
    stage.progress("quantizing to int8")
    with quiet():
        graphs = npu.quantized(graphs, stage.manifest, sample, stage.scratch)
    stage.write(graphs, precision="int8")


def _refuse(graph: Kind, precision: Precision, calibrate: Path | None, *, branches: bool) -> None:
    """Raise ExportError for what cannot be together, or needs what is not installed."""
    if branches and graph != "shared":
        raise ExportError(f"a {graph} graph has no branches; leave one, or use the shared graph")
    if graph == "portable":
        check_portable()
    if graph == "static" and precision not in ("int8", "fp32"):
        raise ExportError("an NPU's graph is int8 or fp32; leave int4 to the shared graph")
    if (graph == "static" and precision == "int8") != (calibrate is not None):
        raise ExportError(
            "an int8 graph for NPUs, and no other, is calibrated; give a text with --calibrate"
        )


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


def traced(
    model: Any,
    kind: Kind,
    context: int,
    scratch: Path,
    progress: Progress,
    count: int,
    *,
    branches: bool = False,
) -> onnx.ModelProto:
    """The float graph, constants folded; ``count``: the tokens of a static one.

    ``branches``: see ``export_shared``. Raises ExportError.
    """
    if branches and (window := window_of(model.config.get_text_config(), context)):
        raise ExportError(
            f"its layers see {window} tokens back, which the graph counts by entries of the cache:"
            " with branches they would see too few; export it without"
        )
    static = kind == "static"
    progress(f"tracing the {kind} graph" + f" of {count} tokens" * static)
    try:
        with quiet():
            if kind == "shared":
                return export_shared(model, context, branches=branches)
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


def manifest_of(
    name: str,
    model: Any,
    words: Words,
    kind: Kind,
    context: int,
    buckets: list[int],
    *,
    branches: bool = False,
) -> Manifest:
    """What the device must know; precision, files and check are still to come."""
    config = model.config.get_text_config()
    shapes = cache_shapes(model)
    with quiet():  # what of it cannot be applied is the target's to say
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
        head_dim=padded(shapes[0][1]) if kind == "shared" else shapes[0][1],
        tokenizer_hash=tokenizer_hash(words.tokenizer),
        bos_token_id=words.id_of("bos_token"),
        eos_token_ids=list(facts.eos_ids),
        versions=_versions(),
        files={},
        check=None,
        buckets=buckets,
        chat_template=words.template,
        sampling=facts.sampling,
        tokens=words.tokens,
        branches=branches,
        least_onnxruntime=WINDOWS if kind == "shared" and window_of(config, context) else None,
    )


def _versions() -> dict[str, str]:
    """What made the bundle, of what is installed: some packages belong to one graph or format."""
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
