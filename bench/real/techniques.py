"""What each way to round a draft of one's own gives: ``python -m bench.quantize --model FOLDER``.

Graphs of real kernels, not simulations: for each way the overlap with float32 over the model's own
text, which none of them was calibrated on, megabytes, and milliseconds a token after 128, all in
turns of one process. What a row adds to the one before it is named.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args
from unittest import mock

import msgspec
import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from device_runtime.model.bundle import GRAPH, TOKENIZER, Bundle, Check
from device_runtime.model.draft_model import DraftModel
from export import calibrate, check, choose, prompts, quantize, rounder, smooth, source
from export.bundle import manifest_of, traced
from export.choose import SMOOTHED
from export.products import Product
from export.rounder import Rounder
from export.rounding import Codes, Rounding, block_for, nearest
from export.stage import Stage, quiet

READ, TURN, REPEATS = 128, 24, 15  # tokens before, tokens of a turn, turns of each
Coder = Callable[[Product], Codes | None]


Basis = Literal["given", "rescaled", "rotated"]  # the last one is rescaled, too


@dataclass(frozen=True)
class Way:
    """A row of the table."""

    title: str
    basis: Basis
    gptq: bool
    recipe: Callable[[Rounder], rounder.Recipe]


def in_blocks(bits: int, block: int, wide: int | None = None) -> Callable[[Rounder], Any]:
    """All products in so many bits; ``wide``: those that take more than they give."""

    def recipe(made: Rounder) -> rounder.Recipe:
        return {
            one.name: Rounding(
                8 if one.tied or made.is_head(one) else bits,
                block_for(one.shape[1], (wide or block) if one.wide else block),
                bits == 4 and not one.tied and not made.is_head(one),
            )
            for one in made.products
        }

    return recipe


def four(block: int) -> Callable[[Rounder], Any]:
    """``rounder.four`` in other blocks."""

    def recipe(made: Rounder) -> rounder.Recipe:
        return {
            name: replace(one, block=block) if one.bits == 4 else one
            for name, one in rounder.four(made).items()
        }

    return recipe


WAYS = (
    Way("8 bits, blocks of 256", "given", False, in_blocks(8, 256)),
    Way("8 bits, down in 64", "given", False, in_blocks(8, 256, 64)),
    Way("8 bits, all in 32", "given", False, in_blocks(8, 32)),
    Way("8 bits, blocks of 256, rescaled", "rescaled", False, in_blocks(8, 256)),
    Way("8 bits, down in 64, rescaled", "rescaled", False, in_blocks(8, 256, 64)),
    Way("8 bits, all in 32, rescaled", "rescaled", False, in_blocks(8, 32)),
    Way("int8: rescaled, head rotated", "rotated", False, rounder.eight),
    Way("8 bits, all in 32, rescaled, head rotated", "rotated", False, in_blocks(8, 32)),
    Way("4 bits by kind, nearest, as given", "given", False, rounder.four),
    Way("4 bits by kind, GPTQ, as given", "given", True, rounder.four),
    Way("4 bits by kind, GPTQ, rescaled", "rescaled", True, rounder.four),
    Way("4 bits by kind, GPTQ, rescaled, head rotated", "rotated", True, rounder.four),
    Way("4 bits by kind in blocks of 64", "rotated", True, four(64)),
    Way("int4: as many bytes by matrix", "rotated", True, partial(choose.fixed, "int4")),
    Way("4 bits in 32, head in 8, rescaled, GPTQ", "rotated", True, in_blocks(4, 32)),
)


def run(model: str, context: int, texts: int, path: Path | None) -> None:
    """Print the table."""
    console = Console()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        with console.status("tracing and calibrating"):
            rows, logits, made, stage = _prepared(model, context, home)
        rows = rows[:texts]
        drafts: list[DraftModel] = []
        found: list[dict[str, Any]] = []
        for index, way in enumerate(WAYS):
            with console.status(way.title):
                bundle = _bundle(way, made[way.basis], stage, home / f"way-{index}")
                drafts.append(DraftModel(bundle, threads=2))
                overlaps = check.overlaps(drafts[-1], rows, logits[: sum(map(len, rows))])[0]
            mean, error = check.mean(overlaps)
            size = sum(file.bytes for file in bundle.manifest.files.values())
            found.append({"way": way.title, "overlap": mean, "error": error, "bytes": size})
        for one, seconds in zip(found, interleaved(drafts), strict=True):
            one["seconds"] = seconds
    table = Table("weights", "Σ min(p, q)", "MB", "ms a token", "of the first",
                  title=f"{model}: {sum(map(len, rows))} positions")  # fmt: skip
    for one in found:
        table.add_row(
            str(one["way"]), f"{one['overlap']:.4f} ± {one['error']:.4f}",
            f"{one['bytes'] / 1e6:.1f}", f"{1e3 * one['seconds']:.2f}",
            f"{one['seconds'] / found[0]['seconds']:.2f}",
        )  # fmt: skip
    console.print(table)
    if path:
        path.write_text(json.dumps({"model": model, "ways": found}, indent=2) + "\n")


def _prepared(
    model: str, context: int, home: Path
) -> tuple[list[list[int]], Any, dict[Basis, Rounder], Stage]:
    """Texts to measure on and the float logits along them; the float graph, rescaled and not."""
    loaded, words = source.load(model)
    folder = home / "float"
    folder.mkdir()
    graph = traced(loaded, "shared", context, home, lambda step: None, 1)
    manifest = manifest_of(Path(model).name, loaded, words, "shared", context, [])
    stage = Stage(folder, home, manifest, lambda step: None)
    (folder / TOKENIZER).write_text(words.tokenizer.to_str(), encoding="utf-8")
    stage.write({1: graph})
    begun = [*prompts.CALIBRATION, *prompts.CHECK]
    with quiet():
        rows = calibrate.own_text(loaded, words, begun, context, calibrate.TOKENS)
    learned, rows = rows[: len(prompts.CALIBRATION)], rows[len(prompts.CALIBRATION) :]
    logits = check.reference(loaded, rows, home / "logits.npy")
    made: dict[Basis, Rounder] = {}
    for basis in get_args(Basis):
        place = home / basis
        place.mkdir()
        one = onnx.load(folder / GRAPH)
        sample = calibrate.sample(folder / GRAPH, loaded, learned, len(learned), place)
        turns = smooth.TURNS if basis == "rotated" else (False,)
        if basis != "given":
            with mock.patch.object(smooth, "TURNS", turns):
                smooth.smooth(one, sample, *SMOOTHED)
        quantize.write(one, place / GRAPH)
        made[basis] = Rounder(place / GRAPH, sample)
    return rows, logits, made, stage


def _bundle(way: Way, made: Rounder, stage: Stage, folder: Path) -> Bundle:
    folder.mkdir()
    recipe = way.recipe(made)
    if way.gptq:
        model = made.rounded(recipe)
    else:
        model = onnx.load(made.graph)
        quantize.quantize(model, lambda one: nearest(one.weight, recipe[one.name]))
    (folder / TOKENIZER).write_bytes((stage.folder / TOKENIZER).read_bytes())
    one = Stage(folder, folder, stage.manifest, lambda step: None)
    one.write({1: model}, check=Check(True, 1, 0.0, 1.0, 1.0, 0.0, ""))
    return Bundle(folder, msgspec.structs.replace(one.manifest))


def interleaved(drafts: list[DraftModel]) -> list[float]:
    """Seconds a token of each: medians of turns that alternate."""
    rng = np.random.default_rng(0)
    times: list[list[float]] = [[] for _ in drafts]
    ids = rng.integers(1, min(8000, drafts[0].vocab_size), READ + TURN).tolist()
    for draft in drafts:
        draft.rollback(0)
        draft.forward(ids[:READ])
    for _ in range(REPEATS):
        for draft, known in zip(drafts, times, strict=True):
            draft.forward(ids[READ : READ + 1])  # what others used is out of the caches again
            begun = time.perf_counter()
            for token in ids[READ + 1 :]:
                draft.forward([token])
            known.append((time.perf_counter() - begun) / (TURN - 1))
            draft.rollback(READ)
    return [statistics.median(known) for known in times]
