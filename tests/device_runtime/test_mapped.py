"""Mapped weights do not stay in memory."""

from __future__ import annotations

import mmap
import sys
from pathlib import Path

import pytest

from device_runtime.mapped import page_out


def resident_bytes(path: Path) -> int:
    """Of a mapped file, in this process."""
    _, _, found = Path("/proc/self/smaps").read_text().partition(str(path))
    return 1024 * int(found.split("Rss:")[1].split()[0])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone has these files")
def test_pages_go_and_come_back(tmp_path):
    path = tmp_path / "weights.data"
    path.write_bytes(bytes(range(256)) * 4096)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        before = bytes(mapped)
        assert resident_bytes(path) == len(before)
        page_out(tmp_path / "another.data")
        assert resident_bytes(path) == len(before)
        page_out(path)
        assert resident_bytes(path) < len(before) / 2
        assert bytes(mapped) == before
