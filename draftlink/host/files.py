"""Files that are whole or not there, whatever ends the process that writes them."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

# Names that stand for what is open already, and for devices: there is nothing to put beside them.
_AS_THEY_ARE = ("/dev/", "/proc/")


class FileError(OSError):
    """A file that could not be written; what was there before is as it was."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to, of the same ending; it takes the place of ``path`` after the block.

    Where the block raises, nothing is left of it. Through a symbolic link, what the link leads to
    is replaced. A device or a pipe is written to as it is. Raises FileError where ``path`` or the
    block's file cannot be written.
    """
    try:
        if _is_no_file(path):
            yield path
            return
        place, partial = _begin(path)
        try:
            yield partial
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
            partial.replace(place)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error


def check(path: Path) -> None:
    """Raise FileError where ``whole(path)`` would, before there is anything to write."""
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not _is_no_file(path):
            _begin(path)[1].unlink()
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error


def check_folder(path: Path) -> None:
    """Raise FileError where no folder could be made at ``path``, before there is anything in it."""
    try:
        if os.path.lexists(path) and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        place = Path(os.path.abspath(path))
        above = next(parent for parent in place.parents if parent.exists())
        for needed in (above, *([place] if place.exists() else [])):
            if not needed.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(needed, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise FileError(f"cannot write {path}: {error.strerror or error}") from error


def write(path: Path, data: bytes) -> None:
    """Write a whole file. Raises FileError."""
    with whole(path) as partial:
        partial.write_bytes(data)


def _is_no_file(path: Path) -> bool:
    return os.path.abspath(path).startswith(_AS_THEY_ARE) or (path.exists() and not path.is_file())


def _begin(path: Path) -> tuple[Path, Path]:
    """Where a file will stand, and an empty one beside it, with its mode. Raises OSError."""
    place = Path(os.path.realpath(path))
    partial = place.with_name(f".partial-{secrets.token_hex(8)}{place.suffix}")
    mode = None
    with suppress(FileNotFoundError):
        mode = stat.S_IMODE(place.stat().st_mode)
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    if mode is not None:
        partial.chmod(mode)
    return place, partial


def lock(path: Path, *, wait: bool = True) -> int | None:
    """A file, made where it is not there, locked for as long as its descriptor is open.

    The system lets the lock go when the process ends, however it does. None where another holds it,
    unless ``wait``. Raises OSError where the file cannot be made, with ENOLCK where the system or
    the file system has no such locks.
    """
    if sys.platform == "win32":
        raise OSError(errno.ENOLCK, "no locks of whole files here")
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    except OSError as error:
        os.close(handle)
        raise OSError(errno.ENOLCK, f"{path} cannot be locked: {error.strerror}") from error
    return handle


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``lock(path)`` during the block, after whoever holds it, where there are locks.

    Raises OSError where the file cannot be made.
    """
    handle = None
    try:
        handle = lock(path)
    except OSError as error:
        if error.errno != errno.ENOLCK:
            raise
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)
