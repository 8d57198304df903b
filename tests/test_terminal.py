"""What others say is shown on a terminal, and does nothing there."""

from __future__ import annotations

import asyncio
import io
import re
import sys

import pytest
from rich.console import Console

from device_runtime.result import Token
from draftlink import cli
from draftlink.cli import common, consoles, output

NASTY = "\x1bc\x1bPq\x1b\\ two\nlines \x9b2J [bold]x[/] [/] [link=http://x]y[/link] :smile:"


def test_an_error_is_one_line_of_what_was_said(monkeypatch):
    shown = io.StringIO()
    screen = {"force_terminal": True, "color_system": None, "width": 400}
    monkeypatch.setattr(cli, "err", consoles.Console(file=shown, **screen))
    monkeypatch.setattr(sys, "argv", ["draftlink", "device"])

    def fails(**_) -> None:
        raise ValueError(NASTY)

    monkeypatch.setattr(cli, "app", fails)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert shown.getvalue() == (
        "error: \\x1bc\\x1bPq\\x1b\\ two\\x0alines \\x9b2J [bold]x[/] [/] [link=http://x]y[/link]"
        " :smile:\n"
    )


class Screen(io.TextIOWrapper):
    """A terminal of some encoding; what it was given is ``text``."""

    def __init__(self, encoding: str = "utf-8", terminal: bool = True) -> None:
        super().__init__(io.BytesIO(), encoding=encoding, newline="")
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    @property
    def bytes(self) -> bytes:
        self.flush()
        return self.buffer.getvalue()  # type: ignore[attr-defined]

    @property
    def text(self) -> str:
        return self.bytes.decode(self.encoding)


class Generation:
    """One that brings these pieces, and then ends; ``held`` has no token to bring it."""

    result = None

    def __init__(self, pieces: list[str], kind: str = "draft", held: str = "") -> None:
        self.pieces, self.kind = pieces, kind
        self.text = "".join(pieces) * (kind != "provisional") + held

    async def __aiter__(self):
        for piece in self.pieces:
            yield Token(1, piece, self.kind)


def shown(monkeypatch, generation, prompt: str = "", *, err: Screen | None = None, **screen) -> str:
    """What a generation writes to stdout, where provisional tokens have a stream of their own."""
    file = Screen(**screen)
    for name, to, width in (("out", file, 20), ("err", err or file, 80)):
        console = Console(file=to, force_terminal=to.terminal, color_system=None, width=width)
        monkeypatch.setattr(common, name, console)
    asyncio.run(output.show(prompt, generation))
    return file.text


@pytest.mark.parametrize("kind", ["draft", "stream", "provisional"])
def test_a_text_moves_no_cursor_on_a_terminal(monkeypatch, kind):
    """The base station chooses the tokens, and a vocabulary may have any bytes."""
    text = shown(monkeypatch, Generation([NASTY, "\x1b", "]0;title\x07\t", "ü\n"], kind), NASTY)
    for part in (
        "cPq\\ two\nlines 2J [bold]x[/] [/] [link=http://x]y[/link] :smile:]0;title\tü\n",
    ):
        assert part in text
    assert text.startswith(part.removesuffix("]0;title\tü\n"))  # the prompt
    assert not any(c in text for c in "\x1b\x9b\x07")


@pytest.mark.parametrize(
    "prompt", ["", NASTY, "a prompt of more than the twenty columns there are"]
)
def test_a_pipe_has_the_text_and_nothing_else(monkeypatch, prompt):
    pieces = [NASTY, "\x1b", "]0;title\x07\t", "ü\r\n\n\r", "\\", "[", "\ufffd😀\x00"]
    for encoding in ("utf-8", "ascii", "utf-16"):
        file = Screen(encoding, terminal=False)
        for name in ("out", "err"):
            monkeypatch.setattr(common, name, Console(file=file, width=20))
        asyncio.run(output.show(prompt, Generation(pieces, held="a \ud83d")))
        assert file.bytes == ("".join(pieces) + "a ?").encode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_shows_what_it_can(monkeypatch, encoding):
    text = shown(monkeypatch, Generation(["ü", "😀 ", "γ*\n"]), "naïve ", encoding=encoding)
    plain = "na?ve ?? ?*\n\n" if encoding == "ascii" else "naïve ü? ?*\n\n"
    assert text == plain


def test_what_had_no_token_to_bring_it_is_shown_at_the_end(monkeypatch):
    assert shown(monkeypatch, Generation(["a", ""], held="b")) == "ab\n"
    assert shown(monkeypatch, Generation(["a", ""], held="b"), terminal=False) == "ab"


def test_provisional_tokens_are_not_in_the_text(monkeypatch):
    err = Screen()
    assert shown(monkeypatch, Generation(["a[b]"], "provisional"), terminal=False, err=err) == ""
    assert err.text == "\nnothing heard; going on alone: [a[b]]\n"


def test_colours_do_not_change_the_text(monkeypatch):
    file = Screen()
    console = Console(file=file, force_terminal=True, color_system="standard", width=20)
    monkeypatch.setattr(common, "out", console)
    asyncio.run(output.show("p", Generation(["a\tb", " c" * 30])))
    plain = re.sub(r"\x1b\[[0-9;]*m", "", file.text)
    assert plain == "pa\tb" + " c" * 30 + "\n" and "\x1b[32m" in file.text
