"""Memory-mapped weights that have been read once and are hardly read again.

onnxruntime's kernels lay their weights out anew while a session loads, so of the mapped file only
the rows of the embedding are read afterwards, a few a token. Its pages would stay in this process,
and count as its memory, until the system runs short.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

PAGEOUT = 21  # madvise(2): reclaim these pages now; nothing is lost, what is read again comes back


def page_out(folder: Path) -> None:
    """Give the pages of a folder's mapped files back to the system (Linux from 5.4, else nothing).

    They leave the system's own cache, too: not to be done between two loads.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    folder = folder.resolve()
    for line in Path("/proc/self/maps").read_text().splitlines():
        where, *_, name = line.split(maxsplit=5)
        if Path(name).parent == folder:
            begin, end = (int(address, 16) for address in where.split("-"))
            # An older kernel refuses, and the pages stay: no harm.
            libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), PAGEOUT)
