"""``draftlink timeline``: who wrote which token of a text, and when, as a plot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from draftlink.cli import plan_view
from draftlink.cli.common import Plot, app

# By the kinds of tokens; the two of a base station's own are told apart by what was proposed there.
WRITERS = {
    "draft": ("drafts", "C2"),
    "correction": ("base station, in the place of a wrong draft", "C1"),
    "bonus": ("base station", "C0"),
    "stream": ("base station", "C0"),
}


@app.command(
    epilog="Example: draftlink demo --json text.json; draftlink timeline text.json --plot text.png"
)
def timeline(
    result: Annotated[Path, typer.Argument(help="what --json of demo or device has written")],
    plot: Plot,
) -> None:
    """Plot who wrote which token of a text, and when."""
    assert plot is not None
    draw(read(result), plot)


def read(path: Path) -> dict[str, Any]:
    """A text's result. Raises ValueError where it is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kinds, times_s = found["kinds"], found["times_s"]
        fits = len(kinds) == len(times_s) and set(kinds) <= set(WRITERS)
        if not fits or not all(isinstance(at, int | float) for at in times_s):
            raise ValueError
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path} is no text's result; have `draftlink device --json {path}` write one"
        ) from None
    assert isinstance(found, dict)
    return found


def draw(result: dict[str, Any], path: Path) -> None:
    """A step for each token, coloured by its writer. Raises FileError."""
    figure = plan_view.new_figure(5.0)
    axes = figure.subplots()
    kinds: Sequence[str] = result["kinds"]
    times_s: Sequence[float] = result["times_s"]
    axes.step(times_s, range(1, len(kinds) + 1), where="post", color="0.8", zorder=1)
    labelled = set[str]()
    for kind, (label, colour) in WRITERS.items():
        places = [place for place, one in enumerate(kinds) if one == kind]
        if places:
            axes.scatter(
                [times_s[place] for place in places],
                [place + 1 for place in places],
                s=14,
                color=colour,
                label=None if label in labelled else label,
                zorder=2,
            )
            labelled.add(label)
    drafts = kinds.count("draft") / len(kinds) if kinds else 0.0
    axes.set(
        xlabel="seconds since the text was asked for",
        ylabel="tokens of the text",
        title=f"{result.get('scheme', '')}, {result.get('mode', '')}: drafts wrote {drafts:.0%}",
    )
    if labelled:
        axes.legend()
    axes.grid(alpha=0.3)
    plan_view.save(figure, path)
