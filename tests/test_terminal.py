"""What others say is shown on a terminal, and does nothing there."""

from __future__ import annotations

import asyncio
import io
import sys

import pytest
from rich.console import Console

from device_runtime.result import Token
from draftlink import cli
from draftlink.cli import common

NASTY = "\x1bc\x1bPq\x1b\\ two\nlines \x9b2J [bold]x[/] [/] [link=http://x]y[/link] :smile:"


def test_an_error_is_one_line_of_what_was_said(monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(cli, "err", Console(file=shown, force_terminal=True, color_system=None))
    monkeypatch.setattr(sys, "argv", ["draftlink", "device"])

    def fails() -> None:
        raise ValueError(NASTY)

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert shown.getvalue() == (
        "error: \\x1bc\\x1bPq\\x1b\\ two\\x0alines \\x9b2J [bold]x[/] [/] [link=http://x]y[/link]"
        " :smile:\n"
    )


@pytest.mark.parametrize("kind", ["draft", "stream", "provisional"])
def test_a_text_is_shown_as_it_is_and_moves_no_cursor(monkeypatch, kind):
    """The base station chooses the tokens, and a vocabulary may have any bytes."""
    shown = {}

    class Generation:
        result = None

        async def __aiter__(self):
            for piece in (NASTY, "\x1b", "]0;title\x07\t", "ü\n"):
                yield Token(1, piece, kind)

    for terminal in (True, False):
        file = io.StringIO()
        for name in ("out", "err"):
            console = Console(file=file, force_terminal=terminal, color_system=None, width=200)
            monkeypatch.setattr(common, name, console)
        asyncio.run(common.show("", Generation()))
        shown[terminal] = file.getvalue()
    for part in ("cPq\\ two\nlines 2J [bold]x[/] [/] [link=http://x]y[/link] :smile:]0;title", "ü"):
        assert part in shown[True]
    assert not any(c in shown[True] for c in "\x1b\x9b\x07")
    assert "\x1bc" in shown[False]  # a file has the text itself
