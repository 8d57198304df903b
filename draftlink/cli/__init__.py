"""The command line. Each command imports what it needs, so that a device needs no torch."""

from __future__ import annotations

import os
import re
import sys
from typing import Final

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
    report,
    serve,
    timeline,
)
from draftlink.cli.common import app, err
from draftlink.cli.consoles import escape_what_has_no_code
from draftlink.host import torchao
from draftlink.host.extras import advice
from draftlink.host.folders import forget_relative_folders
from draftlink.host.plain import printable

# The extra that has all of what a command needs; what it may want besides is named by itself.
NEEDS: Final = {
    "demo": "demo",
    "compare": "demo",
    "export": "export",
    "bs": "bs",
    "device": "device",
    "chat": "device",
    "serve": "serve",
}


def main() -> None:
    """Run a command: exit code 0, 1 (failed, one line that says what to do) or 2 (usage)."""
    # Both libraries talk on stderr by default; a command's own lines are the interface.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    torchao.hush()
    escape_what_has_no_code()
    forget_relative_folders()
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    # Help names those that commands share; a line for each option would hide what it is for.
    prefix = None if "--help" in sys.argv or len(sys.argv) == 1 else "DRAFTLINK"
    try:
        app(prog_name="draftlink", auto_envvar_prefix=prefix)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        # Whoever's words are in it, a peer's or a file's: they are shown, and do nothing.
        words = printable(_told(error) or str(error) or type(error).__name__)
        words = re.sub(r"\[Errno -?\d+\] ", "", words)  # of an error within it
        err.say(words, lead="error:")
        sys.exit(1)


def _told(error: Exception) -> str | None:
    """What to say in the place of an error's own words; None where they do."""
    if isinstance(error, ModuleNotFoundError):
        command = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
        named = f"draftlink {command}" if command in NEEDS else "this command"
        return advice(error, named, NEEDS.get(command))
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        # Its own would begin with a number, and leave out what is full where no file is named.
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"{error.strerror}: {', '.join(names)}" if names else error.strerror
    return None
