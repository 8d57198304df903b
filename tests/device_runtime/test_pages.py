"""Which pages are given back, and which are made huge.

What that saves on a machine ``bench.memory`` and ``bench.decode`` measure: the kernel may be slow
to take pages, and need not have huge ones.
"""

from __future__ import annotations

import errno
import mmap
import platform
import subprocess
import sys

import pytest

from device_runtime.model import pages

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="Linux alone has these files"
)
HUGE = 2 << 20


@pytest.fixture
def advised(monkeypatch):
    """What the kernel is told: (span, advice)."""
    told, real = [], pages._advise

    def advise(span, advice):
        told.append((span, advice))
        return real(span, advice)

    monkeypatch.setattr(pages, "_advise", advise)
    return told


def afresh(code: str) -> list[int]:
    """What a new process prints: how malloc behaves depends on what was freed before."""
    start = (
        "import numpy as np\n"
        "from pathlib import Path\n"
        "from device_runtime.model import pages\n"
        "def resident():\n"
        "    told = Path('/proc/self/status').read_text()\n"
        "    return 1024 * int(told.split('VmRSS:')[1].split()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", start + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [int(word) for word in done.stdout.split()]


glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's malloc")


@glibc
@pytest.mark.parametrize("together", [True, False])
def test_large_allocations_lie_side_by_side(together):
    """In the heap, which is one mapping; without the call each has one of its own."""
    lines = [
        "pages.allocate_together()" if together else "",
        "arrays = [np.empty(7 << 20, np.uint8) for _ in range(4)]",
        "maps = [line.split() for line in Path('/proc/self/maps').read_text().splitlines()]",
        "heaps = [m[0].split('-') for m in maps if m[-1] == '[heap]']",
        "spans = [tuple(int(a, 16) for a in h) for h in heaps]",
        "where = [a.ctypes.data for a in arrays]",
        "print(sum(any(b <= at < e for b, e in spans) for at in where))",
    ]
    assert afresh("\n".join(lines)) == [4 if together else 0]


@glibc
def test_what_is_freed_below_something_in_use_goes_back():
    """A model that was loaded for one thread does not count beside the one loaded for two."""
    lines = [
        "pages.allocate_together()",
        "below = [np.ones(24 << 20, np.uint8) for _ in range(2)]",
        "above = np.ones(1 << 20, np.uint8)",
        "before = resident()",
        "del below",
        "freed = resident()",
        "pages.trim()",
        "print(before - freed, freed - resident())",
    ]
    at_once, trimmed = afresh("\n".join(lines))
    assert at_once < 8 << 20 and trimmed > 40 << 20


def test_zeros_take_no_memory_until_they_are_written():
    lines = [
        "pages.allocate_together()",
        "used = np.ones(30 << 20, np.uint8)",
        "above = np.ones(1 << 20, np.uint8)",
        "del used",  # calloc would take this, and write zeros to all of it
        "before = resident()",
        "zeros = pages.zeros(24, 1, 2, 2048, 64)",
        "made = resident() - before",
        "zeros[3, 0, 1, :100] = 1",
        "written = resident() - before",
        "print(made, written, *(int(z.sum()) for z in zeros), zeros[0].nbytes)",
    ]
    made, written, *sums, size = afresh("\n".join(lines))
    assert made < 1 << 20 and written < 3 << 20
    assert sums == [0, 0, 0, 6400, *[0] * 20] and size == 1 << 20


def test_the_pages_of_a_file_are_given_back_and_come_again(tmp_path, advised):
    path = tmp_path / "weights.data"
    path.write_bytes(bytes(range(256)) * 4096)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as weights:
        before = bytes(weights)
        pages.page_out(tmp_path / "another")
        assert advised == []
        pages.page_out(tmp_path)
        (((begin, end), advice),) = advised
        assert (end - begin, advice) == (len(before), pages.PAGEOUT)
        assert bytes(weights) == before


def private(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A system whose huge pages are allowed."""
    monkeypatch.setattr(pages, "HUGE_PAGES", tmp_path)
    (tmp_path / "hpage_pmd_size").write_text(f"{HUGE}\n")
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    return tmp_path


def test_only_what_is_new_becomes_huge_and_its_content_stays(advised, kernel):
    with private(8 * HUGE) as old:
        old.write(b"old" * 1000)
        before = pages.anonymous()
        assert before == sorted(before)
        with private(8 * HUGE) as new:
            text = bytes(range(256)) * (8 * HUGE // 256)
            new.write(text)
            made = pages.make_huge(before)
            assert new[:] == text
        assert old[:3000] == b"old" * 1000
    chunks = [span for span, advice in advised if advice == pages.COLLAPSE]
    assert len(chunks) >= 7
    assert made <= HUGE * len(chunks)
    for begin, end in chunks:
        assert (begin % HUGE, end - begin) == (0, HUGE)
        assert not any(first < end and begin < last for first, last in before)


@pytest.mark.parametrize("file", ["hpage_pmd_size", "enabled"])
def test_a_system_without_huge_pages_is_left_alone(advised, kernel, file):
    (kernel / file).unlink()
    with private(4 * HUGE) as new:
        new.write(b"x" * len(new))
        assert pages.make_huge([]) == 0
    assert advised == []


def test_who_forbids_them_is_obeyed_and_when_there_are_no_more_it_ends(kernel, monkeypatch):
    asked = []
    monkeypatch.setattr(pages, "_advise", lambda *what: asked.append(what) or errno.ENOMEM)
    with private(4 * HUGE) as new:
        new.write(b"x" * len(new))
        assert pages.make_huge([]) == 0
        assert len(asked) == 1
        (kernel / "enabled").write_text("always madvise [never]\n")
        assert pages.make_huge([]) == 0
        assert len(asked) == 1


def test_memory_that_touches_what_was_there_is_recognised():
    spans = [(10, 20), (30, 40)]
    met = [begin for begin in range(50) if pages._meets(spans, begin, begin + 5)]
    assert met == [*range(6, 20), *range(26, 40)]
    assert not pages._meets([], 0, 5)
