"""The plot of decoding at equal acceptance, from the table that docs/benchmarks.md has of it.

    python -m bench.real.drawn [--out docs/fronts.png]

A run of ``bench.decode --plot`` draws its own; this one cannot differ from what is written down.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from bench.real import fronts
from bench.real.overlap import Overlap

PAGE = Path("docs/benchmarks.md")
CONTEXTS = (128, 1024)
# A row: who runs which form, Σ min(p, q) with its error, megabytes, and ms a token at each context.
ROW = re.compile(
    r"^\| (ours|llama\.cpp|onnxruntime-genai)[^|]*?(`?\w+`?)(?:, the default)?(?: \([^|]*\))?"
    r" \| ([\d.]+) ± ([\d.]+) \| (\d+) \| ([\d.]+) / ([\d.]+) \|$",
    re.MULTILINE,
)
KINDS = {"ours": fronts.OURS, "llama.cpp": "llama.cpp", "onnxruntime-genai": "genai"}


def points(text: str) -> list[fronts.Point]:
    """The table's rows in a page's text."""
    found = []
    for who, form, mean, error, megabytes, *times in ROW.findall(text):
        ms = dict(zip(CONTEXTS, map(float, times), strict=True))
        kept = Overlap(float(mean), float(error), 0, {})
        title = f"{KINDS[who]} {form.strip('`')}"
        found.append(fronts.Point(title, KINDS[who], kept, int(megabytes) * 1_000_000, ms, 0))
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("docs/fronts.png"))
    given = parser.parse_args()
    fronts.plot(points(PAGE.read_text(encoding="utf-8")), CONTEXTS, given.out)


if __name__ == "__main__":
    main()
