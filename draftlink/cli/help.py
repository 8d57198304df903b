"""Help pages: plain text that loses nothing, whole words, options in groups, any width.

Rich's own pages take ``[limit=value]`` for markup and leave it out, and give a third of 80 columns
to the types; these are the same words laid out by ``textwrap``.
"""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from draftlink.cli.consoles import spelt

LEAST, MOST = 40, 100  # columns of a page
KEPT = "\N{NO-BREAK SPACE}"  # within a default, which stays on one line
NAMES = 26  # columns that names of options have, but on a narrow page
NARROW = 60
MOST_OF_A_PIPE = 1 << 16  # which has a line in one piece
# An option belongs to the same group in every command.
GROUPS: Final[dict[str, str]] = {
    name: group
    for group, names in {
        "Network and access": "bs host port token tokens tls-cert tls-key ca insecure api-key cors"
        " host-name ticket-key to listen offer pin self-signed qr",
        "Text": "prompt file chat system chat-template temperature top-k top-p sampling max-tokens"
        " ignore-eos stop seed prompts repeats",
        "Drafting": "mode scheme k lattice tiers coding mass learn-temperature gamma draft-price"
        " branches offline-after look-up tariff alpha alpha-at vocab",
        "Model": "target bundle name precision effort costs t-target t-draft t-verify graph context"
        " text npu calibrate",
        "Link": "link rate-up rate-down rtt jitter loss stall outage trace",
        "Machine": "device dtype provider threads kv-bytes sessions limit conversations stop-s"
        " pace-target pace-draft measure-costs",
        "Output": "output json plot quiet stream-json logprobs log-format log-level bench paper"
        " title",
        "Help": "help version install-completion show-completion",
    }.items()
    for name in names.split()
}
OTHERS = "Options"
COMMANDS: Final[dict[str, str]] = {
    name: group
    for group, names in {
        "Try it": "demo doctor",
        "Run": "bs device chat serve",
        "Models": "export pull list show rm",
        "Measure and plan": "compare plan link timeline report",
    }.items()
    for name in names.split()
}
UsageError: Any = typer.BadParameter.__mro__[1]  # click's, or that of the copy that typer has
DEBUG = ("--debug", "of an error show the whole traceback")
# How a value is called, by the name of its type (typer's own, and click's before 0.20).
VALUES: Final = {
    "str": "TEXT", "int": "N", "float": "X", "path": "PATH", "file": "PATH", "directory": "PATH",
    "text": "TEXT", "integer": "N", "bool": "", "boolean": "",
}  # fmt: skip


class _Told:
    """A command whose help is ``page``, and whose usage errors say the same, in whole words."""

    params: list[Any]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the page."""
        formatter.write(page(self, ctx))

    def format_usage(self, ctx: Any, formatter: Any) -> None:
        """Write the page's first line; the library's own has names that it uses within."""
        formatter.write(f"Usage: {ctx.command_path} {' '.join(_pieces(self))}")

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As the library's; of what is missing it is told what it is."""
        with _in_whole_words(ctx):
            rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        return rest


class Command(_Told, TyperCommand):
    """A command of the program."""

    def invoke(self, ctx: Any) -> Any:
        """As the library's."""
        with _in_whole_words(ctx):
            return super().invoke(ctx)


@contextmanager
def _in_whole_words(ctx: Any) -> Iterator[None]:
    """Usage errors on a terminal break no word, and say of what is missing what it is."""
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # it shows the page
            raise
        said, columns = _said(error, ctx), width() if sys.stderr.isatty() else MOST_OF_A_PIPE
        ctx.fail("\n".join(_wrapped(f"Error: {said}", columns, after=" " * 7))[len("Error: ") :])


def _said(error: Any, ctx: Any) -> str:
    parameter = getattr(error, "param", None)
    if type(error).__name__ != "MissingParameter" or parameter is None:
        message: str = error.format_message()
        return message
    if parameter.param_type_name == "argument":
        label = _argument(parameter)
    else:
        label = _named(parameter, parameter.get_help_record(ctx)[0])
    return f"{label} is missing: {parameter.help}"


class Group(_Told, TyperGroup):
    """The program."""


def width() -> int:
    """Columns of a page: the terminal's, and 80 where there is none."""
    return max(LEAST, min(MOST, shutil.get_terminal_size((80, 24)).columns))


def page(command: Any, ctx: Any) -> str:
    """A command's help page."""
    columns = width()
    path = ctx.command_path
    usage = f"Usage: {path} {' '.join(_pieces(command))}"
    lines = [*_wrapped(usage, columns, after="       "), ""]
    for paragraph in (command.help or "").split("\n\n"):
        lines += [*_wrapped(" ".join(paragraph.split()), columns, "  "), ""]
    for title, rows in _sections(command, ctx):
        lines += [typer.style(title, bold=True), *_rows(rows, columns), ""]
    if command.epilog:
        # A command to be copied: its parts stay whole, and a line that goes on says so.
        lines += [*_wrapped(command.epilog, columns, after="    ", end=" \\"), ""]
    return spelt("\n".join(lines), sys.stdout.encoding or "utf-8")


def _pieces(command: Any) -> Iterator[str]:
    yield "[OPTIONS]"
    if hasattr(command, "commands"):
        yield "COMMAND [ARGS]..."
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            name = _argument(parameter)
            yield name if parameter.required else f"[{name}]"


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name or "").upper()
    return name if parameter.nargs == 1 else f"{name}..."


def _sections(command: Any, ctx: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Titles, each with its rows: a name, and what is said of it."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    if arguments:
        yield "Arguments", [(_argument(p), p.help or "") for p in arguments]
    if hasattr(command, "commands"):
        yield from _commands(command, ctx)
    found: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        if parameter.param_type_name == "option" and not parameter.hidden:
            record = parameter.get_help_record(ctx)
            found.setdefault(group(parameter), []).append(
                (_named(parameter, record[0]), " ".join(record[1].split()))
            )
    found.setdefault("Help", []).append(DEBUG)
    order = [OTHERS, *dict.fromkeys(GROUPS.values())]
    for title in sorted(found, key=lambda each: order.index(each) if each in order else 0):
        yield title, found[title]


def _commands(command: Any, ctx: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    found: dict[str, list[tuple[str, str]]] = {title: [] for title in COMMANDS.values()}
    for name in command.list_commands(ctx):
        listed = command.get_command(ctx, name)
        if listed is not None and not listed.hidden:
            said = " ".join((listed.help or "").split("\n\n")[0].split())
            found.setdefault(COMMANDS.get(name, "Commands"), []).append((name, said))
    yield from ((title, rows) for title, rows in found.items() if rows)


def group(parameter: Any) -> str:
    """The group that an option stands in: the one it names, or the one of its name."""
    stated = getattr(parameter, "rich_help_panel", None)
    long = next((name for name in parameter.opts if name.startswith("--")), "")
    return stated or GROUPS.get(long.removeprefix("--"), OTHERS)


def _named(parameter: Any, record: str) -> str:
    """An option's names, and how its value is called."""
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.secondary_opts:
        names += " / " + ", ".join(parameter.secondary_opts)
    if parameter.is_flag:
        return names
    if parameter.metavar:
        return f"{names} {parameter.metavar}"
    kind = re.search(r"<(?:list\[)?(\w+)|([A-Z]+)(?: RANGE)?$", record)
    said = "text" if kind is None else (kind[1] or kind[2]).lower()
    return f"{names} {VALUES.get(said, 'TEXT')}"


def indent(columns: int) -> int:
    """Where what is said of a name begins."""
    return NAMES if columns >= NARROW else 6


def _rows(rows: Iterable[tuple[str, str]], columns: int) -> Iterator[str]:
    begin = indent(columns)
    for name, said in rows:
        label = f"  {name}"
        lines = _wrapped(said, columns, " " * begin)
        if len(label) > begin - 2 or not lines:
            yield label
        else:
            lines[0] = label.ljust(begin) + lines[0][begin:]
        yield from lines


def _wrapped(
    text: str, columns: int, first: str = "", after: str | None = None, end: str = ""
) -> list[str]:
    """Lines of whole words; each but the last is followed by ``end``."""
    whole = re.sub(r"\[[^][]{1,30}\]$", lambda found: found[0].replace(" ", KEPT), text)
    lines = textwrap.wrap(
        whole,
        columns - len(end),
        initial_indent=first,
        subsequent_indent=first if after is None else after,
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = [line.replace(KEPT, " ") for line in lines]
    return [line + end for line in lines[:-1]] + lines[-1:]
