"""The pages that a draft's weights lie in: those of its file given back, the others made huge.

onnxruntime's kernels lay their weights out anew while a session loads, so of the mapped file only
the rows of the embedding are read afterwards, a few a token. Its pages would stay in this process,
and count as its memory, until the system runs short.

What the kernels read lies in memory of their own, all of it in every forward: hundreds of megabytes
in pages of 4 KB, whose addresses a processor translates one by one. In pages of 2 MB a forward
takes some 14% less time on a virtual machine (``bench.decode``).
"""

from __future__ import annotations

import ctypes
import errno
import math
import mmap
import os
import sys
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PAGEOUT = 21  # madvise(2): reclaim these pages now; nothing is lost, what is read again comes back
COLLAPSE = 25  # put what is in these pages into huge ones, now
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")

# glibc's malloc gives what is larger than a threshold a mapping of its own, parts of whose ends are
# in no whole huge page: 3 of the 7 MB of a layer. The threshold is 128 KB until something larger is
# freed, then the size of that, but no more than 32 MB.
MAPPED_ALONE = 32 << 20

Span = tuple[int, int]  # addresses, the second one behind the last


def page_out(folder: Path) -> None:
    """Give the pages of a folder's mapped files back to the system (Linux from 5.4, else nothing).

    They leave the system's own cache, too: not to be done between two loads.
    """
    folder = folder.resolve()
    for span, _, name in _mappings():
        if Path(name).parent == folder:
            _advise(span, PAGEOUT)  # an older kernel refuses, and the pages stay: no harm


def allocate_together() -> None:
    """Let what is allocated from now on lie side by side, up to 32 MB each (glibc, else nothing).

    As in any process that has once freed as much; nothing is touched, so no memory is taken.
    """
    np.empty(MAPPED_ALONE - mmap.PAGESIZE * 2, np.uint8)  # freed at once


def zeros(*shape: int) -> NDArray[np.float32]:
    """Zeros of the system's: what is never written takes no memory, whatever malloc does."""
    size = 4 * math.prod(shape)
    if sys.platform == "win32":
        memory = mmap.mmap(-1, size)
    else:
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, np.float32).reshape(shape)


def memory() -> int | None:
    """Bytes of memory that this machine has; None where no system tells (Windows)."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def trim() -> None:
    """Give memory that has been freed back to the system (glibc, else nothing)."""
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def anonymous() -> list[Span]:
    """The memory of this process that it may write and that is no file's, in order (Linux)."""
    return [span for span, rights, name in _mappings() if "w" in rights and name in ("", "[heap]")]


def make_huge(before: list[Span]) -> int:
    """Put what has been allocated since ``anonymous()`` was ``before`` into huge pages; bytes done.

    Nothing where the system has none (Linux from 6.1), or its administrator forbids them. What the
    memory holds stays as it is.
    """
    try:
        size = int((HUGE_PAGES / "hpage_pmd_size").read_text())
        if "[never]" in (HUGE_PAGES / "enabled").read_text():
            return 0
    except (OSError, ValueError):
        return 0
    made = 0
    for begin, end in anonymous():
        for page in range(-(-begin // size) * size, end // size * size, size):
            if _meets(before, page, page + size):
                continue
            refused = _advise((page, page + size), COLLAPSE)
            if refused == errno.ENOMEM:
                return made  # there are no more
            if not refused:
                made += size  # else the page is empty, or busy
    return made


def _meets(spans: list[Span], begin: int, end: int) -> bool:
    """Whether any of the spans, which are in order, has a part in this one."""
    index = bisect_left(spans, (end, 0))  # of the first that begins behind it
    return index > 0 and spans[index - 1][1] > begin


def _mappings() -> Iterator[tuple[Span, str, str]]:
    """Addresses, rights and file of what this process has mapped."""
    if not sys.platform.startswith("linux"):
        return
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, rights, *_, name = [*line.split(maxsplit=5), ""][:6]
        begin, end = (int(address, 16) for address in where.split("-"))
        yield (begin, end), rights, name


def _advise(span: Span, advice: int) -> int:
    """madvise(2) on all of a span: 0, or the error's number."""
    libc = ctypes.CDLL(None, use_errno=True)
    begin, end = span
    if libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), advice):
        return ctypes.get_errno()
    return 0
