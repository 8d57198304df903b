"""A base station over one of the project's links."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console

from draftlink.host import children


@contextmanager
def over(link: Sequence[str], url: str, err: Console) -> Iterator[str]:
    """The address at which a base station is reached over a link; ``url`` itself over none.

    ``link``: what ``draftlink link`` is told, a profile and its options. Raises RuntimeError where
    it does not come up.
    """
    if not link:
        yield url
        return
    command = ["-m", "draftlink.cli", "link", *link, "--to", url.removeprefix("ws://")]
    with children.child(command, err.print, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError("the link did not come up; its own message is above")
        yield f"ws://{line.split()[2]}"
