"""What ``draftlink doctor`` looks at: a machine, its libraries, the cache, a base station."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from draftlink import __version__
from draftlink.host import cache, extras, machine
from draftlink.host.plain import printable
from draftlink.planning.units import binary

LITTLE_ROOM = 1 << 30  # bytes of a disk, below which a model may not fit

# "note": slower than it could be, or not known. "fault": something will not work.
Status = Literal["ok", "note", "fault"]


@dataclass(frozen=True)
class Check:
    """What was looked at, and what was found, in a line."""

    subject: str
    status: Status
    text: str


def here(root: Path = machine.ROOT) -> Iterator[Check]:
    """The machine, its libraries and its cache."""
    yield _versions()
    yield from _extras()
    yield from _providers()
    yield from _machine(root)
    yield _cache()


def _versions() -> Check:
    parts = [f"draftlink {__version__}", f"Python {platform.python_version()}"]
    for name in ("numpy", "onnxruntime", "torch", "transformers"):
        try:
            parts.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return Check("versions", "ok", ", ".join(parts))


def _extras() -> Iterator[Check]:
    """Which extras are whole. Without the device's nothing can be drafted; others are a choice."""
    missing = extras.missing()
    present = [extra for extra in extras.names() if extra not in missing]
    yield Check("extras", "ok", ", ".join(present) or "none")
    for extra, modules in missing.items():
        status: Status = "fault" if extra == "device" else "note"
        lacks = ", ".join(modules)
        yield Check(
            "extras", status, f"{extra} lacks {lacks}: pip install 'draftlink[{extra}]' brings it"
        )


def _providers() -> Iterator[Check]:
    if importlib.util.find_spec("onnxruntime") is None:
        return
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    from device_runtime.model.providers import PROVIDERS

    present = onnxruntime.get_available_providers()
    names = [name for name, provider in PROVIDERS.items() if provider in present]
    yield Check("providers", "ok" if names else "fault", ", ".join(names) or "none is known here")


def _machine(root: Path) -> Iterator[Check]:
    from device_runtime.model.threads import available

    cores = available()
    kind = printable(machine.name(root) or platform.machine(), 80)
    yield Check("processor", "ok", f"{kind}, {cores} cores for this process")
    pages = machine.huge_pages(root)
    if pages == "never":
        yield Check(
            "huge pages", "note", "the system gives none; with them a draft takes some 14% less"
        )
    elif pages is not None:
        yield Check("huge pages", "ok", pages)
    rate = machine.memory_bandwidth(cores)
    yield Check("memory", "ok", f"{rate / 1e9:.1f} GB/s read by {cores} threads")
    slowed = machine.slowed(root)
    for line in slowed:
        yield Check("speed", "note", line)
    if not slowed:
        yield Check("speed", "ok", "nothing says that it is throttled")


def _cache() -> Check:
    try:
        folder = cache.home()
    except ValueError as error:
        return Check("cache", "fault", str(error))
    above = folder
    while not above.exists() and above != above.parent:
        above = above.parent
    if not above.is_dir() or not os.access(above, os.W_OK):
        return Check("cache", "fault", f"{folder} cannot be written; set {cache.VARIABLE}")
    free = shutil.disk_usage(above).free
    kept = len(cache.entries())
    status: Status = "note" if free < LITTLE_ROOM else "ok"
    return Check("cache", status, f"{folder}: {kept} kept, {binary(free)} free")


def reached(
    url: str, token: str | None, ca: Path | None, *, insecure: bool, pin: str | None = None
) -> Check:
    """Whether a base station takes a connection with this token."""
    from device_runtime.transport.connecting import LinkError, Lost, close, connector, reach

    async def connect() -> None:
        await close(await reach(connector(token, ca, insecure=insecure, pin=pin), url))

    try:
        asyncio.run(connect())
    except Lost as error:
        what = f"{url} takes no more devices now ({error})"
        if error.retry_after_s is None:
            what = f"no base station at {url} ({error}); start one with `draftlink bs MODEL`"
        return Check("link", "fault", printable(what))
    except (LinkError, ValueError) as error:
        return Check("link", "fault", printable(f"{url}: {error}"))
    how = "TLS" if url.startswith("wss") else "no TLS"
    named = "token taken" if token else "no token"
    return Check("link", "ok", f"{url} takes devices: {how}, {named}")


def told(found: Any, welcome: Any, threads: int) -> Iterator[Check]:
    """What a device heard and measured (``device_runtime.probe``), drafting with such threads."""
    measured = found.measured
    yield Check("target", "ok", f"{welcome.model}, {welcome.dtype}; the tokenizer is the draft's")
    yield Check("round trip", "ok", f"{1e3 * measured.rtt_s:.3g} ms with a draft's bytes")
    rates = "" if found.rate_up is None else f"; at least {found.rate_up / 1e6:.3g} Mbit/s up"
    yield Check("rates", "ok", f"{found.uplink_bits:.0f} bits a drafted token{rates}")
    yield Check(
        "times",
        "ok",
        f"a draft {1e3 * measured.draft_s:.3g} ms by {threads} thread{'s' * (threads > 1)},"
        f" the target alone {1e3 * measured.target_s:.3g}"
        f" ms a token, checking {1e3 * measured.verify_s:.3g} ms and"
        f" {1e3 * measured.row_s:.2g} ms a drafted token",
    )
    yield Check(
        "acceptance",
        "ok",
        f"{measured.alpha:.0%} ± {measured.alpha_error:.0%} of {found.judged} drafted tokens",
    )
