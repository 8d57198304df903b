"""Which pages are given back, and which are made huge.

What that saves on a machine ``bench.memory`` and ``bench.decode`` measure: the kernel may be slow
to take pages, and need not have huge ones.
"""

from __future__ import annotations

import errno
import mmap
import sys

import pytest

from device_runtime import pages

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
