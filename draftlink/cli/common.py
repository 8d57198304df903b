"""What commands share: the app, consoles, options."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from draftlink.cli import help as pages
from draftlink.cli.consoles import Console
from draftlink.cli.models import cached_model
from draftlink.host import files

F = TypeVar("F", bound=Callable[..., Any])


class App(typer.Typer):
    """The program: every command has the same help pages."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[[F], F]:
        """As typer's."""
        return super().command(name, **{"cls": pages.Command} | settings)


app = App(
    cls=pages.Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it would take some of our words for its own
)
out = Console()
err = Console(stderr=True)


def _version(wanted: bool) -> None:
    if wanted:
        from draftlink import __version__

        print(f"draftlink {__version__}")
        raise typer.Exit


@app.callback(epilog="Example: draftlink demo")
def program(
    version: Annotated[
        bool,
        typer.Option("--version", help="show the version", callback=_version, is_eager=True),
    ] = False,
) -> None:
    """Lossless distributed speculative decoding: draft on the device, verify at the base station.

    `draftlink COMMAND --help` shows a command's options, and an example.
    """


STDOUT = Path("-")


def writable(path: Path | None) -> Path | None:
    """An output, known to be writable before minutes of work are spent on it. Raises FileError."""
    if path not in (None, STDOUT):
        files.check(path)
    return path


def _results(ctx: typer.Context, path: Path | None) -> Path | None:
    """Where results go. Where that is stdout, all else goes to stderr: a reader has JSON alone."""
    if path == STDOUT:
        out.stderr = True
        ctx.call_on_close(lambda: setattr(out, "stderr", False))
    return writable(path)


def _folder(path: Path) -> Path:
    """A folder to write, likewise. Raises FileError."""
    files.check_folder(path)
    return path


def _plot(path: Path | None) -> Path | None:
    """A plot, likewise. Raises ValueError for another ending, and where matplotlib is missing."""
    if path is not None and path.suffix not in (".png", ".svg"):
        raise ValueError(f"a plot is a .png or an .svg file, not {path}")
    if path is not None:
        try:
            import matplotlib.figure  # noqa: F401
        except ImportError:
            raise ValueError("--plot needs matplotlib: pip install 'draftlink[plot]'") from None
    return writable(path)


def _source(source: str | None) -> str | None:
    """What --sampling says. Raises typer's usage error for anything but "target"."""
    if source not in (None, "target"):
        raise typer.BadParameter(f"{source!r} is not target")
    return source


def utf8(argument: str | None) -> str | None:
    """A text of the command line: UTF-8, whatever the locale says. Raises a usage error."""
    try:
        if argument is None or argument.isascii():
            return argument
        return os.fsencode(argument).decode()
    except UnicodeError:
        raise typer.BadParameter("it is no text in UTF-8") from None


def texts(arguments: list[str] | None) -> list[str]:
    """Several of those."""
    return [argument for each in arguments or () if (argument := utf8(each)) is not None]


def _threads(count: int | None) -> int | None:
    """A number of threads that this machine has cores for. Raises a usage error."""
    from device_runtime.model.threads import check

    try:
        if count is not None:
            check(count)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return count


Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        help="Write machine-readable results here; - is stdout, and all else goes to stderr.",
        callback=_results,
    ),
]
Plot = Annotated[Path | None, typer.Option(help="Write a .png or an .svg here.", callback=_plot)]
Folder = Annotated[
    Path,
    typer.Option("--output", "-o", help="bundle folder to write", callback=_folder),
]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
AsTarget = Annotated[
    str | None,
    typer.Option(
        "--sampling",
        help="target: as its own files suggest; what is stated beside it goes first",
        callback=_source,
    ),
]
Seed = Annotated[int | None, typer.Option(help="Makes the text reproducible.")]
RateUp = Annotated[str | None, typer.Option(help="instead of the profile's, such as 5M")]
RateDown = Annotated[str | None, typer.Option(help="instead of the profile's, such as 5M")]
Rtt = Annotated[str | None, typer.Option(help="instead of the profile's, such as 60ms")]
PaceTarget = Annotated[
    str | None, typer.Option(help="for benchmarks: hold each target forward to this time, as 45ms")
]
PaceDraft = Annotated[
    str | None, typer.Option(help="for benchmarks: hold each draft forward to this time, as 10ms")
]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads of the model; as many as pay, if not given.", callback=_threads),
]

HERE = "ws://127.0.0.1:8765"
Bs = Annotated[str, typer.Option("--bs", envvar="DRAFTLINK_BS", help="base station")]
Token = Annotated[
    str | None, typer.Option(envvar="DRAFTLINK_TOKEN", help="bearer token, if it wants one")
]
Ca = Annotated[
    Path | None,
    typer.Option(
        envvar="DRAFTLINK_CA", help="wss: certificates to trust instead of the system's, PEM"
    ),
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", help="send the token in clear over ws:// (a VPN encrypts)"),
]
Pin = Annotated[
    str | None, typer.Option(envvar="DRAFTLINK_PIN", help="wss: the key to trust, instead of --ca")
]
Provider = Annotated[str, typer.Option(help="ONNX Runtime execution provider")]


def model_path(model: str) -> str:
    """``tinypair`` is the embedded target; anything else stands for itself."""
    if model == "tinypair":
        import tinypair

        return str(tinypair.TARGET)
    return model


def draft_path(model: str) -> str:
    """``tinypair`` is the embedded draft; anything else stands for itself."""
    if model == "tinypair":
        import tinypair

        return str(tinypair.DRAFT)
    return model


def asked(source: str) -> str:
    """The same, or what was pulled; else the hub is asked, while PyTorch is yet to be imported.

    Raises CheckpointError where the hub does not answer, and nothing of the model is kept here.
    """
    from bs_runtime.checkpoint import hub

    source = cached_model(source)
    hub.need(source)
    return source


def sampling(welcome: Any, source: str | None, stated: dict[str, float | None], usual: Any) -> Any:
    """The sampling of a command: what is ``stated``, over the target's or the ``usual``.

    ``source`` is what --sampling says. One line on stderr tells what the target suggests and does
    not get, unless it was asked for. Raises ValueError where the target's cannot be had.
    """
    from device_runtime import facts

    base = usual if source is None else facts.suggested(welcome)
    given = {name: value for name, value in stated.items() if value is not None}
    used = msgspec.structs.replace(base, **given)
    line = facts.differing(welcome, used) if source is None else None
    if line is not None:
        err.say(line, "dim")
    return used


def hold(model: Any, stated: str | None) -> None:
    """Pace a model's forwards, where a time is stated. Raises ValueError for what is no time."""
    from draftlink.link.pacing import pace
    from draftlink.planning import units

    if stated is not None:
        seconds = units.seconds(stated)
        model.forward = pace(model.forward, seconds, time.perf_counter, time.sleep)


def write_json(path: Path | None, value: Any) -> None:
    """Write a result to ``path``, where one is given; ``-`` is stdout. Raises FileError."""
    data = msgspec.json.format(msgspec.json.encode(value)) + b"\n"
    if path == STDOUT:
        sys.stdout.buffer.write(data)
    elif path is not None:
        files.write(path, data)
