"""A bundle in the making: its folder, what its manifest will say, and the checks on the way."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import onnx

from bs_runtime.checkpoint.config import window_of
from device_runtime.model.bundle import GRAPH, Bundle, BundleError, Check, Manifest, digest
from device_runtime.model.draft_model import DraftModel
from export import ExportError, check, first_line, npu, quantize

Progress = Callable[[str], None]
Traced = dict[int, onnx.ModelProto]  # graphs by the tokens that they are fed at once


# How far a step that begins so is into an export, of small models on two cores.
SHARES = {
    "loading": 0.0,
    "tracing": 0.03,
    "checking fp32": 0.12,
    "writing": 0.2,
    "calibrating": 0.35,
    "rescaling": 0.4,
    "measuring what": 0.5,
    "reckoning": 0.55,
    "measuring a": 0.7,
    "rounding": 0.85,
    "checking": 0.95,
}


def share(step: str) -> float:
    """How far into an export a step is that was told, between 0 and 1."""
    known = [start for start in SHARES if step.startswith(start)]
    return SHARES[max(known, key=len)] if known else 0.0


class Stage:
    """``folder`` has the tokenizer, and the graphs that were written last."""

    def __init__(self, folder: Path, scratch: Path, manifest: Manifest, progress: Progress) -> None:
        self.folder, self.scratch, self.progress = folder, scratch, progress
        self.manifest = manifest

    def write(self, graphs: Traced, **said: Any) -> None:
        """Put these graphs in the place of those before; ``said``: of the manifest, anew."""
        for path in self.folder.glob(f"{Path(GRAPH).stem}*"):
            path.unlink()
        if self.manifest.buckets:
            npu.write(graphs, self.folder)
        else:
            quantize.write(graphs[1], self.folder / GRAPH)
        files = {path.name: digest(path) for path in sorted(self.folder.iterdir())}
        self.manifest = msgspec.structs.replace(self.manifest, files=files, **said)

    def open(self, threads: int | None = 1) -> DraftModel:
        """The draft as it is by now. Raises ExportError for a graph that does not load.

        ``threads``: where None as many as are the fastest by now, as on a device.
        """
        precision, kind = self.manifest.precision, self.manifest.graph
        try:
            return DraftModel(Bundle(self.folder, self.manifest), threads=threads)
        except BundleError as error:
            raise ExportError(f"the {precision} {kind} graph does not load: {error}") from error

    def check(self, model: Any, ids: Sequence[int], text: str) -> Check:
        """The passed check of the graph as it is by now. Raises ExportError for a failed one."""
        precision, kind = self.manifest.precision, self.manifest.graph

        def tell(position: int) -> None:
            self.progress(f"checking {precision} against PyTorch, {position} of {len(ids)} tokens")

        draft = self.open()
        window = window_of(model.config.get_text_config(), self.manifest.context)
        if precision != "fp32":
            window = None  # a rounding changes no mask
        try:
            result = check.compare(draft, model, ids, precision, text, tell, window)
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise ExportError(
                f"the {precision} {kind} graph does not run: {first_line(error)}"
            ) from error
        if not result.passed:
            raise self.failed(
                f"overlap {result.overlap:.4f}, largest logit difference"
                f" {result.max_logit_difference:.2g}, after a rollback"
                f" {result.rollback_difference:.2g}"
            )
        return result

    def failed(self, why: str) -> ExportError:
        """What says that the graph is broken."""
        precision, kind = self.manifest.precision, self.manifest.graph
        told = f"the {precision} {kind} graph does not match PyTorch ({why}); nothing was written"
        if (precision, kind) == ("fp32", "shared"):
            # GroupQueryAttention may lack what a model's own has, which standard operators keep.
            told += "; --graph portable may have what this graph leaves out"
        return ExportError(told)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters and the quantizer tell one line per node; the caller wants one per step.

    What goes wrong they raise, too; torch prints the graph as far as it came to stderr besides.
    """
    logging.disable(logging.ERROR)
    none = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(none),
            contextlib.redirect_stderr(none),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
