"""What an option's value may be: one of some words, or a quantity with its unit.

Looked at while the command line is parsed: what is wrong is refused before any work, by a usage
error that names the option.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from draftlink.host import joining
from draftlink.link import shaping
from draftlink.planning import units


def one_of(*words: str) -> Callable[[str], str]:
    """The check that a value is one of these."""
    spoken = f"{', '.join(words[:-1])} or {words[-1]}"

    def check(value: str) -> str:
        if value not in words:
            raise typer.BadParameter(f"{value!r} is not {spoken}")
        return value

    return check


def readable(read: Callable[[str], Any]) -> Callable[[str | None], str | None]:
    """The check that ``read`` takes a value, where one is given; it stays the text that it is."""

    def check(value: str | None) -> str | None:
        try:
            if value is not None:
                read(value)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None
        return value

    return check


def host_and_port(text: str) -> tuple[str, int]:
    """``HOST:PORT``, an IPv6 host in brackets. Raises ValueError for anything else."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


seconds, rate, memory = map(readable, (units.seconds, units.bits_per_s, units.memory))
profile, pin, end = map(readable, (shaping.profile, joining.check_pin, host_and_port))

Mode = Annotated[
    str,  # of ``device_runtime.result.MODES``, which take every command a while to load
    typer.Option(
        help="stop-and-wait, run-ahead, stream, both or auto",
        callback=one_of("stop-and-wait", "run-ahead", "stream", "both", "auto"),
    ),
]
# Of what goes on for many turns: the schemes that one is right for anybody's texts with.
Scheme = Annotated[
    str,
    typer.Option(
        help="coupled (a seed fixes the text) or topk (the paper's)",
        callback=one_of("coupled", "topk"),
    ),
]
