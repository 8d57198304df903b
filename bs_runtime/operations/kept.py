"""Secrets that a base station makes for itself and keeps: files that their owner alone may read."""

from __future__ import annotations

import os
import secrets
import shlex
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from draftlink.host.files import FileError


def kept(path: Path, fresh: Callable[[], bytes], most: int = 1 << 14) -> bytes:
    """What is kept in a file of at most ``most`` bytes, which is made if it is not there.

    Of several processes that come first at once all have what one has made. Raises FileError where
    it cannot be read or made, ValueError where others may read it, or it is too long.
    """
    place = Path(os.path.realpath(path))
    try:
        with suppress(FileNotFoundError):
            return read(place, most)
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            return make(place, fresh())
        return read(place, most)
    except OSError as error:
        raise FileError(f"cannot keep a secret in {path} ({error.strerror})") from error


def read(path: Path, most: int) -> bytes:
    """A secret. Raises OSError, and ValueError for one that is too long, or open to others."""
    found = path.stat()
    data = b""
    if stat.S_ISREG(found.st_mode):  # a pipe would be waited for
        with path.open("rb") as file:
            data = file.read(most + 1)
    if not 0 < len(data) <= most:
        raise ValueError(f"{path} is not what was kept there; remove it, and another is made")
    if os.name == "posix" and found.st_mode & 0o077:
        raise ValueError(
            f"others may read {path} (mode {stat.S_IMODE(found.st_mode):03o}); keep it to yourself:"
            f" chmod 600 {shlex.quote(str(path))}"
        )
    return data


def make(path: Path, data: bytes) -> bytes:
    """The same data, in a new file that has all of it at once.

    Raises OSError, FileExistsError among it.
    """
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.link(partial, path)  # a rename would replace what another process has just made
    finally:
        partial.unlink(missing_ok=True)
    return data
