"""What an option cannot be is refused before any work, by a usage error that names the option."""

from __future__ import annotations

import inspect
import re
import typing

import pytest
import typer
from typer.testing import CliRunner

from device_runtime.result import MODES
from draftlink.cli import values
from draftlink.cli.common import app
from draftlink.link.shaping import PROFILES

PROGRAM = typer.main.get_command(app)
# Texts that are anybody's: names, addresses, tokens; what they lead to is found out by going there.
FREE = {
    "--bs", "--host", "--host-name", "--cors", "--token", "--api-key", "--name", "--title",
    "--prompt", "--system", "--stop", "--target", "model", "source", "prompt", "names",
    "--device", "--dtype", "--provider", "--limit",
}  # fmt: skip
ARGUMENTS = {
    "bs": ["m"], "chat": ["d"], "device": ["d", "Hi"], "doctor": [], "export": ["m", "-o", "x"],
    "link": ["lte", "--to", "a:1"], "plan": [], "pull": ["ws://a:1"], "serve": ["d"], "demo": [],
    "compare": [],
}  # fmt: skip


def texts() -> list[tuple[str, str]]:
    """Every option and argument whose value is a text, by command and name."""
    found = []
    for name, command in PROGRAM.commands.items():
        hints = typing.get_type_hints(inspect.unwrap(command.callback))
        for parameter in command.params:
            if str(hints.get(parameter.name)) in (
                "<class 'str'>", "str | None", "list[str]", "list[str] | None",
            ):  # fmt: skip
                found.append((name, parameter.opts[0]))
    return found


CHECKED = [(name, option) for name, option in texts() if option not in FREE]


def refused(*arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, prog_name="draftlink")
    assert done.exit_code == 2, done.output
    return done.stderr


@pytest.mark.parametrize(("name", "option"), CHECKED)
def test_a_wrong_value_is_refused_by_the_option_s_name(name, option, monkeypatch):
    ran = []
    if option not in ("--alpha-at", "--outage"):  # which the command itself puts together
        monkeypatch.setattr(PROGRAM.commands[name], "callback", lambda **_: ran.append(name))
    arguments = [*ARGUMENTS[name], option, "\N{SNOWMAN}"]
    if not option.startswith("-"):
        arguments = ["\N{SNOWMAN}", *ARGUMENTS[name][1:]]
    said = refused(name, *arguments)
    assert f"Invalid value for '{option}'" in said and ran == []
    if option != "--pin":  # nearly a secret
        assert "\N{SNOWMAN}" in said


def test_every_text_is_checked_or_anybody_s():
    assert {option for _, option in texts()} >= FREE
    assert {("device", "--mode"), ("plan", "--rtt"), ("link", "profile")} <= set(CHECKED)


def test_what_is_missing_is_told_in_the_words_of_the_help():
    for arguments, label in (
        (["link", "--to", "a:1"], "PROFILE"),
        (["link", "lte"], "--to TEXT"),
        (["export", "m"], "-o, --output PATH"),
        (["rm"], "NAMES..."),
    ):
        said = refused(*arguments)
        parameters = PROGRAM.commands[arguments[0]].params
        helps = [p.help for p in parameters if f"{label} is missing: {p.help}\n" in said]
        assert len(helps) == 1 and helps[0], said


@pytest.mark.parametrize("name", PROGRAM.commands)
def test_usage_is_the_one_of_the_help(name):
    """The library's own would have ``{profile}``."""
    shown = CliRunner().invoke(app, [name, "--help"], prog_name="draftlink").output
    (usage,) = re.findall(r"^Usage: .*$", shown, re.MULTILINE)
    assert refused(name, "--nothing").startswith(f"{usage}\n") and "{" not in usage


def test_the_words_are_those_that_there_are():
    for word in MODES:
        assert values.Mode.__metadata__[0].callback(word) == word
    for name in PROFILES:
        assert values.profile(name) == name
    for good in ("lattice", "b"):
        assert values.one_of("lattice", "a", "b")(good) == good
    with pytest.raises(typer.BadParameter, match="'c' is not lattice, a or b"):
        values.one_of("lattice", "a", "b")("c")


def test_nothing_given_is_nothing_wrong():
    assert values.seconds(None) is None
