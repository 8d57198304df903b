"""Bearer tokens (RFC 6750): the tokens file, and who a request's header belongs to.

A line is ``TOKEN [NAME] [operator] [limit=value ...]``; ``TOKEN`` may be given as
``sha256:HEX``, so that the file holds no secret; ``*`` changes the limits of the lines below it;
``#`` begins a comment. ``operator`` may read /metrics and the live page, and not draft. What a
tenant has here belongs to its name: a token without one is named after its hash, which no other
line can change.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from bs_runtime.operations.limits import OPEN, Limits, Tenant

JOINED = "joined"  # the name of all devices that have read the base station's code
LEAST_LENGTH = 16  # characters of a token; a shorter one can be guessed


@dataclass(frozen=True)
class Tokens:
    """All tenants, each with the SHA-256 of its token."""

    tenants: tuple[tuple[bytes, Tenant], ...]

    def find(self, authorization: str | None) -> Tenant | None:
        """The tenant of an ``Authorization`` header's text, None if it is nobody's."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = hashlib.sha256(token.strip().encode("latin-1", "replace")).digest()
        found = None
        for known, tenant in self.tenants:  # all of them: the time tells nothing
            if hmac.compare_digest(known, digest):
                found = tenant
        return found


def load_tokens(path: Path, limits: Limits | None = None) -> Tokens:
    """Read a tokens file; ``limits`` are those of a line that names none. Raises ValueError."""
    limits = limits or Limits()
    tenants: dict[bytes, Tenant] = {}
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the tokens file {path} cannot be read ({error})") from None
    for number, line in enumerate(text.splitlines(), 1):
        token, *words = line.partition("#")[0].split() or [""]
        if not token:
            continue
        settings = [word for word in words if "=" in word]
        names = [word for word in words if "=" not in word and word != "operator"]
        try:
            if token == "*":
                limits = limits.with_(settings)
                continue
            digest = _digest(token)
            if digest in tenants:
                raise ValueError("this token stands above already")
            if len(names) > 1:
                raise ValueError(f"one name, not {' '.join(names)!r}")
            name = names[0] if names else f"token-{digest.hex()[:12]}"
            if any(tenant.name == name for tenant in tenants.values()):
                raise ValueError(f"the name {name!r} stands above already")
            tenants[digest] = Tenant(name, limits.with_(settings), operator="operator" in words)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    if not tenants:
        raise ValueError(
            f"{path} has no token; make one with"
            " `python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
        )
    return Tokens(tuple(tenants.items()))


def joined(token: str, limits: Limits, known: Tokens | None) -> Tokens:
    """The ``known`` tokens, and the one that devices join with. Raises ValueError."""
    own = hashlib.sha256(token.encode()).digest(), Tenant(JOINED, limits)
    others = () if known is None else known.tenants
    if any(digest == own[0] or tenant.name == JOINED for digest, tenant in others):
        raise ValueError(
            f"the tokens file has the name {JOINED!r}, or the QR code's token, which are --qr's"
        )
    return Tokens((*others, own))


def _digest(token: str) -> bytes:
    if token.startswith("sha256:"):
        digest = bytes.fromhex(token.removeprefix("sha256:"))
        if len(digest) != 32:
            raise ValueError("a SHA-256 has 64 hexadecimal digits")
        return digest
    if len(token) < LEAST_LENGTH:
        raise ValueError(f"a token has at least {LEAST_LENGTH} characters")
    return hashlib.sha256(token.encode()).digest()


def anyone(limits: Limits | None = None) -> Tenant:
    """The tenant of all devices where no tokens are asked for: nobody's, so nothing is shared."""
    return Tenant("", limits or OPEN)
