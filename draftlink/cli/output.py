"""A generation's text on its way out: itself to a pipe or a file, harmless on a terminal.

A text is never markup. Rich, which writes our tables and hints, would take some of it for its own
(``[bold]``, ``:smile:``), make spaces of a tab, leave out what it calls a control, and wrap.
"""

from __future__ import annotations

import asyncio
import unicodedata
from typing import Any

import msgspec
from rich.console import Console
from rich.segment import Segment, Segments
from rich.style import Style

from draftlink.cli import common

LOOK_S = 0.05  # between two looks at the link
COLOURS = {"draft": "green", "correction": "yellow", "bonus": "cyan", "stream": "default"}


async def show(prompt: str, generation: Any, conversation: Any = None) -> Any:
    """Write a generation's text as it comes; its result.

    Where the ``conversation`` is given, a lost link is told at once.

    To a pipe or a file that is the text in UTF-8 and nothing else. A terminal has the prompt
    before it, colours for who wrote each token, and a line end behind it. Provisional tokens go to
    stderr, between brackets, on a line below.
    """
    out, err = common.out, common.err
    on_terminal = out.file.isatty()
    if on_terminal:
        write(out, prompt, "dim")
    shown, alone = 0, False
    watch = None if conversation is None else asyncio.create_task(watched(conversation))
    try:
        async for token in generation:
            if token.kind == "provisional":
                if not alone:
                    err.print("\n[dim]nothing heard; going on alone: \\[[/]", end="")
                alone = True
                write(err, token.text, "dim")
                continue
            if alone:
                err.print("[dim]][/]")
            if token.takes_back:
                err.print(f"\n[dim]{token.takes_back} tokens taken back[/]")
            alone = False
            write(out, token.text, COLOURS[token.kind])
            shown += len(token.text)
    finally:
        if watch is not None:
            watch.cancel()
        if alone:
            err.print("[dim]][/]")
        # A generation that did not end by a token had no piece for what it held back.
        write(out, generation.text[shown:], "default")
        if on_terminal:
            out.print()
    return generation.result


async def lines(generation: Any) -> Any:
    """Write a line of JSON for each token as it comes, and one with the result; the result."""
    file = common.out.file
    async for token in generation:
        said = {
            "id": token.id,
            "text": token.text,
            "kind": token.kind,
            "confirms": token.confirms,
            "takes_back": token.takes_back,
            "logprob": token.logprob,
            "top_logprobs": [{"id": each, "logprob": p} for each, p in token.top_logprobs],
        }
        file.write(msgspec.json.encode(said).decode() + "\n")
        file.flush()
    file.write(msgspec.json.encode({"result": generation.result}).decode() + "\n")
    file.flush()
    return generation.result


async def watched(conversation: Any) -> None:
    """Tell of a link that is lost, and of its return, until cancelled."""
    while True:
        connected = conversation.client.connected
        if not connected.is_set():
            common.err.print("\n[dim]connection lost, trying again[/]")
            await connected.wait()
            common.err.print("[dim]connected again[/]")
        await asyncio.sleep(LOOK_S)


def write(console: Console, text: str, style: str) -> None:
    """A piece of a text; on a terminal what it can show, in a style, and nothing that acts.

    Controls other than line ends and tabs are left out there: whoever chose the tokens could move
    the cursor or set the title. What the terminal's encoding lacks is a question mark.
    """
    if not text:
        return
    file = console.file
    if file.isatty():
        text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) != "Cc")
        text = text.encode(console.encoding, "replace").decode(console.encoding)
        console.print(Segments([Segment(text, Style.parse(style))]), end="", crop=False)
        return
    file.flush()
    file.buffer.write(text.encode("utf-8", "replace"))  # type: ignore[attr-defined]
    file.buffer.flush()  # type: ignore[attr-defined]
