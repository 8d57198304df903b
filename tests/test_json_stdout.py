"""``--json -``: every command's stdout is one JSON value; what is said besides is on stderr."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

import draftlink.cli  # registers the commands
from bs_runtime.serving.offer import Offered
from draftlink.cli import common
from draftlink.cli.common import app
from draftlink.host import cache, machine
from draftlink.link import proxy
from tests.bundles import fake_bundle
from tests.fake_models import random_logits
from tests.fakes import FakeTarget, served

PROGRAM = typer.main.get_command(app)
WRITERS = {n for n, c in PROGRAM.commands.items() if any("--json" in p.opts for p in c.params)}


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def speaks(words: str) -> Callable[..., dict[str, int]]:
    """In the place of minutes of work: it says what such work says, and has a result."""

    def work(*given: object, **named: object) -> dict[str, int]:
        common.out.print(words)
        common.out.say(words)
        common.out.print(common.pages.MOST)
        return {"a": 1}

    return work


def link(monkeypatch, tmp_path, bundle) -> Result:
    def serve(link, listen, to, ready, problems):
        ready(1234)
        return proxy.Totals(1, 2, 3)

    monkeypatch.setattr(proxy, "serve", serve)
    return command("link", "lte", "--to", "127.0.0.1:9", "--json", "-")


def doctor(monkeypatch, tmp_path, bundle) -> Result:
    monkeypatch.setattr(machine, "READ_BYTES", 1 << 16)
    return command("doctor", "--bs", "ws://127.0.0.1:9", "--json", "-")


def pull(monkeypatch, tmp_path, bundle) -> Result:
    source = fake_bundle(tmp_path / "offered", 1000)
    with served(FakeTarget(random_logits(1, 20)), offer=Offered(source)) as url:
        return command("pull", url, "--json", "-")


def show(monkeypatch, tmp_path, bundle) -> Result:
    return command("show", fake_bundle(tmp_path / "mine", 1000), "--json", "-")


def list_(monkeypatch, tmp_path, bundle) -> Result:
    fake_bundle(cache.home() / "bundles" / "mine", 1000)
    return command("list", "--json", "-")


def device(monkeypatch, tmp_path, bundle) -> Result:
    from bs_runtime.model.target import Target

    with served(Target.load(str(bundle.model))) as url:
        options = ["--bs", url, "--max-tokens", "4", "--json", "-"]
        return command("device", bundle.path, "a table", *options)


def demo(monkeypatch, tmp_path, bundle) -> Result:
    from draftlink.cli import demo as loopback

    monkeypatch.setattr(loopback, "demo", speaks("a text"))
    return command("demo", "--json", "-")


def compare(monkeypatch, tmp_path, bundle) -> Result:
    from draftlink.cli import compare as comparison

    monkeypatch.setattr(comparison, "compare", speaks("a table"))
    return command("compare", "--bundle", tmp_path, "--json", "-")


def export(monkeypatch, tmp_path, bundle) -> Result:
    import export.bundle
    from device_runtime.model.bundle import load_bundle
    from draftlink.cli import export as exporting

    made = load_bundle(fake_bundle(tmp_path / "made", 100))
    monkeypatch.setattr(export.bundle, "export_bundle", lambda *_, **__: made)
    monkeypatch.setattr(exporting, "asked", lambda source: source)
    return command("export", "tinypair", "-o", tmp_path / "out", "--json", "-")


RUNS = {
    "compare": compare, "demo": demo, "device": device, "doctor": doctor, "export": export,
    "link": link, "list": list_, "pull": pull, "show": show,
    "plan": lambda *_: command("plan", "--json", "-"),
}  # fmt: skip
FAILED = ("doctor",)  # it found something


class Exported:
    """A bundle, and the model that it was made of."""

    def __init__(self, path: Path, model: Path) -> None:
        self.path, self.model = path, model


@pytest.fixture
def exported(bundle, model_folder) -> Exported:
    return Exported(bundle().path, model_folder("llama"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "home"))


def test_every_command_that_writes_json_is_tried():
    assert set(RUNS) == WRITERS


@pytest.mark.parametrize("name", sorted(WRITERS))
def test_stdout_is_the_json_alone(name, monkeypatch, tmp_path, request):
    wanted = request.getfixturevalue("exported") if name == "device" else None
    done = RUNS[name](monkeypatch, tmp_path, wanted)
    assert done.exit_code == (name in FAILED), done.output
    assert json.loads(done.stdout) is not None
    assert done.stderr.strip()  # it is not lost
    assert not common.out.stderr  # for who calls the next in the same process


def test_what_is_said_on_stdout_is_there_without_the_json():
    """The control: the same words, where no JSON has stdout."""
    done = command("plan")
    with pytest.raises(json.JSONDecodeError):
        json.loads(done.stdout)
    both = command("plan", "--json", "-")
    assert done.stdout == both.stderr and json.loads(both.stdout)["best"] in done.stdout


def test_one_stream_is_not_written_by_two():
    done = command("device", "draft", "Hi", "--stream-json", "--json", "-")
    assert done.exit_code == 2 and "leave out --json -" in done.output


def test_commands_speak_by_the_consoles_alone():
    """Else a line would be on stdout whatever ``--json`` says."""
    found = []
    for path in Path(draftlink.cli.__file__).parent.glob("*.py"):
        for line in path.read_text().splitlines():
            if re.search(r"(?<!def )(?<![\w.])print\(|sys\.stdout\.(write|buffer)", line):
                found.append((path.name, line.strip()))
    assert found == [
        ("common.py", 'print(f"draftlink {__version__}")'),
        ("common.py", "sys.stdout.buffer.write(data)"),
    ]


@pytest.mark.full
@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "tinypair", "-o", "draft", "--precision", "int8"],
        ["demo", "--max-tokens", "16"],
        ["demo", "--bench"],
        ["compare", "--prompts", "1", "--max-tokens", "8"],
    ],
    ids=" ".join,
)
def test_so_it_is_of_the_long_ones(arguments, tmp_path):
    """What they call may speak itself: PyTorch's exporter does, on stdout."""
    run = [sys.executable, "-m", "draftlink.cli", *arguments, "--json", "-"]
    done = subprocess.run(run, capture_output=True, text=True, timeout=900, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) and done.stderr.strip()
