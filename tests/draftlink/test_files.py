"""A file is whole or not there, and what stood there before stays until it is."""

from __future__ import annotations

import errno
import functools
import itertools
import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from draftlink.host import files
from draftlink.host.files import FileError


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path):
    path = tmp_path / "result.json"
    files.write(path, b"old")
    os.umask(mask := os.umask(0))
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~mask
    path.chmod(0o640)
    files.write(path, b"new")
    assert path.read_bytes() == b"new" and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_the_ending_is_kept(tmp_path):
    """By it matplotlib and numpy know what to write."""
    with files.whole(tmp_path / "plot.svg") as partial:
        assert partial.suffix == ".svg" and partial.parent == tmp_path


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), ValueError("no"), SystemExit(1)])
def test_what_fails_leaves_the_old(tmp_path, error):
    path = tmp_path / "result.json"
    files.write(path, b"old")
    with pytest.raises((FileError, ValueError, SystemExit)), files.whole(path) as partial:
        partial.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [True, False])
def test_a_kill_at_any_line(tmp_path, there):
    """The old file or the new one, whole; at most a partial one beside it."""
    seen = set()
    for number in itertools.count():
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "result.json"
        if there:
            path.write_bytes(b"old")
        if (pid := os.fork()) == 0:
            lines = 0

            def trace(frame, event, _):
                nonlocal lines
                if frame.f_code.co_filename != files.__file__:
                    return None
                lines += event == "line"
                if lines > number:  # noqa: B023
                    os._exit(9)
                return trace

            sys.settrace(trace)
            files.write(path, b"new")
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        seen.add(path.read_bytes() if path.exists() else None)
        if code == 0:
            break
        assert code == 9
    assert seen == {b"old" if there else None, b"new"} and number > 10


def test_a_link_stays(tmp_path):
    path, link = tmp_path / "result.json", tmp_path / "link.json"
    link.symlink_to(path)
    for data in (b"old", b"new"):
        files.check(link)
        files.write(link, data)
        assert link.is_symlink() and path.read_bytes() == data


def test_devices_and_pipes_are_written_to(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
    reader.start()
    files.check(pipe)
    files.write(pipe, b"through")
    reader.join(10)
    assert found == [b"through"] and stat.S_ISFIFO(pipe.stat().st_mode)
    files.write(Path("/dev/null"), b"away")
    assert Path("/dev/null").is_char_device()
    with pytest.raises(FileError, match="cannot write /dev/full: No space left on device"):
        files.write(Path("/dev/full"), b"x" * (1 << 20))


@pytest.mark.parametrize("act", [files.check, functools.partial(files.write, data=b"")])
def test_what_cannot_be_written_is_one_line(tmp_path, act):
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "loop").symlink_to("loop")
    for path, words in (
        (tmp_path, "Is a directory"),
        (tmp_path / "nowhere" / "result.json", "No such file or directory"),
        (tmp_path / "file" / "result.json", "Not a directory"),
        (tmp_path / "loop", "Too many levels of symbolic links"),
    ):
        with pytest.raises(FileError, match=f"^cannot write {path}: {words}$"):
            act(path)
    assert (tmp_path / "file").read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 2


def test_a_look_changes_nothing(tmp_path):
    path = tmp_path / "result.json"
    files.check(path)
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"old")
    files.check(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_lock_is_one_holders_until_it_is_closed(tmp_path):
    path = tmp_path / "lock"
    first = files.lock(path)
    assert first is not None and files.lock(path, wait=False) is None
    os.close(first)
    with files.locked(path):
        assert files.lock(path, wait=False) is None
    second = files.lock(path, wait=False)
    assert second is not None
    os.close(second)


def test_a_lock_ends_with_its_process(tmp_path):
    path = tmp_path / "lock"
    read, write = os.pipe()
    if (pid := os.fork()) == 0:
        files.lock(path)
        os.write(write, b"x")
        threading.Event().wait()
    os.read(read, 1)
    assert files.lock(path, wait=False) is None
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    handle = files.lock(path, wait=False)
    assert handle is not None
    for each in (handle, read, write):
        os.close(each)
