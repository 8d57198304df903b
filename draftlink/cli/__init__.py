"""The command line. Each command imports what it needs, so that a device needs no torch."""

from __future__ import annotations

import os
import sys

from rich.markup import escape

# Each registers its commands.
from draftlink.cli import links, loopback, models  # noqa: F401
from draftlink.cli.common import app, err


def main() -> None:
    """Run a command: exit code 0, 1 (failed, one line that says what to do) or 2 (usage)."""
    # Both libraries talk on stderr by default; a command's own lines are the interface.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        err.print(f"[red]error:[/red] {escape(str(error) or type(error).__name__)}", soft_wrap=True)
        sys.exit(1)
