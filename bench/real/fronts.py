"""Decoding at equal acceptance: each runtime's forms of one model, Σ min against time and MB."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.plots import labels
from bench.real import forms, overlap, reference, texts
from bench.real.overlap import Overlap
from bench.runtimes import turns
from bench.runtimes.turns import Ask, Entry
from draftlink.host import files

OURS = "Draftlink"


@dataclass(frozen=True)
class Point:
    """A form of the model: what it keeps of the reference, what it takes, how large it is."""

    title: str
    kind: str
    overlap: Overlap
    bytes: int
    ms: dict[int, float]  # a token, by context
    peak_bytes: int


def entries(
    folder: Path, bundles: Sequence[Path] | None, context: int | None, threads: int,
    console: Console,
) -> list[Entry]:  # fmt: skip
    """Ours, and those of the peers that are installed."""
    own = list(bundles or ())
    for precision in () if bundles else forms.PRECISIONS:
        with console.status(f"exporting {precision}"):
            own.append(forms.bundle(folder, precision, context))
    found = [Entry(f"{OURS} {path.name}", OURS, path, threads) for path in own]
    if forms.has_llama_cpp():
        version = importlib.metadata.version("llama-cpp-python")
        for name in forms.FORMATS:
            with console.status(f"making {name}"):
                path = forms.gguf(folder, name)
            found.append(Entry(f"llama.cpp ({version}) {name}", "llama.cpp", path, threads))
    else:
        console.print("llama-cpp-python is not installed, and left out")
    if forms.has_genai():
        version = importlib.metadata.version("onnxruntime-genai")
        try:
            with console.status("making genai's int4"):
                found.append(Entry(f"genai {version} int4", "genai", forms.genai(folder), threads))
        except RuntimeError as error:
            console.print(f"{error}; left out")
    else:
        console.print("onnxruntime-genai (and onnx_ir) is not installed, and left out")
    return found


def reference_worker(pipe: Connection, folder: Path) -> None:
    """Answer ``turns.Rows`` with the float32 reference's rows."""
    model, _ = texts.load(folder)
    pipe.send(None)
    while order := pipe.recv():
        text = texts.Text("", order.ids, order.begin)
        np.save(order.out, overlap.rows_of(model, text), allow_pickle=False)
        pipe.send(None)


def overlaps(
    asks: Sequence[Ask], ask_reference: Ask, listed: Sequence[texts.Text], console: Console
) -> list[Overlap | None]:
    """What each of the processes keeps of the reference, over the same texts; None if it ended."""
    found: list[list[tuple[str, list[float]]]] = [[] for _ in asks]
    alive = list(enumerate(asks))
    with tempfile.TemporaryDirectory(prefix="draftlink-") as scratch:
        for number, text in enumerate(listed):
            paths = [Path(scratch, f"{place}.npy") for place in range(2)]
            ask_reference(turns.Rows(text.ids, text.begin, paths[0]))
            expected = np.load(paths[0], mmap_mode="r")
            for index, ask in list(alive):
                with console.status(f"text {number + 1} of {len(listed)}, {index + 1}"):
                    try:
                        ask(turns.Rows(text.ids, text.begin, paths[1]))
                    except turns.Ended as error:
                        console.print(f"{error}; left out")
                        alive.remove((index, ask))
                        continue
                    own = np.load(paths[1], mmap_mode="r")[:, : expected.shape[1]]
                    found[index].append((text.kind, overlap.of_rows(expected, own)))
    there = {index for index, _ in alive}
    return [overlap.summary(each) if at in there else None for at, each in enumerate(found)]


def kept(
    folder: Path, found: Sequence[Entry], listed: Sequence[texts.Text], console: Console
) -> list[Overlap | None]:
    """The same of each form, measured once: it lies in the reference's folder from then on."""
    begun = hashlib.sha256(msgspec.json.encode(list(listed)))
    paths = [folder / "overlaps" / f"{_digest(entry, begun.copy())}.json" for entry in found]
    missing = [at for at, path in enumerate(paths) if not path.exists()]
    if missing:
        paths[0].parent.mkdir(exist_ok=True)
        with turns.process(reference_worker, folder) as ask_reference, ExitStack() as stack:
            asks = [_asked(stack, found[at]) for at in missing]
            new = overlaps(asks, ask_reference, listed, console)
        for at, one in zip(missing, new, strict=True):
            if one is not None:
                files.write(paths[at], msgspec.json.encode(one))
    return [
        msgspec.json.decode(path.read_bytes(), type=Overlap) if path.exists() else None
        for path in paths
    ]


def _digest(entry: Entry, begun: Any) -> str:
    """SHA-256 (hex) of what ``begun`` has seen, who runs a form, and the form's files."""
    begun.update(entry.title.rpartition(" ")[0].encode())  # with its version
    for path in [entry.path] if entry.path.is_file() else sorted(entry.path.iterdir()):
        with path.open("rb") as file:
            begun.update(hashlib.file_digest(file, "sha256").digest())
    digest: str = begun.hexdigest()
    return digest


def _asked(stack: ExitStack, entry: Entry) -> Ask:
    """A process for an entry."""
    process = turns.process(turns.worker, entry.kind, entry.path, entry.threads, title=entry.title)
    return stack.enter_context(process)


def measure(options: argparse.Namespace, contexts: Sequence[int], console: Console) -> list[Point]:
    """All points: first what is kept, then the times, in one run of turns."""
    folder = reference.folder(options.model)
    with console.status("writing the texts"):
        listed = texts.of(folder, **(overlap.SHORT if options.short else {}))
    found = entries(folder, options.bundles, options.context, options.threads, console)
    known = kept(folder, found, listed, console)
    keep = [one for one in known if one is not None]
    found = [entry for entry, one in zip(found, known, strict=True) if one is not None]
    fits = [[c for c in contexts if c + turns.TOKENS + 1 < _context(entry)] for entry in found]
    taken = []
    with ExitStack() as stack:
        asks = [_asked(stack, entry) for entry in found]
        for repeat in range(options.repeats):
            with console.status(f"turn {repeat + 1} of {options.repeats}"):
                taken.append(turns.interleaved(asks, fits))
        peaks = [ask(turns.Peak()) for ask in asks]
    times = turns.medians(taken) if taken else [{} for _ in found]
    return [
        Point(entry.title, entry.kind, one, entry.bytes, {c: 1e3 * s for c, s in own.items()}, peak)
        for entry, one, own, peak in zip(found, keep, times, peaks, strict=True)
    ]


def _context(entry: Entry) -> float:
    """Tokens that an entry's cache holds: stated by our bundles, and enough in the others."""
    if entry.kind != OURS:
        return float("inf")
    from device_runtime.model.bundle import load_bundle

    return load_bundle(entry.path).manifest.context


def ahead(points: Sequence[Point], peer: Point, cost: str, context: int) -> Point | None:
    """Ours with at least the peer's overlap at no more of the ``cost``, one of them better.

    ``cost``: "ms", at ``context``, or "bytes". Of several the one that keeps most.
    """

    def of(point: Point) -> float:
        return point.ms[context] if cost == "ms" else float(point.bytes)

    better = [
        point
        for point in points
        if point.kind == OURS
        and (cost != "ms" or context in point.ms)  # not where its cache is shorter
        and point.overlap.mean >= peer.overlap.mean
        and of(point) <= of(peer)
        and (point.overlap.mean > peer.overlap.mean or of(point) < of(peer))
    ]
    return max(better, key=lambda point: point.overlap.mean, default=None)


def table(points: Sequence[Point], contexts: Sequence[int], repeats: int) -> Table:
    """A row a point; of each peer, which of ours is ahead of it."""
    out = Table(
        "", "Σ min(p, q)", *texts.KINDS, "MB", *(f"ms at {c}" for c in contexts),
        *(f"ahead at {c}" for c in contexts), "ahead in MB",
        title=f"{points[0].overlap.positions} positions; medians of {repeats} turns",
    )  # fmt: skip
    for point in points:
        beaten = [""] * (len(contexts) + 1)
        if point.kind != OURS:
            by = [ahead(points, point, "ms", c) if c in point.ms else None for c in contexts]
            by.append(ahead(points, point, "bytes", 0))
            beaten = ["none of ours" if one is None else one.title for one in by]
        out.add_row(
            point.title, str(point.overlap),
            *(f"{point.overlap.kinds[kind]:.3f}" for kind in texts.KINDS),
            f"{point.bytes / 1e6:.0f}",
            *(f"{point.ms[c]:.2f}" if c in point.ms else "–" for c in contexts), *beaten,
        )  # fmt: skip
    return out


def plot(points: Sequence[Point], contexts: Sequence[int], path: Path) -> None:
    """Σ min(p, q) against the time of a token, a panel a context, and against MB."""
    drawn(points, contexts).savefig(path)


def drawn(points: Sequence[Point], contexts: Sequence[int]) -> Any:
    """The figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * (len(contexts) + 1), 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(contexts) + 1)
    for axis, context in zip(axes, (*contexts, None), strict=True):
        for kind in dict.fromkeys(point.kind for point in points):
            own = [p for p in points if p.kind == kind and (context is None or context in p.ms)]
            kept, errors = [p.overlap.mean for p in own], [p.overlap.error for p in own]
            costs = [_cost(p, context) for p in own]
            axis.errorbar(costs, kept, errors, fmt="o", label=kind, capsize=2)
        axis.set_xlabel("MB" if context is None else f"ms a token at {context} cached")
        axis.margins(0.12)
    axes[0].set_ylabel("Σ min(p, q) with the float32 reference")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    for axis, context in zip(axes, (*contexts, None), strict=True):
        here = [p for p in points if context is None or context in p.ms]
        named = [(_cost(p, context), p.overlap.mean, p.title.split(" ")[-1]) for p in here]
        bars = [(_cost(p, context), p.overlap.mean + off * p.overlap.error)
                for p in here for off in (-1.0, -0.5, 0.5, 1.0)]  # fmt: skip
        labels.beside(axis, named, bars)
    return figure


def _cost(point: Point, context: int | None) -> float:
    """Milliseconds at a context; megabytes where none is given."""
    return point.bytes / 1e6 if context is None else point.ms[context]


def compare(
    options: argparse.Namespace, contexts: Sequence[int], console: Console
) -> dict[str, Any]:
    """Print the table, plot the fronts where that is asked for; the figures."""
    points = measure(options, contexts, console)
    console.print(table(points, contexts, options.repeats))
    if options.plot:
        plot(points, contexts, options.plot)
    return {"model": str(options.model), "points": [asdict(point) for point in points]}
