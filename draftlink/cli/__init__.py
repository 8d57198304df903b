"""The command line. Each command imports what it needs, so that a device needs no torch."""

from __future__ import annotations

import os
import sys

from rich.text import Text

# Each registers its commands.
from draftlink.cli import (  # noqa: F401
    bs,
    chat,
    device,
    doctor,
    export,
    kept,
    links,
    loopback,
    pull,
    serve,
    timeline,
)
from draftlink.cli.common import app, err
from draftlink.cli.consoles import escape_what_has_no_code
from draftlink.host.extras import advice
from draftlink.host.folders import forget_relative_folders
from draftlink.host.plain import printable


def main() -> None:
    """Run a command: exit code 0, 1 (failed, one line that says what to do) or 2 (usage)."""
    # Both libraries talk on stderr by default; a command's own lines are the interface.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    escape_what_has_no_code()
    forget_relative_folders()
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    # Help names those that commands share; a line for each option would hide what it is for.
    prefix = None if "--help" in sys.argv else "DRAFTLINK"
    try:
        app(auto_envvar_prefix=prefix)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        told = None
        if isinstance(error, ModuleNotFoundError):
            told = advice(error, "this command")
        # Whoever's words are in it, a peer's or a file's: they are shown, and do nothing.
        words = printable(told or str(error) or type(error).__name__)
        err.print(Text.assemble(("error:", "red"), " ", words), soft_wrap=True)
        sys.exit(1)
