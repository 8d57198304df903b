"""Every help page: whole words, 80 columns, nothing of its source lost, and every option told."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import draftlink
import draftlink.cli  # registers the commands
from draftlink.cli import help as pages
from draftlink.cli.common import app
from draftlink.host.files import FileError

PROGRAM = typer.main.get_command(app)
COMMANDS = {"": PROGRAM, **PROGRAM.commands}
WIDTHS = (40, 60, 80, 100)


def page(name: str, columns: int = 80) -> str:
    done = CliRunner().invoke(
        app, [*name.split(), "--help"], env={"COLUMNS": str(columns)}, prog_name="draftlink"
    )
    assert done.exit_code == 0, done.output
    return done.output


def plain(text: str) -> str:
    """A text's words, however it is wrapped."""
    return " ".join(text.replace(" \\\n", " ").split())


def entries(shown: str, columns: int = 80) -> dict[str, str]:
    """What a page says of each name, put together from its lines."""
    indent = pages.indent(columns)
    found: dict[str, str] = {}
    name = ""
    for line in shown.splitlines():
        if re.match("  [^ ]", line):
            beside = line[indent - 2 : indent] == "  "
            name, said = (line[:indent].strip(), line[indent:]) if beside else (line.strip(), "")
            found[name] = said
        elif name and line.startswith(" " * indent):
            found[name] += f" {line}"
        else:
            name = ""
    return {name: plain(said) for name, said in found.items()}


def lost(name: str, shown: str, columns: int = 80) -> list[str]:
    """Of a command's source, what its page does not say in one piece, in the place for it."""
    command = COMMANDS[name]
    told = entries(shown, columns)
    missing = [
        text
        for text in (*(command.help or "").split("\n\n"), command.epilog or "")
        if plain(text) not in plain(shown)
    ]
    for parameter in command.params:
        if parameter.hidden:
            continue
        first = parameter.opts[0] if parameter.param_type_name == "option" else parameter.name
        said = [said for label, said in told.items() if first.lower() in label.lower()]
        if not any(plain(parameter.help or "?") in each for each in said):
            missing.append(f"{first}: {parameter.help}")
    return missing


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_of_a_help_text_is_lost(name):
    for columns in WIDTHS:
        shown = page(name, columns)
        assert max(map(len, shown.splitlines())) <= columns
        assert lost(name, shown, columns) == [], columns


def test_what_is_lost_is_found():
    """The control: as Rich would show the line about --tokens, and a word that is broken."""
    shown = page("bs")
    assert lost("bs", shown.replace("[operator]", "")) and "[operator]" in shown
    assert lost("bs", shown.replace("certificate chain", "certi ficate chain"))
    assert lost("bs", shown.replace("  --host TEXT", "  --nost TEXT"))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name])
def test_every_option_is_told_in_its_group(name):
    command = COMMANDS[name]
    assert command.help and command.epilog and command.epilog.startswith("Example: draftlink ")
    options = [p for p in command.params if p.param_type_name == "option"]
    assert [p.opts[0] for p in command.params if not (p.help or "").strip()] == []
    ungrouped = [p.opts[0] for p in options if pages.group(p) == pages.OTHERS]
    assert ungrouped == [] or len(options) <= 3
    assert name in pages.COMMANDS
    shown = page(name)
    assert pages.DEBUG[0] in shown and "--help" in shown


def test_a_usage_error_is_one_sentence_with_the_way_to_the_help():
    done = CliRunner().invoke(app, ["bs", "m", "--sessions", "no"], prog_name="draftlink")
    assert done.exit_code == 2
    assert "Try 'draftlink bs --help' for help." in done.output
    assert "'--sessions'" in done.output and "│" not in done.output


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "draftlink.cli", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=os.environ | environment
    )


def test_without_a_command_the_same_page_is_shown():
    done = run(COLUMNS="80")
    assert (done.stdout + done.stderr).strip() == page(
        ""
    ).strip() and "Traceback" not in done.stderr


def test_version_and_completion():
    assert run("--version").stdout == f"draftlink {draftlink.__version__}\n"
    asked = {"COMP_WORDS": "draftlink ex", "COMP_CWORD": "1"}
    done = run(_DRAFTLINK_COMPLETE="complete_bash", **asked)
    assert done.stdout.split() == ["export"], done.stderr
    asked = {"COMP_WORDS": "draftlink bs --tls", "COMP_CWORD": "2"}
    done = run(_DRAFTLINK_COMPLETE="complete_bash", **asked)
    assert done.stdout.split() == ["--tls-cert", "--tls-key"]
    assert "--install-completion" in page("")


def test_debug_shows_the_traceback_and_nothing_else_does():
    arguments = ["report", "nowhere.json"]
    quiet, loud = run(*arguments), run(*arguments, "--debug")
    assert quiet.returncode == 1 and "Traceback" not in quiet.stderr
    assert quiet.stderr.startswith("error: ") and quiet.stderr.count("\n") == 1
    assert "Traceback" in loud.stderr
    assert "Traceback" in run("--debug", *arguments).stderr


BLOCK = """
import sys
missing = set(sys.argv[1].split(","))
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
sys.argv[:2] = ["draftlink"]
from draftlink.cli import main
main()
"""
HEAVY = "torch,transformers,huggingface_hub,safetensors,"
HEAVY += "onnxruntime,onnx,tokenizers,starlette,uvicorn,websockets,cryptography"
WANTS = {
    "demo": ([], "demo"),
    "compare": ([], "demo"),
    "export": (["tinypair", "-o", "out"], "export"),
    "bs": (["a/model", "--port", "0"], "bs"),
    "device": (["draft", "Hi"], "device"),
    "chat": (["draft"], "device"),
    "serve": (["draft", "--port", "0"], "serve"),
}


@pytest.mark.parametrize("name", WANTS)
def test_what_is_missing_is_installed_by_one_extra(name, tmp_path):
    """Of a plain ``pip install draftlink``: the extra that has all that the command needs."""
    arguments, extra = WANTS[name]
    command = [sys.executable, "-c", BLOCK, HEAVY, name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert f"draftlink {name} needs " in done.stderr
    assert done.stderr.endswith(f": pip install 'draftlink[{extra}]'\n")


def outputs() -> list[tuple[str, str]]:
    """Every option of every command that names a file or folder to write."""
    found = []
    for name, command in COMMANDS.items():
        told = entries(page(name))
        for parameter in command.params:
            label = next((each for each in told if parameter.opts[0] in each.split()), "")
            writes = re.search(r"\b[Ww]rite\b|^measure ", told.get(label, ""))
            if label.endswith(" PATH") and writes:
                found.append((name, parameter.opts[0]))
    return found


def test_every_output_is_found():
    found = outputs()
    assert {("device", "--json"), ("plan", "--plot"), ("export", "--output")} <= set(found)
    assert ("device", "--measure-costs") in found


@pytest.mark.parametrize(("name", "option"), outputs())
def test_an_output_is_checked_before_the_work(name, option, tmp_path, monkeypatch):
    """For every command and option: what cannot be written is refused while it is parsed."""
    monkeypatch.chdir(tmp_path)
    Path("file.png").write_text("")
    place = tmp_path / "file.png" / "x.png"
    ran = []
    command = COMMANDS[name]
    monkeypatch.setattr(command, "callback", lambda **_: ran.append(name))
    arguments = [f"x{place}" for p in command.params if p.param_type_name == "argument"]
    needed = [
        word
        for p in command.params
        if p.param_type_name == "option" and p.required and option not in p.opts
        for word in (p.opts[0], "127.0.0.1:9")
    ]
    with pytest.raises(FileError, match=re.escape(f"cannot write {place}: ")):
        PROGRAM.main([name, *arguments, *needed, option, str(place)], "draftlink")
    assert ran == [] and os.listdir() == ["file.png"]
