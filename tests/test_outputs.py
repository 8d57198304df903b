"""What commands write, and what they keep in the user's folders."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

import draftlink.cli  # registers the commands
from device_runtime.model.bundle import load_bundle
from draftlink.cli.common import app
from draftlink.host import files
from draftlink.host.files import FileError
from draftlink.host.folders import user_path
from export import ExportError
from tinypair import loopback

ERR = Console(stderr=True)
COMMANDS = {
    "export": ["tinypair", "-o", "out"],
    "device": ["bundle", "Hi"],
    "demo": [],
    "compare": [],
    "plan": [],
    "link": ["lte", "--to", "127.0.0.1:9"],
}


def draftlink_command(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("command", COMMANDS)
def test_an_output_that_cannot_be_written_is_known_before_the_work(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "nowhere" / "x.json", tmp_path):
        failed = draftlink_command(command, *COMMANDS[command], "--json", path)
        assert failed.exit_code == 1 and isinstance(failed.exception, FileError)
        assert str(failed.exception).startswith(f"cannot write {path}: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["compare", "plan"])
def test_so_is_a_plot(tmp_path, monkeypatch, command):
    failed = draftlink_command(command, "--plot", tmp_path / "nowhere" / "x.png")
    assert isinstance(failed.exception, FileError)
    failed = draftlink_command(command, "--plot", tmp_path / "x.pdf")
    assert "a .png or an .svg" in str(failed.exception)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    failed = draftlink_command(command, "--plot", tmp_path / "x.png")
    assert "pip install 'draftlink[plot]'" in str(failed.exception)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_a_disk_that_fills_up_leaves_the_old_result(tmp_path, monkeypatch, option):
    path = tmp_path / "plan.svg"
    path.write_text("old")
    real = os.fsync

    def full(handle):
        real(handle)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    failed = draftlink_command("plan", option, path)
    assert str(failed.exception) == f"cannot write {path}: No space left on device"
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_users_folders(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for stated in ("", "relative/one"):  # which the specification says to ignore
        monkeypatch.setenv("XDG_CACHE_HOME", stated)
        found = user_path("XDG_CACHE_HOME", ".cache", "x")
        assert found == tmp_path / ".cache" / "draftlink" / "x"
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert user_path("XDG_CACHE_HOME", ".cache", "x") == Path("/elsewhere/draftlink/x")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 987_654)  # of whom the system knows no home
    assert user_path("XDG_CACHE_HOME", ".cache", "x") is None


@pytest.mark.parametrize("home", ["relative", "relative/one"])
def test_a_home_that_is_no_absolute_path_is_none(monkeypatch, home):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home)
    assert user_path("XDG_CACHE_HOME", ".cache", "x") is None


def test_no_library_is_told_of_folders_that_count_for_nothing(monkeypatch):
    """transformers' hub would make ``huggingface`` in the current folder."""
    stated = {"XDG_CACHE_HOME": "", "XDG_STATE_HOME": "relative", "XDG_DATA_HOME": "/elsewhere"}
    for name, path in stated.items():
        monkeypatch.setenv(name, path)
    seen = []
    monkeypatch.setattr(draftlink.cli, "app", lambda **_: seen.append(dict(os.environ)))
    draftlink.cli.main()
    (environment,) = seen
    assert "XDG_CACHE_HOME" not in environment and "XDG_STATE_HOME" not in environment
    assert environment["XDG_DATA_HOME"] == "/elsewhere"


@pytest.fixture
def exports(monkeypatch, bundle):
    """The exports that the demo makes, each by its place; they are copies of a finished one."""
    made: list[Path] = []

    def export(model, path, precision):
        made.append(path)
        shutil.copytree(bundle().path, path)

    monkeypatch.setattr(loopback, "export_bundle", export)
    return made


def test_the_demos_bundle_is_made_once(monkeypatch, tmp_path, exports):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = {loopback.draft_bundle(ERR) for _ in range(3)}
    assert list(found) == exports and exports[0].parent == tmp_path / "draftlink"


def test_one_demo_exports_while_others_wait(monkeypatch, tmp_path, exports, bundle):
    """Another would read a bundle that is being replaced; what came meanwhile is not made again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    copy = loopback.export_bundle
    held = []

    def export(model, path, precision):
        held.append(files.lock(path.with_name(f"{path.name}.lock"), wait=False) is None)
        copy(model, path, precision)

    monkeypatch.setattr(loopback, "export_bundle", export)
    made = loopback.draft_bundle(ERR)
    assert held == [True]
    shutil.rmtree(made)
    lock = files.lock

    def wait(path):
        shutil.copytree(bundle().path, made)
        return lock(path)

    monkeypatch.setattr(files, "lock", wait)
    assert loopback.draft_bundle(ERR) == made and len(exports) == 1


@pytest.mark.parametrize("home", ["none", "cannot be written to"])
def test_without_a_cache_the_bundle_lasts_as_long_as_the_process(monkeypatch, exports, home):
    where = None if home == "none" else Path("/dev/null/draftlink/x")
    monkeypatch.setattr(loopback, "user_path", lambda *_: where)
    left = []
    monkeypatch.setattr("atexit.register", lambda *call, **_: left.append(call[1]))
    path = loopback.draft_bundle(ERR)
    assert load_bundle(path) and [path] == exports and path.parent == Path(left[0])
    shutil.rmtree(left[0])


def test_what_export_says_is_not_swallowed(monkeypatch, tmp_path):
    def fails(*_):
        raise ExportError("the disk is full")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(loopback, "export_bundle", fails)
    with pytest.raises(ExportError, match="the disk is full"):
        loopback.draft_bundle(ERR)


def base_station(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A base station that ends because it has no model: after it has looked for its key."""
    command = [sys.executable, "-m", "draftlink.cli", "bs", "./no-such-model", "--port", "0"]
    known = {k: v for k, v in os.environ.items() if k != "XDG_STATE_HOME"} | environment
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=120, env=known
    )


def test_a_base_station_without_a_usable_home_says_where_its_key_is():
    done = base_station(HOME="/dev/null")
    assert "no folder ./no-such-model" in done.stderr.replace("\n", " ")
    assert "the ticket key is in memory alone" in done.stderr and "Traceback" not in done.stderr


def test_a_ticket_key_that_is_none_is_one_line():
    before = Path("/etc/passwd").read_bytes()
    done = base_station("--ticket-key", "/etc/passwd")
    lines = done.stderr.splitlines()
    assert done.returncode == 1 and len(lines) == 1 and "holds no ticket key" in lines[0]
    assert "delete" not in lines[0] and Path("/etc/passwd").read_bytes() == before
