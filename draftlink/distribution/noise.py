"""Counter-based random numbers: a draw is a function of (key, position, purpose), never of a state.

A round that is verified again therefore gives the same verdict, on any machine and after any
restart. The generator is BLAKE2b as a keyed pseudo-random function: without the key a peer cannot
tell its draws from chance, nor steer them.
"""

from __future__ import annotations

import hashlib
import secrets
from enum import IntEnum

KEY_BYTES = 32


class Purpose(IntEnum):
    """What a number is drawn for. Different purposes never share numbers."""

    DRAFT = 0
    ACCEPT = 1
    RESIDUAL = 2
    BONUS = 3
    STREAM = 4
    PAIR = 5  # of the target's, which a device corrects by (``split``),
    RECOVER = 6  # and whether one of them is the correction


def fresh_key() -> bytes:
    """A new secret key, for draws that no seed decides."""
    return secrets.token_bytes(KEY_BYTES)


def key_from_seed(seed: int, role: str) -> bytes:
    """The key of ``role`` ("device" or "bs") in a generation with a seed (any 64-bit integer).

    The two ends get unrelated keys: were they equal, the draft's draws and the base station's
    accept draws could be told from one another.
    """
    message = (seed & 0xFFFF_FFFF_FFFF_FFFF).to_bytes(8, "little")
    return hashlib.blake2b(message, digest_size=KEY_BYTES, person=role.encode()).digest()


def key_of_generation(secret: bytes, generation: int) -> bytes:
    """The key of one generation of a session whose secret key is ``secret``."""
    message = generation.to_bytes(8, "little")
    return hashlib.blake2b(
        message, digest_size=KEY_BYTES, key=secret, person=b"generation"
    ).digest()


def key_of_epoch(key: bytes, position: int) -> bytes:
    """The key of what a device drafts in the epoch that began at ``position``, of a generation's.

    A token that is drawn and thrown away behind a correction has been seen: how long it took may
    have decided how to go on. The draw that takes its place must not be from the same number. No
    two epochs of a generation that draw anything begin at one position, since each ends with a
    token that was not drafted; and that position, unlike a frame's base or a session's count of
    epochs, is the same over any link.
    """
    message = position.to_bytes(8, "little")
    return hashlib.blake2b(message, digest_size=KEY_BYTES, key=key, person=b"epoch").digest()


def bits64(key: bytes, position: int, purpose: Purpose, tier: int = 0, candidate: int = 0) -> int:
    """64 random bits for one purpose at one position; ``tier`` counts draws that follow on it.

    ``candidate``, from 0 to 255, numbers the tokens that are proposed for one position, so that
    siblings of a tree do not share their numbers. Raises ValueError for one out of range.
    """
    what = (purpose, tier, candidate) if candidate else (purpose, tier) if tier else (purpose,)
    message = position.to_bytes(8, "little") + bytes(what)  # its length tells the three apart
    return int.from_bytes(hashlib.blake2b(message, digest_size=8, key=key).digest(), "little")


def uniform(key: bytes, position: int, purpose: Purpose, candidate: int = 0) -> float:
    """A float in [0, 1) with 53 random bits; ``candidate`` as in ``bits64``."""
    return (bits64(key, position, purpose, candidate=candidate) >> 11) * 2.0**-53


def below(
    key: bytes, position: int, purpose: Purpose, total: int, tier: int = 0, candidate: int = 0
) -> int:
    """An integer in [0, total), total < 2**32; its bias is below total / 2**64 (under 2**-32)."""
    return (bits64(key, position, purpose, tier, candidate) * total) >> 64
