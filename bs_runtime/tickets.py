"""Tickets: what a device shows to go on with its session; only this station can read them.

A ticket holds the session's id and its secret key, from which every draw follows, so that a base
station that was restarted judges a draft that is sent again as it would have before. It is sealed
with AES-256-GCM under a key that the operator keeps in a file.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from draftlink import noise

_ID_BYTES, _NONCE_BYTES = 16, 12


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

        Raises OSError where it cannot be read or made, ValueError where it holds no key.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            key = path.read_bytes()
            if len(key) != 32:
                raise ValueError(f"{path} holds no ticket key of 32 bytes; delete it") from None
            return cls(key)
        with os.fdopen(handle, "wb") as file:
            file.write(key := AESGCM.generate_key(256))
        return cls(key)

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
