"""``draftlink report``: results as one page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from draftlink.cli import report_page
from draftlink.cli.common import app, err, writable
from draftlink.host import files

MOST_BYTES = 1 << 28


@app.command(
    epilog="Example: draftlink compare --json schemes.json; draftlink report schemes.json"
    " -o schemes.html"
)
def report(
    results: Annotated[
        list[Path], typer.Argument(help="what --json of a command or of a benchmark has written")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="page to write, HTML", callback=writable)
    ] = Path("report.html"),
    title: Annotated[str, typer.Option(help="of the page")] = "Draftlink: results",
) -> None:
    """One self-contained page from JSON results: plots and tables, for any browser."""
    from draftlink import __version__

    found = [(path.name, read(path)) for path in results]
    files.write(output, report_page.page(title, found, __version__).encode("utf-8", "replace"))
    err.say(f"{output}: {len(found)} result{'s' if len(found) > 1 else ''}")


def read(path: Path) -> Any:
    """A result. Raises ValueError where the file holds no JSON."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path} is larger than any result ({MOST_BYTES >> 20} MiB)")
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise ValueError(f"{path} holds no JSON; results are what --json writes") from None
