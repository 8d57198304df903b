"""From a checked float graph to the one that is shipped: rescaled, calibrated, rounded, chosen."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray

from bs_runtime.checkpoint.words import Words
from device_runtime.model import measure
from device_runtime.model.bundle import GRAPH, Check, KernelCount, Quantization, Trial
from device_runtime.model.costs import Costs, Kernel
from device_runtime.model.draft_model import DraftModel
from draftlink.link import shaping
from draftlink.planning import plan as planning
from export import calibrate, check, faults, front, prompts, rounder, smooth, source
from export.front import Plan, Point
from export.rounder import Rounder
from export.stage import Stage, quiet

Precision = Literal["auto", "fp32", "int8", "int4"]
Effort = Literal["low", "normal"]
SMOOTHED = (8, 64)  # bits and block that channels are rescaled for
FORWARDS = 9  # that a point is timed by
AGAIN = 32  # tokens that the rescaled float graph is checked on
# Where nobody has stated a target's time and a link: those of `draftlink plan`.
SETTING = planning.Setting(0.8, 0.01, 0.045, 0.045, shaping.profile("wifi"))


@dataclass(frozen=True)
class Work:
    """What an effort buys. Of texts the counts are those of each use."""

    tokens: int  # that are written after a prompt
    graded: int  # texts that losses are reckoned along, of those to calibrate on
    searched: int  # that a point is measured on
    checked: int
    pairs: int  # of exponents that channels are rescaled by
    careful: bool  # losses are those of the codes that are shipped
    points: int  # of the front that are made and measured


def work(effort: Effort) -> Work:
    """By effort. (Tests write less.)"""
    if effort == "low":
        return Work(calibrate.TOKENS // 2, 4, 4, 8, 3, False, 3)
    return Work(calibrate.TOKENS, 8, 8, 8, len(smooth.EXPONENTS), True, 7)


@dataclass(frozen=True)
class Asked:
    """By what a rounding is chosen."""

    effort: Effort = "normal"
    costs: Costs | None = None  # of the device; measured here where None
    # The link and the target, where one is given. (A point's own acceptance and time are put in.)
    setting: planning.Setting = SETTING


@dataclass(frozen=True)
class Judge:
    """Texts, and a model's logits along them, against which drafts are held."""

    rows: Sequence[Sequence[int]]
    logits: NDArray[np.float32]

    def overlaps(self, draft: DraftModel) -> NDArray[np.float64]:
        """See ``check.overlaps``."""
        return check.overlaps(draft, self.rows, self.logits)


def rounded(
    stage: Stage,
    loaded: Any,
    words: Words,
    precision: Precision,
    asked: Asked,
    own: tuple[Sequence[int], str] | None,
    target: str | Path | None,
) -> Check:
    """Put the rounded graph in the place of the float one on the ``stage``; its check.

    ``own``: ids to check on and what they are called, instead of the draft's own text. Raises
    ExportError.
    """
    does = work(asked.effort)
    rows, searched, checked = _texts(stage, loaded, words, does, precision == "auto")
    bench = _rescaled(stage, loaded, rows, does)
    draft_rows, said = (checked, "its own") if own is None else ([own[0]], own[1])
    judge = _judge(loaded, draft_rows, stage.scratch / "check.npy")
    verifier = None
    if target is not None:
        stage.progress(f"loading {target}")
        verifier = source.load(target)[0]
        _, searched, target_rows = _texts(stage, verifier, words, does, precision == "auto")
        against = _judge(verifier, target_rows, stage.scratch / "target.npy")
        of_float = _float_overlaps(loaded, against, stage.scratch)
    if precision == "auto":
        by = _judge(verifier or loaded, searched, stage.scratch / "search.npy")
        recipe, told = Chooser(bench, by, stage, asked, target is not None).choose()
    else:
        if precision == "int4":
            stage.progress("reckoning what roundings cost")
        recipe = fixed(precision, bench, does.careful)
        told = Quantization(_counted(recipe), [], None)
    stage.progress(f"rounding to {precision}")
    _put(stage, bench, recipe, precision)
    stage.manifest = msgspec.structs.replace(stage.manifest, quantization=told)
    result = _checked(stage, loaded, judge, said)
    if target is None:
        return result
    accepted, error = check.mean(against.overlaps(stage.open(None))[0])
    return msgspec.structs.replace(
        result, float_acceptance=of_float, acceptance=accepted, acceptance_error=error
    )


def fixed(precision: Precision, made: Rounder, careful: bool = True) -> rounder.Recipe:
    """The recipe of ``--precision int8`` and ``int4``, which no costs are needed for.

    8 bits: ``rounder.eight``. 4 bits: as many bytes as ``rounder.four`` takes, in 4 and 8 bits
    where they lose the least. A few layers, the first ones mostly, lose ten times what others do.
    """
    if precision == "int8":
        return rounder.eight(made)
    table = {one.name: front.options(made, one, None, careful) for one in made.products}
    return front.within(table, rounder.size(made, rounder.four(made))).recipe


def _texts(
    stage: Stage, model: Any, words: Words, does: Work, searching: bool
) -> list[list[list[int]]]:
    """A model's own texts to calibrate, to search (if that is done) and to check on."""
    stage.progress("writing texts to calibrate and to check on")
    searched = prompts.SEARCH[: does.searched] if searching else ()
    kinds = (prompts.CALIBRATION, searched, prompts.CHECK[: does.checked])
    begun = [one for kind in kinds for one in kind]
    with quiet():
        made = iter(calibrate.own_text(model, words, begun, stage.manifest.context, does.tokens))
    return [[next(made) for _ in kind] for kind in kinds]


def _judge(model: Any, rows: Sequence[Sequence[int]], path: Path) -> Judge:
    return Judge(rows, check.reference(model, rows, path))


def _float_overlaps(loaded: Any, against: Judge, scratch: Path) -> float:
    """What the target accepts of the float draft, in PyTorch."""
    given = check.reference(loaded, against.rows, scratch / "float.npy")
    return float(np.mean([check.overlap(p, q) for p, q in zip(against.logits, given, strict=True)]))


def _rescaled(stage: Stage, loaded: Any, rows: Sequence[Sequence[int]], does: Work) -> Rounder:
    """The float graph with its channels rescaled, checked, and what it was fed with.

    Its files move into the scratch folder: others will be in their place.
    """
    stage.progress("calibrating")
    graph = stage.folder / GRAPH
    sample = calibrate.sample(graph, loaded, rows, does.graded, stage.scratch)
    model = onnx.load(graph)
    stage.progress("rescaling channels")
    smooth.smooth(model, sample, *SMOOTHED, does.pairs)
    stage.write({1: model})
    stage.check(loaded, rows[0][:AGAIN], "its own")
    kept = stage.scratch / "float"
    kept.mkdir()
    for path in stage.folder.glob(f"{graph.stem}*"):
        path.rename(kept / path.name)
    return Rounder(kept / GRAPH, sample)


def _put(
    stage: Stage, bench: Rounder, recipe: rounder.Recipe, precision: Precision = "auto"
) -> None:
    """The graph by a recipe on the stage. Raises ExportError where its weights are others."""
    model = bench.rounded(recipe)
    bits = {one.bits for one in recipe.values()}
    chosen = "mixed" if len(bits) > 1 else f"int{bits.pop()}"
    moved = faults.moved(model, bench.projections)
    stage.write({1: model}, precision=chosen if precision == "auto" else precision)
    if moved and (most := max(moved.values())) > check.MOST_MOVED:
        raise stage.failed(f"weights differ from the float ones by {most:.0%}")


def _checked(stage: Stage, loaded: Any, judge: Judge, text: str) -> Check:
    """The check of a rounded graph. Raises ExportError where it is broken."""
    result = stage.check(loaded, judge.rows[0][: check.POSITIONS], text)
    overlaps, same = judge.overlaps(stage.open(None))
    mean, error = check.mean(overlaps)
    return msgspec.structs.replace(
        result, positions=len(overlaps), overlap=mean, overlap_error=error,
        top1_agreement=float(same.mean()),
    )  # fmt: skip


class Chooser:
    """Finds the recipe to ship."""

    def __init__(
        self, bench: Rounder, judge: Judge, stage: Stage, asked: Asked, has_target: bool
    ) -> None:
        self._rounder, self._judge, self._stage = bench, judge, stage
        self._asked, self._has_target = asked, has_target
        self._beyond_s: list[float] = []  # what drafts took here beyond what was reckoned

    def choose(self) -> tuple[rounder.Recipe, Quantization]:
        """The recipe, and what the manifest says of it."""
        does = work(self._asked.effort)
        costs = self._asked.costs or self._measured_costs()
        self._stage.progress("reckoning what roundings cost")
        known = self._rounder.products
        table = {one.name: front.options(self._rounder, one, costs, does.careful) for one in known}
        found = front.plans(table, costs.node_s * self._rounder.other_nodes)
        points = front.measured(found, does.points, self._point)
        if self._asked.costs is None:
            costs, points = self._corrected(costs, points)
        best = max(points, key=self._rate) if self._has_target else front.default(points)
        trials = [
            Trial(p.overlap, p.error, p.plan.seconds, p.plan.bytes, _counted(p.plan.recipe))
            for p in points
        ]
        return best.plan.recipe, Quantization(_counted(best.plan.recipe), trials, costs)

    def _measured_costs(self) -> Costs:
        shapes = {one.shape for one in self._rounder.products if one.source}
        weights = sum(rows * width for rows, width in shapes)
        self._stage.progress("measuring what products cost here")
        return measure.measure(shapes, read_bytes=min(measure.READ_BYTES, 8 * weights))

    def _point(self, plan: Plan) -> Point:
        self._stage.progress(f"measuring a draft of {plan.seconds * 1e3:.2f} ms a token")
        _put(self._stage, self._rounder, plan.recipe)
        draft = self._stage.open(None)
        self._beyond_s.append(_seconds(draft) - plan.seconds)
        return Point(plan, *check.mean(self._judge.overlaps(draft)[0]))

    def _corrected(self, costs: Costs, points: list[Point]) -> tuple[Costs, list[Point]]:
        """With other nodes as dear as whole drafts say: attention is one, and no small sum.

        All plans take the same more, so that their order stays.
        """
        before, others = costs.node_s, max(1, self._rounder.other_nodes)
        after = max(0.0, before + float(np.median(self._beyond_s)) / others)
        more = (after - before) * others
        moved = [replace(p, plan=replace(p.plan, seconds=p.plan.seconds + more)) for p in points]
        return msgspec.structs.replace(costs, node_s=after), moved

    def _rate(self, point: Point) -> float:
        """Expected tokens a second of the better of the modes that draft."""
        setting = replace(self._asked.setting, alpha=point.overlap, draft_s=point.plan.seconds)
        modes = planning.modes(setting.alpha, setting.costs())
        return max(mode.tokens_per_s for mode in modes if mode.mode != "stream")


def _seconds(draft: DraftModel) -> float:
    """What a forward of one token takes here: the median of a few."""
    draft.rollback(0)
    times = []
    for _ in range(FORWARDS):
        begun = time.perf_counter()
        draft.forward([0])
        times.append(time.perf_counter() - begun)
    draft.rollback(0)
    return statistics.median(times)


def _counted(recipe: rounder.Recipe) -> list[KernelCount]:
    found: dict[Kernel, int] = {}
    for one in recipe.values():
        kernel = Kernel(one.bits, one.block, one.zero_points)  # type: ignore[arg-type]
        found[kernel] = found.get(kernel, 0) + 1
    return [KernelCount(kernel, count) for kernel, count in sorted(found.items())]
