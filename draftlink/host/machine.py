"""What kind of machine this is, as far as it says so, and what slows it down.

Linux tells by files; elsewhere most of this is not known. ``root`` is where those files lie.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np

ROOT: Final = Path("/")
READ_BYTES: Final = 128 << 20  # of each thread: more than caches hold
READS: Final = 3  # of which the best counts: another process may be at work
# Bits of a Raspberry Pi's `throttled`: now, and since it was started 16 above.
_PI: Final = {0: "its voltage is low", 1: "its clock is capped", 2: "it is throttled",
              3: "it is at its soft limit of temperature"}  # fmt: skip
SLOW: Final = 0.7  # of the highest clock, below which a governor is named
HOT_C: Final = 80.0


def name(root: Path = ROOT) -> str | None:
    """The board's or the processor's, if it says."""
    board = _text(root / "proc/device-tree/model")
    if board:
        return board.rstrip("\0")
    for line in (_text(root / "proc/cpuinfo") or "").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return None


def huge_pages(root: Path = ROOT) -> str | None:
    """Whether the system gives huge pages: always, madvise or never."""
    said = _text(root / "sys/kernel/mm/transparent_hugepage/enabled") or ""
    _, bracket, rest = said.partition("[")
    return rest.partition("]")[0] if bracket else None


def slowed(root: Path = ROOT) -> list[str]:
    """What keeps the processor below its speed, a line each."""
    found = []
    said = _text(root / "sys/devices/platform/soc/soc:firmware/get_throttled")
    if said:
        try:
            bits = int(said, 16)
        except ValueError:
            bits = 0
        found += [words for bit, words in _PI.items() if bits >> bit & 1]
        found += [f"since it was started {words.replace('is', 'was', 1)}"
                  for bit, words in _PI.items()
                  if bits >> (bit + 16) & 1 and not bits >> bit & 1]  # fmt: skip
    cpus = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    for each in cpus[:1]:  # they share a governor
        governor = _text(each / "scaling_governor")
        allowed, most = _number(each / "scaling_max_freq"), _number(each / "cpuinfo_max_freq")
        if governor == "powersave" and not (each / "energy_performance_preference").exists():
            found.append("the clock's governor is powersave: set it to performance")
        if allowed and most and allowed < SLOW * most:
            found.append(f"the clock is held to {allowed / most:.0%} of its highest")
    hottest = max(
        (_number(each) or 0.0 for each in root.glob("sys/class/thermal/thermal_zone*/temp")),
        default=0.0,
    )
    if hottest / 1000 >= HOT_C:
        found.append(f"it has {hottest / 1000:.0f} °C: cool it, or it will be throttled")
    return found


def memory_bandwidth(
    threads: int,
    *,
    size: int = READ_BYTES,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Bytes a second that so many threads read together, each memory of its own.

    By numpy's sum, which reads about as fast as memory gives. It takes a fraction of a second.
    """
    arrays = [np.ones(size // 8, np.int64) for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(READS):
            begun = clock()
            list(pool.map(np.sum, arrays))
            best = max(best, threads * size / max(clock() - begun, 1e-9))
    return best


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    try:
        return float(_text(path) or "")
    except ValueError:
        return None
