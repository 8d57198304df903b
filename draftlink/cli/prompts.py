"""What a command goes on from: a text as stated, of a file or of stdin, or by a chat template."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:  # a command that needs no device loads none of it
    from device_runtime.model.bundle import Bundle
    from device_runtime.templates.template import Template


def prompt(stated: str | None, file: Path | None) -> str:
    """The text to go on from: as stated, of a file, or of stdin. Raises ValueError, OSError."""
    if file is not None:
        if stated is not None:
            raise typer.BadParameter("a prompt and --file are both given; leave one")
        data = file.read_bytes()
    elif stated in (None, "-"):
        if sys.stdin.isatty():
            raise typer.BadParameter("there is no prompt; give it here, by --file or on stdin")
        data = sys.stdin.buffer.read()
    else:
        return stated
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError("the prompt is no text in UTF-8") from None


def chatted(bundle: Bundle, text: str) -> str:
    """A user's turn as the bundle's chat template writes it, up to the answer.

    Raises ValueError where it has none, TemplateError, BundleError.
    """
    found = bundle.template()
    if found is None:
        raise ValueError("this bundle has no chat template; leave out --chat")
    try:
        return found.render([{"role": "user", "content": text}])
    finally:
        found.close()


def template(bundle: Bundle, stated: Path | None) -> Template | None:
    """How a chat is written: by the ``stated`` file, or as the bundle says; None where it does not.

    Raises BundleError, and ValueError for a file that is none.
    """
    from device_runtime.templates.template import Template

    if stated is None:
        return bundle.template()
    try:
        return Template(stated.read_text(encoding="utf-8"), bundle.tokens())
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the chat template {stated} cannot be read ({error})") from None
