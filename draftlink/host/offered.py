"""What a base station offers of a draft bundle: its files' names, sizes and checksums.

``GET /v1/bundle`` answers with an ``Offer`` as JSON, ``GET /v1/bundle/SHA256`` with a file of it
(docs/protocol.md, section 16). A file is asked for by its checksum: no name that came over the
network is ever looked up at the base station, and what is begun again is what was begun. To who
takes it every word of an offer is a stranger's.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

PATH: Final = "/v1/bundle"
FORMAT: Final = 1
MOST_BYTES: Final = 1 << 20  # of an offer
MOST_FILES: Final = 200
MOST_FILE_BYTES: Final = 1 << 40
MANIFEST: Final = "manifest.json"
NOTHING: Final = "this base station offers no bundle"  # what is said with a 404

# No separator, no dot in front, no name that a system reads as something else.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.I)


class OfferError(ValueError):
    """What is offered cannot be taken, or a folder not be offered; one line says why."""


class OfferedFile(msgspec.Struct, frozen=True):
    """A file: SHA-256 in hex, and its size."""

    sha256: str
    bytes: int


class Offer(msgspec.Struct, frozen=True):
    """A bundle: the name that it goes by, and its files by name, the manifest among them."""

    format: int
    name: str
    files: dict[str, OfferedFile]

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(file.bytes for file in self.files.values())

    @property
    def digest(self) -> str:
        """SHA-256, in hex, of names and contents; what the bundle is called does not count."""
        whole = hashlib.sha256()
        for name, file in sorted(self.files.items()):
            whole.update(f"{name} {file.sha256} {file.bytes}\n".encode())
        return whole.hexdigest()


def is_name(text: str) -> bool:
    """Whether it can name a bundle, or a file of one, in any folder of any system."""
    plain = _NAME.fullmatch(text) and not text.endswith(".") and not _DEVICES.fullmatch(text)
    return bool(plain)


def encode(offer: Offer) -> bytes:
    """An offer as JSON."""
    return msgspec.json.encode(offer)


def decode(data: bytes) -> Offer:
    """An offer that can be taken. Raises OfferError."""
    if len(data) > MOST_BYTES:
        raise OfferError(f"an offer has at most {MOST_BYTES} bytes")
    try:
        offer = msgspec.json.decode(data, type=Offer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise OfferError(f"it is no offer ({error})") from None
    check(offer)
    return offer


def check(offer: Offer) -> None:
    """Raises OfferError for an offer that cannot be taken."""
    if offer.format != FORMAT:
        raise OfferError(f"it has format {offer.format}, this is {FORMAT}")
    if not is_name(offer.name):
        raise OfferError(f"{offer.name!r} cannot name a bundle")
    if not 0 < len(offer.files) <= MOST_FILES or MANIFEST not in offer.files:
        raise OfferError(f"it has not 1 to {MOST_FILES} files, with {MANIFEST} among them")
    if len({name.lower() for name in offer.files}) < len(offer.files):
        raise OfferError("two of its files have one name, but for capitals")
    for name, file in offer.files.items():
        if not is_name(name):
            raise OfferError(f"{name!r} cannot name a file of a bundle")
        if not 0 <= file.bytes <= MOST_FILE_BYTES or not _DIGEST.fullmatch(file.sha256):
            raise OfferError(f"{name} has no size or checksum that can be")
    if offer.files[MANIFEST].bytes > MOST_BYTES:
        raise OfferError(f"its {MANIFEST} is longer than any")
