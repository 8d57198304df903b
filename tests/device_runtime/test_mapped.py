"""Which pages are given back: those of the folder's files, all of them.

What that saves on a machine ``bench.memory`` measures: the kernel may be slow to take them.
"""

from __future__ import annotations

import ctypes
import mmap
import sys

import pytest

from device_runtime import mapped


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has these files")
def test_the_pages_of_a_file_are_given_back_and_come_again(tmp_path, monkeypatch):
    path = tmp_path / "weights.data"
    path.write_bytes(bytes(range(256)) * 4096)
    advised = []

    class Spy:
        def __init__(self, *what: object, **options: object) -> None:
            self._libc = libc

        def madvise(self, begin: ctypes.c_void_p, size: ctypes.c_size_t, advice: int) -> int:
            advised.append((size.value, advice))
            return self._libc.madvise(begin, size, advice)

    libc = ctypes.CDLL(None)
    monkeypatch.setattr(mapped.ctypes, "CDLL", Spy)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as weights:
        before = bytes(weights)
        mapped.page_out(tmp_path / "another")
        assert advised == []
        mapped.page_out(tmp_path)
        assert advised == [(len(before), mapped.PAGEOUT)]
        assert bytes(weights) == before
