"""A draft bundle from a base station: each file checked, and begun again where it broke off.

What comes is written beside the place where the bundle will stand, and moved there when it is whole
and has passed the checks of every bundle. Until then all that was said of it is a stranger's word.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from device_runtime.model.bundle import Bundle, BundleError, load_bundle, read_manifest
from device_runtime.transport.connecting import LinkError, Lost
from device_runtime.transport.fetch import TIMEOUT_S, Station
from draftlink.host import files, offered
from draftlink.host.offered import MANIFEST, PATH, Offer, OfferedFile, OfferError
from draftlink.planning.units import binary

PART_BYTES: Final = 1 << 16
ATTEMPTS: Final = 9  # in a row that bring nothing
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
LOCK: Final = ".lock"
Told = Callable[[str, int, int], None]  # a file, of how many bytes, and how many of it are here


def ask(station: Station) -> Offer:
    """What a base station offers. Raises LinkError."""
    try:
        until = time.monotonic() + TIMEOUT_S
        with station.get(PATH) as answer:
            data = b""
            while len(data) <= offered.MOST_BYTES and (more := answer.read(PART_BYTES)):
                data += more
                if time.monotonic() > until:
                    raise Lost("it takes too long to say what it offers")
    except Lost as error:
        raise LinkError(
            f"no base station at {station.url} ({error}); start one with"
            " `draftlink bs MODEL --offer BUNDLE`, or check the address",
            error.retry_after_s,
        ) from None
    except LinkError as error:
        if offered.NOTHING not in str(error):
            raise
        raise LinkError(
            f"the base station at {station.url} offers no bundle; it offers the one that it is"
            " started with: `draftlink bs MODEL --offer BUNDLE`"
        ) from None
    try:
        return offered.decode(data)
    except OfferError as error:
        raise LinkError(f"what {station.url} offers cannot be taken: {error}") from None


def pull(
    station: Station,
    offer: Offer,
    place: Path,
    told: Told = lambda name, size, have: None,
    pause: Callable[[float], None] = time.sleep,
) -> Bundle:
    """Take the bundle of an ``offer`` to ``place``, where nothing may be.

    What was taken of it before is gone on with; ``told`` hears of each part, ``pause`` waits
    between attempts. Raises LinkError, BundleError, BundleBusy, and FileError for what cannot be
    written.
    """
    if place.exists():
        raise BundleError(f"{place} is there already")
    partial = place.with_name(f".{place.name}.partial-{offer.digest[:16]}")
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.FileError(f"cannot write {partial}: {error.strerror or error}") from None
    lock = _locked(partial)
    try:
        _forget_others(place, partial)
        _room(partial, offer)
        for name in sorted(offer.files, key=lambda name: (name != MANIFEST, name)):
            _take(station, name, offer.files[name], partial / name, told, pause)
            if name == MANIFEST:
                _agrees(partial, offer)
        (partial / LOCK).unlink(missing_ok=True)
        load_bundle(partial)
        partial.rename(place)
    except BundleError:
        shutil.rmtree(partial, ignore_errors=True)  # nothing of it will do
        raise
    finally:
        if lock is not None:
            os.close(lock)
    return load_bundle(place)


def _locked(partial: Path) -> int | None:
    """Raises BundleBusy where another process is at this download."""
    try:
        lock = files.lock(partial / LOCK, wait=False)
    except OSError:
        return None  # no such locks here
    if lock is None:
        raise BundleBusy(f"another process is at {partial}; wait for it")
    return lock


class BundleBusy(ValueError):
    """Another process takes the same bundle; one line says so."""


def _forget_others(place: Path, partial: Path) -> None:
    """Delete what was begun of other bundles for the same place, unless somebody is at it."""
    for other in place.parent.glob(f".{place.name}.partial-*"):
        if other == partial or not other.is_dir() or other.is_symlink():
            continue
        try:
            lock = files.lock(other / LOCK, wait=False)
        except OSError:
            continue
        if lock is not None:
            shutil.rmtree(other, ignore_errors=True)
            os.close(lock)


def _room(partial: Path, offer: Offer) -> None:
    """Raises FileError where the disk has no room for what is still to come."""
    here = sum(
        min(path.stat().st_size, offer.files[path.name].bytes)
        for path in partial.iterdir()
        if path.name in offer.files
    )
    free, wanted = shutil.disk_usage(partial).free, offer.bytes - here
    if wanted > free:
        raise files.FileError(
            f"cannot write {partial}: {binary(wanted)} are to come, and {binary(free)} are free"
        )


def _agrees(partial: Path, offer: Offer) -> None:
    """Raises BundleError unless the manifest tells of the files that are offered, and is usable."""
    manifest = read_manifest(partial)
    said = {name: OfferedFile(file.sha256, file.bytes) for name, file in manifest.files.items()}
    if said != {name: file for name, file in offer.files.items() if name != MANIFEST}:
        raise BundleError("the bundle's manifest tells of other files than are offered; not taken")


def _take(
    station: Station,
    name: str,
    file: OfferedFile,
    path: Path,
    told: Told,
    pause: Callable[[float], None],
) -> None:
    """A whole file, from where it broke off. Raises LinkError, FileError."""
    failed = 0
    while True:
        before = _have(path, file)
        told(name, file.bytes, before)
        try:
            if before < file.bytes or not path.exists():
                _more(station, name, file, path, told)
            break
        except Lost as error:
            failed = failed + 1 if _have(path, file) <= before else 0
            if failed == ATTEMPTS:
                raise LinkError(
                    f"{station.url} does not go on with {name} ({error}); what has come is kept:"
                    " pull again to go on",
                    error.retry_after_s,
                ) from None
            longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**failed)
            pause(longest_s if error.retry_after_s is None else float(error.retry_after_s))
    with path.open("rb") as whole:
        found = hashlib.file_digest(whole, "sha256").hexdigest()
    if found != file.sha256:
        path.unlink()
        raise LinkError(
            f"{name} of {station.url} is not what was offered (its checksum differs) and was thrown"
            " away; pull again, and if it stays so offer the bundle anew"
        )


def _have(path: Path, file: OfferedFile) -> int:
    """Bytes that are here; none of a file that has more than it may."""
    size = path.lstat().st_size if path.exists() else 0
    if size > file.bytes or path.is_symlink():
        path.unlink()
        return 0
    return size


def _more(station: Station, name: str, file: OfferedFile, path: Path, told: Told) -> None:
    """What is missing of a file, or what comes of it. Raises Lost, LinkError, FileError."""
    have = _have(path, file)
    with station.get(f"{PATH}/{file.sha256}", have) as answer:
        if answer.total != file.bytes or answer.begin not in (0, have):
            raise LinkError(f"{station.url} sends {name} in another size than it offers")
        try:
            with path.open("ab") as into:
                into.truncate(answer.begin)  # all of it comes where no part could be had
                have = answer.begin
                while data := answer.read(PART_BYTES):
                    have += len(data)
                    into.write(data[: len(data) - max(0, have - file.bytes)])
                    if have > file.bytes:
                        raise LinkError(f"{station.url} sends more of {name} than it offers")
                    told(name, file.bytes, have)
                into.flush()
                os.fsync(into.fileno())
        except OSError as error:
            if isinstance(error, LinkError):
                raise
            raise files.FileError(f"cannot write {path}: {error.strerror or error}") from None
    if have < file.bytes:
        raise Lost("the connection ended")
