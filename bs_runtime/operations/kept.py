"""Secrets that a base station makes for itself and keeps: files that their owner alone may read."""

from __future__ import annotations

import os
import secrets
import shlex
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from draftlink.host.files import FileError


@dataclass(frozen=True)
class Secret:
    """A kind of secret: at most ``most`` bytes, of which ``fits`` says whether they are one.

    ``name``: as messages call it. ``instead``: what to do about a file that holds something else,
    ``elsewhere`` about a place where none can be kept.
    """

    name: str
    fresh: Callable[[], bytes]
    most: int = 1 << 14
    fits: Callable[[bytes], bool] = bool
    instead: str = "remove it, and another is made"
    elsewhere: str = "set XDG_STATE_HOME to another folder"


def kept(path: Path, secret: Secret) -> bytes:
    """The secret that is kept in a file, which is made if it is not there.

    Of several processes that come first at once all have what one has made. Raises FileError where
    it cannot be read or made, ValueError where the file holds none, or others may read it.
    """
    place = Path(os.path.realpath(path))
    try:
        with suppress(FileNotFoundError):
            return _read(place, secret)
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            return _make(place, secret.fresh())
        return _read(place, secret)
    except OSError as error:
        raise FileError(
            f"cannot keep a {secret.name} in {path} ({error.strerror}); {secret.elsewhere}"
        ) from error


def _read(path: Path, secret: Secret) -> bytes:
    """Raises OSError, and ValueError for what is none, or open to others."""
    found = path.stat()
    data = b""
    if stat.S_ISREG(found.st_mode):  # a pipe would be waited for
        with path.open("rb") as file:
            data = file.read(secret.most + 1)
    if len(data) > secret.most or not secret.fits(data):
        raise ValueError(f"{path} holds no {secret.name}; {secret.instead}")
    if os.name == "posix" and found.st_mode & 0o077:
        raise ValueError(
            f"others may read the {secret.name} {path} (mode {stat.S_IMODE(found.st_mode):03o});"
            f" keep it to yourself: chmod 600 {shlex.quote(str(path))}"
        )
    return data


def _make(path: Path, data: bytes) -> bytes:
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
