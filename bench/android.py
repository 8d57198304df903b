"""The JVM's draft against Python's: a forward, and the work beside it, in turns on one machine.

    python -m bench.android [--bundle DIR] [--threads 1] [--turns 10] [--json FILE]

Both draft blocks of four tokens behind the same 128 tokens with the same bundle, each in its own
process, one at a time: Python, the JVM, Python, and so on. A forward is a bare one of a token; the
work beside it is what the drafted token takes beyond that (distribution, draw, the payload's
share). Python's weights stay in pages of 4 KB here, as the JVM's do. Needs Maven and a JDK, as
``tests/test_android.py`` does. Without ``--bundle``: the embedded draft.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.step import started
from device_runtime.drafting.drafter import Drafter
from device_runtime.model import pages
from device_runtime.model.bundle import Bundle, load_bundle
from device_runtime.model.draft_model import DraftModel
from draftlink.distribution import noise
from draftlink.distribution.sampling import Sampling
from draftlink.schemes import AnyScheme, topk
from draftlink.schemes.coupled import Coupled
from tinypair.loopback import draft_bundle

DEMO = Path(__file__).parent.parent / "android_demo"
CONTEXT, GAMMA, REPEATS = 128, 4, 20
RUNS: dict[str, tuple[AnyScheme, float]] = {
    "greedy": (Coupled(), 0.0),
    "coupled": (Coupled(), 0.8),
    "topk": (topk.usual(), 0.8),
}
MOST_FORWARD, MOST_BESIDE = 1.1, 2.0
Times = dict[str, dict[str, list[float]]]  # by run: "forward" and "whole", in seconds a token


class PythonDrafts:
    """Python's side of a turn."""

    def __init__(self, bundle: Bundle, threads: int, history: list[int]) -> None:
        pages.HUGE_PAGES = Path(os.devnull)  # no page of 2 MB is asked for
        self._model = DraftModel(bundle, threads=threads)
        self._history = history
        size = self._model.vocab_size
        self._drafters = {
            name: Drafter(
                self._model, started(scheme, Sampling(temperature)), size,
                noise.key_from_seed(1, "device"),
            )
            for name, (scheme, temperature) in RUNS.items()
        }  # fmt: skip

    def turn(self) -> Times:
        """Drafts and bare forwards of the same tokens, by turns."""
        return {name: self._times(drafter) for name, drafter in self._drafters.items()}

    def _times(self, drafter: Drafter) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {"forward": [], "whole": []}
        model, history = self._model, self._history
        drafter.rollback(0)
        model.forward(history[:-1])
        for repeat in range(-1, REPEATS):  # the first lets the id model learn the history
            drafter.rollback(CONTEXT - 1)
            begun = time.perf_counter()
            drafted = [one.drafted for one in drafter.propose(list(history), GAMMA, CONTEXT)]
            drafter.encode(history, drafted)
            ended = time.perf_counter()
            drafter.rollback(CONTEXT - 1)
            again = time.perf_counter()
            for token in [history[-1], *(one.token for one in drafted[:-1])]:
                model.forward([token])
            if repeat >= 0:
                found["whole"].append((ended - begun) / GAMMA)
                found["forward"].append((time.perf_counter() - again) / GAMMA)
        return found


class JvmDrafts:
    """The JVM's side: a test of the client's own, which waits for its turns."""

    def __init__(self, folder: Path) -> None:
        for name in ("turn", "turned"):
            os.mkfifo(folder / name)
        self._turn = os.open(folder / "turn", os.O_RDWR)  # which waits for nobody
        self._turned = os.open(folder / "turned", os.O_RDWR | os.O_NONBLOCK)
        options = ["-Dtest=PaceTest", f"-Ddraftlink.vectors={folder}"]
        self._process = subprocess.Popen(["mvn", "-o", "-q", "-B", "test", *options], cwd=DEMO)

    def turn(self) -> Times:
        """As Python's. Raises SystemExit where it does not build, or fails."""
        os.write(self._turn, b"go\n")
        said = b""
        while not said.endswith(b"\n"):
            if self._process.poll() is not None:
                raise SystemExit("the JVM's side ended: see what Maven says")
            try:
                said += os.read(self._turned, 1 << 16)
            except BlockingIOError:
                time.sleep(0.01)
        found: Times = json.loads(said)
        return found

    def close(self) -> None:
        """Let it end."""
        os.write(self._turn, b"stop\n")
        self._process.wait()
        os.close(self._turn)
        os.close(self._turned)


def medians(turns: list[Times], run: str) -> tuple[float, float]:
    """Milliseconds of a forward, and of what a drafted token takes beside it."""
    forward, whole = (
        statistics.median([value for turn in turns for value in turn[run][kind]])
        for kind in ("forward", "whole")
    )
    return forward * 1e3, (whole - forward) * 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    bundle = load_bundle(options.bundle or draft_bundle(Console(stderr=True)))
    history = np.random.default_rng(0).integers(1, min(8000, bundle.manifest.vocab_size), CONTEXT)
    ours = PythonDrafts(bundle, options.threads, history.tolist())
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        runs = [
            {"name": name, "scheme": msgspec.to_builtins(scheme), "temperature": temperature}
            for name, (scheme, temperature) in RUNS.items()
        ]
        asked: dict[str, Any] = {
            "bundle": str(bundle.path), "threads": options.threads, "history": history.tolist(),
            "gamma": GAMMA, "repeats": REPEATS, "runs": runs,
        }  # fmt: skip
        (folder / "pace.json").write_text(json.dumps(asked))
        told: dict[str, list[Times]] = {"Python": [], "JVM": []}
        theirs = JvmDrafts(folder)
        try:
            theirs.turn()  # compiled as it runs, it is slow at first
            for _ in range(options.turns):
                told["Python"].append(ours.turn())
                told["JVM"].append(theirs.turn())
        finally:
            theirs.close()
    title = f"a drafted token, context {CONTEXT}, {options.threads} threads"
    columns = ("forward, ms: Python", "JVM", "ratio", "beside it, ms: Python", "JVM", "ratio")
    table = Table("scheme", *columns, title=title)
    kept = True
    for run in RUNS:
        (python, python_beside), (java, java_beside) = (medians(told[who], run) for who in told)
        ratios = java / python, java_beside / python_beside
        kept &= ratios[0] <= MOST_FORWARD and ratios[1] <= MOST_BESIDE
        table.add_row(run, f"{python:.2f}", f"{java:.2f}", f"{ratios[0]:.2f}",
                      f"{python_beside:.3f}", f"{java_beside:.3f}", f"{ratios[1]:.2f}")  # fmt: skip
    console.print(table)
    console.print(
        f"a forward at most {MOST_FORWARD}, the work beside it at most {MOST_BESIDE} times"
        f" Python's: {'yes' if kept else 'no'}"
    )
    if options.json:
        options.json.write_text(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
