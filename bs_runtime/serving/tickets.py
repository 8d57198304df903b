"""Tickets: what a device shows to go on with its session; only this station can read them.

A ticket holds the session's id and its secret key, from which every draw follows, so that a base
station that was restarted judges a draft that is sent again as it would have before. It is sealed
with AES-256-GCM under a key that the operator keeps in a file.
"""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bs_runtime.operations import kept
from draftlink.distribution import noise
from draftlink.host.files import FileError

log = logging.getLogger("draftlink.bs")

_ID_BYTES, _NONCE_BYTES, _KEY_BYTES = 16, 12, 32


@dataclass(frozen=True)
class Ticket:
    """A session: ``id`` names it, ``key`` is its secret, ``tenant`` whose it is."""

    id: bytes
    key: bytes
    tenant: str = ""

    @classmethod
    def fresh(cls, tenant: str = "") -> Ticket:
        """A ticket of a new session."""
        return cls(secrets.token_bytes(_ID_BYTES), noise.fresh_key(), tenant)


class Sealer:
    """Seals tickets. ``key``: 32 bytes; without one, tickets end with the process."""

    def __init__(self, key: bytes | None = None) -> None:
        self._box = AESGCM(key or AESGCM.generate_key(256))

    @classmethod
    def from_file(cls, path: Path) -> Sealer:
        """A sealer whose key is kept in ``path``, which is made if it is not there.

        Of several processes that come first at once all have the key of one. Raises FileError
        where it cannot be read or made, ValueError where it holds no key or others may read it.
        """
        place = Path(os.path.realpath(path))
        try:
            with suppress(FileNotFoundError):
                return cls(_read(place))
            place.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                return cls(kept.make(place, AESGCM.generate_key(8 * _KEY_BYTES)))
            return cls(_read(place))
        except OSError as error:
            raise FileError(
                f"cannot keep a ticket key in {path} ({error.strerror}); give --ticket-key another"
                " name"
            ) from error

    @classmethod
    def by_default(cls, path: Path | None) -> Sealer:
        """``from_file`` where that can be, else a sealer whose tickets end with the process.

        ``path``: None where the user has no home. Says in the log what is so. Raises ValueError as
        ``from_file`` does.
        """
        why = "there is no home directory; --ticket-key names a file for it"
        if path is not None:
            try:
                return cls.from_file(path)
            except FileError as error:
                why = str(error)
        log.warning("the ticket key is in memory alone, a restart ends all sessions: %s", why)
        return cls()

    def seal(self, ticket: Ticket) -> bytes:
        """The bytes that a device keeps."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        inside = ticket.id + ticket.key + ticket.tenant.encode()
        return nonce + self._box.encrypt(nonce, inside, b"draftlink ticket")

    def open(self, sealed: bytes) -> Ticket | None:
        """The ticket, or None for bytes that this station has not sealed."""
        nonce, inside = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            plain = self._box.decrypt(nonce, inside, b"draftlink ticket")
        except (InvalidTag, ValueError):
            return None
        key = _ID_BYTES + noise.KEY_BYTES
        return Ticket(plain[:_ID_BYTES], plain[_ID_BYTES:key], plain[key:].decode())


def _read(path: Path) -> bytes:
    """The key in a file. Raises OSError, and ValueError for one that is none, or open to others."""
    found = path.stat()
    key = b""
    if stat.S_ISREG(found.st_mode):  # a pipe would be waited for
        with path.open("rb") as file:
            key = file.read(_KEY_BYTES + 1)
    if len(key) != _KEY_BYTES:
        raise ValueError(
            f"{path} holds no ticket key of {_KEY_BYTES} bytes; give --ticket-key another name, and"
            " a key is made there"
        )
    if os.name == "posix" and found.st_mode & 0o077:
        raise ValueError(
            f"others may read the ticket key {path} (mode {stat.S_IMODE(found.st_mode):03o}); keep"
            f" it to yourself: chmod 600 {shlex.quote(str(path))}"
        )
    return key
