"""Processes that commands and benchmarks start: what they import, and how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

import bench
import draftlink
from draftlink.host import children
from tinypair.loopback import base_station

ROOT = Path(draftlink.__file__).parent.parent
HOSTILE = ("draftlink/__init__.py", "bench/__init__.py", "typer.py", "numpy.py", "asyncio.py")
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('ready', flush=True); signal.pause()"
)


@pytest.fixture
def hostile(monkeypatch, tmp_path):
    """The current folder holds modules of names that a child imports."""
    for name in HOSTILE:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("raise SystemExit('the folder of the user was imported')")
    monkeypatch.chdir(tmp_path)


def test_a_base_station_starts_in_any_folder(hostile, model_folder):
    with base_station(Console(stderr=True), str(model_folder("llama"))) as url:
        assert url.startswith("ws://127.0.0.1:")


@pytest.mark.parametrize("arguments", [["-c", "import typer, bench as b; print(b.__file__)"]])
def test_a_child_finds_what_its_parent_found(hostile, monkeypatch, arguments):
    """Also a clone's modules, which only the parent's current folder or PYTHONPATH named."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with children.child(arguments, pytest.fail, stdout=subprocess.PIPE) as process:
        assert process.communicate()[0].strip() == bench.__file__
    # The control: without it, the user's folder is first.
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert "the folder of the user was imported" in done.stderr


def test_what_the_user_put_on_the_path_stays(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/some/folder")
    assert children.environment(A="b")["PYTHONPATH"].split(os.pathsep)[-1] == "/some/folder"
    assert children.environment(A="b")["A"] == "b"


def test_nobody_else_starts_a_python():
    """``sys.executable`` with the current folder on its path is what ``children`` is for."""
    sources = [p for room in ("draftlink", "bench") for p in (ROOT / room).rglob("*.py")]
    named = {p.relative_to(ROOT).as_posix() for p in sources if "sys.executable" in p.read_text()}
    assert named == {"draftlink/host/children.py"}


def test_who_does_not_end_is_killed_and_the_error_stays():
    said: list[str] = []
    child = children.child(["-c", STUBBORN], said.append, 0.05, stdout=subprocess.PIPE)
    with pytest.raises(ValueError, match="the first error"), child as process:
        assert process.stdout.readline() == "ready\n"
        raise ValueError("the first error")
    assert process.returncode == -signal.SIGKILL and process.stdout.closed
    assert said == [f"process {process.pid} did not end within 0.05 s of SIGTERM: killed"]


def test_who_ends_is_not_spoken_of():
    code = "import signal; print('ready', flush=True); signal.pause()"
    with children.child(["-c", code], pytest.fail, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
    assert process.returncode == -signal.SIGTERM


def test_a_second_ctrl_c_does_not_wait(monkeypatch):
    """Who is told twice while it waits for its child kills it, and ends."""

    def interrupted(*_):
        raise KeyboardInterrupt

    with ExitStack() as stack:
        stack.enter_context(pytest.raises(KeyboardInterrupt))
        child = children.child(["-c", STUBBORN], pytest.fail, stdout=subprocess.PIPE)
        process = stack.enter_context(child)
        process.stdout.readline()
        monkeypatch.setattr(children, "end", interrupted)
    assert process.returncode == -signal.SIGKILL


def test_sigterm_cancels_a_coroutine_and_strikes_nothing_else():
    """A connection's own task goes on, so that it can be closed at the end."""
    begun, closed = [], []

    async def connection(open_: asyncio.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)  # the handler runs here
        begun.append(True)
        await open_.wait()
        closed.append(True)

    async def main() -> None:
        leaving = asyncio.Event()
        other = asyncio.create_task(connection(leaving))
        try:
            await asyncio.Event().wait()
        finally:
            leaving.set()
            await other

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as left, children.terminable():
        children.run(main())
    assert left.value.code == 128 + signal.SIGTERM
    assert begun == closed == [True]
    assert signal.getsignal(signal.SIGTERM) is before


def test_run_returns_and_raises_as_asyncio_does():
    async def value() -> int:
        return 5

    async def cancelled() -> None:
        raise asyncio.CancelledError

    assert children.run(value()) == 5
    with pytest.raises(asyncio.CancelledError):
        children.run(cancelled())
