"""Where a finished folder goes: the place of an older one of its kind, and of nothing else.

The new folder is made in a scratch folder beside its place. Where the system can exchange two names
in one step, the place always has one whole folder, the old or the new; elsewhere the old one is
named aside for a moment. A scratch folder is locked by the process that it belongs to: what a
process that was killed has left, the next that comes to the same place puts right.
"""

from __future__ import annotations

import ctypes
import errno
import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from draftlink.host import files
from export import ExportError


@dataclass(frozen=True)
class Ours:
    """What this program's folders of a kind are known by, so that no other is ever deleted.

    ``label``: the file that says what a folder is, the last one that is deleted. ``objection``:
    why a folder, of which some files may be gone, is not all ours; None where it is. No objection
    to an empty one.
    """

    label: str
    objection: Callable[[Path], str | None]


_MARK = ".draftlink-"  # in the name of a scratch folder, between the place's name and a random end
_LOCK, _NEW, _OLD = "lock", "new", "old"
_FULL = (errno.ENOTEMPTY, errno.EEXIST)
_TRIES = 1000  # each other process that comes to the same place costs one or two


def check(out: Path, ours: Ours) -> None:
    """Raise ExportError where ``out`` is there, and is not a folder that may be replaced."""
    try:
        place = out.resolve()
        why = None if not os.path.lexists(place) else _why_not(place, ours)
    except (OSError, RuntimeError) as error:  # Python 3.11 has a RuntimeError for a loop of links
        raise ExportError(f"cannot read {out}: {_words(error)}") from None
    if why is not None:
        raise ExportError(f"{out} {why}")


def _why_not(place: Path, ours: Ours) -> str | None:
    """The objection to what is at ``place``. Raises OSError where it cannot be read."""
    for _ in range(_TRIES):
        with suppress(FileNotFoundError):
            before = place.stat()
            if not place.is_dir():
                return "is a file; name a folder"
            if place.is_mount():
                return "is a mount point; name a folder in it"
            why = ours.objection(place)
            if os.path.samestat(before, place.stat()):  # else another process has put its own there
                return why
        if not os.path.lexists(place):
            return None
    raise OSError(errno.EBUSY, "it changes all the time")


@contextmanager
def beside(out: Path, ours: Ours) -> Iterator[Place]:
    """A place for a folder at ``out``, whose parents are made; a failure leaves none of them.

    Raises ExportError for what is at ``out`` and not ``ours``, for a folder that cannot be written
    to, and for a disk that is full.
    """
    check(out, ours)
    try:
        with ExitStack() as undo:
            yield Place(out.resolve(), ours, undo)
    except OSError as error:
        raise ExportError(f"cannot write {out}: {_words(error)}") from error


class Place:
    """A place for a folder. ``scratch``: for whatever is needed to make it; ``new``: to fill."""

    def __init__(self, out: Path, ours: Ours, undo: ExitStack) -> None:
        """``undo`` takes what deletes the scratch folder. Raises OSError where none can be made."""
        self._out, self._ours = out, ours
        for parent in reversed([p for p in out.parents if not p.exists()]):
            undo.callback(_leave_if_full, parent)
        self.scratch = self._make(undo)
        self.new, self._old = self.scratch / _NEW, self.scratch / _OLD
        for left in out.parent.glob(f".{glob.escape(out.name)}{_MARK}*"):
            self._heal(left)
        self.new.mkdir()

    def _make(self, undo: ExitStack) -> Path:
        """A scratch folder, locked."""
        for _ in range(_TRIES):
            with suppress(FileNotFoundError):  # another took it for one that was left behind
                self._out.parent.mkdir(parents=True, exist_ok=True)
                name = tempfile.mkdtemp(prefix=f".{self._out.name}{_MARK}", dir=self._out.parent)
                scratch = Path(name)
                try:
                    handle = _own(scratch)
                except OSError as error:
                    if error.errno != errno.ENOLCK:
                        raise
                    # Then nobody can tell that it is left behind, and if it is, it stays.
                else:
                    if handle is None:
                        continue
                    undo.callback(os.close, handle)
                undo.callback(self._clear, scratch)
                return scratch
        raise OSError(errno.EBUSY, "too many processes write to it")

    def put(self) -> None:
        """Put ``new`` where it belongs, and delete what was there.

        Raises ExportError where that has become something that may not be replaced: it stays.
        """
        for _ in range(_TRIES):
            try:
                self.new.rename(self._out)
            except OSError as error:
                if error.errno not in _FULL:
                    raise
            else:
                return
            if self._old.exists():  # named aside in the last turn, and then another was quicker
                _delete(self._old, self._ours)
            check(self._out, self._ours)
            self.new.rename(self._old)
            if exchange(self._old, self._out):
                if (why := self._ours.objection(self._old)) is None:
                    return
                self._give_back(why)
            self._old.rename(self.new)
            with suppress(FileNotFoundError):
                self._out.rename(self._old)
                if (why := self._ours.objection(self._old)) is not None:
                    self._give_back(why)
        raise OSError(errno.EBUSY, "too many processes write to it")

    def _give_back(self, why: str) -> None:
        """What was moved aside goes back, or its owner is told where it is. Raises ExportError."""
        if exchange(self._old, self._out):
            raise ExportError(f"{self._out} {why}")
        with suppress(OSError):
            self._old.rename(self._out)
        where = f"; it is in {self._old} now" if self._old.exists() else ""
        raise ExportError(f"{self._out} {why}{where}")

    def _heal(self, left: Path) -> None:
        """Clear a scratch folder whose process has ended."""
        if left == self.scratch or left.is_symlink() or not left.is_dir():
            return
        with suppress(OSError):
            if (handle := _own(left)) is not None:
                try:
                    self._clear(left)
                finally:
                    os.close(handle)

    def _clear(self, scratch: Path) -> None:
        """Delete a scratch folder; what was named aside goes back where nothing has come."""
        old = scratch / _OLD
        with suppress(OSError):
            if old.is_dir() and not os.path.lexists(self._out):
                old.rename(self._out)
        if old.is_dir():
            with suppress(OSError):
                _delete(old, self._ours)
        if not old.exists():
            shutil.rmtree(scratch, ignore_errors=True)


def _own(scratch: Path) -> int | None:
    """The lock of a scratch folder; None where a living process has it.

    Raises FileNotFoundError where it is gone, OSError where the file system has no locks.
    """
    path = scratch / _LOCK
    handle = files.lock(path, wait=False)
    if handle is None:
        return None
    try:
        same = os.path.samestat(os.fstat(handle), path.stat())
    except OSError:
        os.close(handle)
        raise
    if not same:
        os.close(handle)
        return None
    return handle


def _leave_if_full(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


def _delete(folder: Path, ours: Ours) -> None:
    """Delete a folder if it is ours, file by file; what has come since stays. Raises OSError."""
    names = os.listdir(folder)
    if ours.objection(folder) is None:
        for name in sorted(names, key=lambda name: name == ours.label):
            (folder / name).unlink()
        folder.rmdir()


def exchange(a: Path, b: Path) -> bool:
    """Exchange two names in one step; False where the system or the file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(rename(here, os.fsencode(a), here, os.fsencode(b), swap) == 0)


def _words(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)
