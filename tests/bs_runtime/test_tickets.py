"""The key of the tickets: whole or not there, one for all, for its owner's eyes alone."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bs_runtime.operations import kept
from bs_runtime.serving.tickets import Sealer, Ticket

TICKET = Ticket(bytes(16), bytes(range(32)), "phone")


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def opens(sealer: Sealer, path: Path) -> bool:
    """Whether a sealer has the key that is in a file."""
    return Sealer.from_file(path).open(sealer.seal(TICKET)) == TICKET


def test_a_key_is_made_once_and_is_ones_own(tmp_path):
    path = tmp_path / "state" / "ticket.key"
    first = Sealer.from_file(path)
    assert opens(first, path)
    assert len(path.read_bytes()) == 32 and stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]
    assert Sealer().open(first.seal(TICKET)) is None


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_a_full_disk_spoils_no_later_start(tmp_path, monkeypatch, step):
    path = tmp_path / "ticket.key"
    with monkeypatch.context() as patch:
        patch.setattr(os, step, full_disk)
        with pytest.raises(OSError, match=r"cannot keep a ticket key in .*No space left on device"):
            Sealer.from_file(path)
    assert list(tmp_path.iterdir()) == []
    assert opens(Sealer.from_file(path), path)


def test_a_disk_that_is_really_full(tmp_path):
    """A limit on the size of files does what a full disk does, with the kernel's own error."""
    path = tmp_path / "ticket.key"
    code = (
        "import pathlib, resource, signal, sys\n"
        "from bs_runtime.serving.tickets import Sealer\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    Sealer.from_file(pathlib.Path(sys.argv[1]))\n"
        "except OSError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "cannot keep a ticket key" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def at_line(number: int, act: Callable[[], object], work: Callable[[], Sealer]) -> Sealer | None:
    """Work, and act before a line of ``kept`` is run; None where it has fewer lines."""
    seen = -1

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal seen
        if frame.f_code.co_filename != kept.__file__:
            return None
        if event == "line":
            seen += 1
            if seen == number:
                sys.settrace(None)
                act()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        made = work()
    finally:
        sys.settrace(before)
    return made if seen >= number else None


def test_a_kill_at_any_line_spoils_no_later_start(tmp_path):
    for number in itertools.count():
        path = tmp_path / str(number) / "state" / "ticket.key"
        first = functools.partial(Sealer.from_file, path)
        if (pid := os.fork()) == 0:
            try:
                at_line(number, lambda: os._exit(9), first)
            finally:
                os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert opens(Sealer.from_file(path), path)
        if code == 0:
            break
        assert code == 9
    assert number > 10


def test_a_start_at_any_line_of_another_has_the_same_key(tmp_path):
    for number in itertools.count():
        path = tmp_path / str(number) / "ticket.key"
        others: list[Sealer] = []
        first = functools.partial(Sealer.from_file, path)
        made = at_line(number, lambda: others.append(first()), first)  # noqa: B023
        if made is None:
            break
        assert opens(made, path) and opens(others[0], path)
        assert list(path.parent.iterdir()) == [path]
    assert number > 10


def test_first_starts_at_once_have_one_key(tmp_path):
    for turn in range(3):
        path = tmp_path / str(turn) / "ticket.key"
        reads, pids = [], []
        for _ in range(8):
            read, write = os.pipe()
            if (pid := os.fork()) == 0:
                code = 1
                try:
                    os.write(write, Sealer.from_file(path).seal(TICKET))
                    code = 0
                finally:
                    os._exit(code)
            os.close(write)
            reads.append(read)
            pids.append(pid)
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 8
        key = Sealer.from_file(path)
        for read in reads:
            with os.fdopen(read, "rb") as sealed:
                assert key.open(sealed.read()) == TICKET


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(tmp_path, mode):
    path = tmp_path / "ticket key"
    Sealer.from_file(path)
    path.chmod(mode)
    with pytest.raises(ValueError, match=f"mode {mode:o}.*: chmod 600 '{path}'"):
        Sealer.from_file(path)
    assert len(path.read_bytes()) == 32


@pytest.mark.parametrize("content", [b"", b"root:x:0:0:root:/root:/bin/bash\n" * 3, bytes(31)])
def test_what_is_no_key_is_never_to_be_deleted(tmp_path, content):
    path = tmp_path / "passwd"
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.raises(ValueError, match="holds no ticket key") as caught:
        Sealer.from_file(path)
    text = str(caught.value)
    assert "another name" in text and "chmod" not in text and "delete" not in text
    assert path.read_bytes() == content


def test_folders_and_pipes(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match="holds no ticket key"):
            Sealer.from_file(path)
    with pytest.raises(OSError, match="cannot keep a ticket key"):
        Sealer.from_file(Path("/dev/null/ticket.key"))


def test_through_a_link_the_key_is_made_where_it_leads(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "ticket.key")
    assert opens(Sealer.from_file(tmp_path / "link"), tmp_path / "ticket.key")


@pytest.mark.parametrize("path", [None, Path("/dev/null/draftlink/ticket.key")])
def test_without_a_usable_home_the_key_is_in_memory(caplog, path):
    sealer = Sealer.by_default(path)
    assert sealer.open(sealer.seal(TICKET)) == TICKET
    assert ["in memory alone" in line for line in caplog.messages] == [True]


def test_the_default_key_is_kept_where_there_is_a_home(tmp_path, caplog):
    path = tmp_path / "ticket.key"
    assert opens(Sealer.by_default(path), path) and caplog.messages == []
    path.chmod(0o644)
    with pytest.raises(ValueError, match="chmod 600"):
        Sealer.by_default(path)
