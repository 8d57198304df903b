"""A draft bundle for devices that ask for it: read once, held open, sent in parts.

Its files are opened when the base station starts, and never looked up again: what is exported over
them meanwhile changes nothing that is sent. Files are asked for by checksum (``host.offered``).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path
from typing import Final

import msgspec

from draftlink.host import offered
from draftlink.host.offered import MANIFEST, Offer, OfferedFile, OfferError

PART_BYTES: Final = 1 << 16  # read, and sent, at a time
_RANGE = re.compile(r"bytes=(\d{1,15})-(\d{1,15})?")


class _Told(msgspec.Struct):
    """What is read of a bundle's manifest here; the rest concerns the device."""

    files: dict[str, OfferedFile]
    tokenizer_hash: str


class Offered:
    """The bundle in ``folder``, whole. Raises OfferError.

    ``tokenizer_hash``: its manifest's.
    """

    def __init__(self, folder: Path) -> None:
        self._handles: dict[str, int] = {}
        try:
            told = self._take(folder, MANIFEST, None)
            manifest = msgspec.json.decode(os.pread(*self._whole(told)), type=_Told)
            files = {MANIFEST: told}
            for name, file in manifest.files.items():
                files[name] = self._take(folder, name, file)
            self.offer = Offer(offered.FORMAT, folder.resolve().name, files)
            offered.check(self.offer)
        except (OSError, msgspec.DecodeError, OfferError) as error:
            self.close()
            raise OfferError(
                f"{folder} cannot be offered ({error}); give a bundle of `draftlink export`"
            ) from None
        self.tokenizer_hash = manifest.tokenizer_hash
        self.sizes = {file.sha256: file.bytes for file in files.values()}

    def close(self) -> None:
        """Offer nothing any more."""
        for handle in self._handles.values():
            os.close(handle)
        self._handles.clear()

    def check(self, tokenizer_hash: str) -> None:
        """Raises OfferError where the bundle drafts in other tokens than the target's."""
        if self.tokenizer_hash != tokenizer_hash:
            raise OfferError(
                f"the bundle {self.offer.name} that is offered has another tokenizer than the"
                " target, and could not draft for it"
            )

    def read(self, sha256: str, at: int, count: int) -> bytes:
        """At most ``count`` bytes of a file. Raises OSError, KeyError."""
        return os.pread(self._handles[sha256], count, at)

    def _whole(self, file: OfferedFile) -> tuple[int, int, int]:
        return self._handles[file.sha256], file.bytes, 0

    def _take(self, folder: Path, name: str, said: OfferedFile | None) -> OfferedFile:
        """Open a file that is what the manifest says of it. Raises OfferError, OSError."""
        if not offered.is_name(name):
            raise OfferError(f"{name!r} cannot name a file of a bundle")
        handle = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._handles[f"of {name}"] = handle  # until its checksum is known
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            raise OfferError(f"{name} is no file")
        if name == MANIFEST and about.st_size > offered.MOST_BYTES:
            raise OfferError(f"{name} is longer than any")
        with os.fdopen(os.dup(handle), "rb") as reader:
            found = OfferedFile(hashlib.file_digest(reader, "sha256").hexdigest(), about.st_size)
        if said is not None and said != found:
            raise OfferError(f"{name} is not what its {MANIFEST} says")
        del self._handles[f"of {name}"]
        if (before := self._handles.pop(found.sha256, None)) is not None:
            os.close(before)  # two files that hold the same
        self._handles[found.sha256] = handle
        return found


def span(header: str | None, size: int) -> tuple[int, int] | None:
    """What a ``Range`` header asks for of ``size`` bytes: from, and to (excluded).

    All of it where the header is of another form, as RFC 9110 (14.2) allows; None where it asks
    for nothing that is there.
    """
    found = _RANGE.fullmatch((header or "").strip())
    if found is None:
        return 0, size
    begin = int(found[1])
    end = min(size, int(found[2]) + 1) if found[2] else size
    return (begin, end) if begin < end else None
