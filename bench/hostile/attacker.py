"""The attacker's process, and its control's: what a line on stdin asks for, for so many seconds.

    python -m bench.hostile.attacker ATTACK URL     "many 5": attack for 5 s, from many addresses
    python -m bench.hostile.attacker burn           a trace as JSON: burn what it says

An attack answers with a JSON line: ``trace``, the CPU seconds that it used in each ``SLOT_S``, by
getrusage, and ``notes``. It ends by itself when stdin does, and after ``MOST_S`` in any case.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import threading
import time
from contextlib import suppress

SLOT_S = 0.02
MOST_S = 900.0


def used_s() -> float:
    """CPU seconds of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Trace:
    """What this process uses, slot by slot, while the block runs."""

    def __init__(self) -> None:
        self.slots: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Trace:
        self._begun_s, self._used_s = time.perf_counter(), used_s()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        over = False
        while not over:
            due = self._begun_s + SLOT_S * (len(self.slots) + 1)
            over = self._over.wait(max(0.0, due - time.perf_counter()))
            # What came late is spread over the slots that it was used in.
            slots = max(1, round((time.perf_counter() - self._begun_s) / SLOT_S) - len(self.slots))
            used = used_s()
            self.slots += [(used - self._used_s) / slots] * slots
            self._used_s = used


def burn(trace: list[float]) -> float:
    """Use as many CPU seconds as ``trace`` says in each slot, and no more; how many they were."""
    begun_s, before_s, owed_s = time.perf_counter(), used_s(), 0.0
    for number, seconds in enumerate(trace):
        time.sleep(max(0.0, begun_s + number * SLOT_S - time.perf_counter()))
        owed_s += seconds
        while used_s() - before_s < owed_s:
            for _ in range(300):
                pass
    return used_s() - before_s


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


async def _attack(name: str, url: str) -> None:
    from bench.hostile.attacks import attacks
    from bench.hostile.place import SOURCES, Place

    attack = attacks()[name]
    loop = asyncio.get_running_loop()
    if attack.prepare is not None:
        await attack.prepare(Place(url, SOURCES["many"]))
    _say(ready=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        sources, seconds = line.split()
        place = Place(url, SOURCES[sources])
        with Trace() as trace:
            with suppress(TimeoutError):
                async with asyncio.timeout(float(seconds)):
                    await attack.play(place)
            await asyncio.sleep(0.05)  # what it held has been hung up
        _say(trace=trace.slots, notes=place.notes)


def main() -> None:
    """The process."""
    threading.Thread(target=_end, daemon=True).start()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if sys.argv[1] == "burn":
        _say(ready=True)
        while line := sys.stdin.readline():
            _say(used_s=burn(json.loads(line)))
    else:
        asyncio.run(_attack(*sys.argv[1:]))


def _end() -> None:
    time.sleep(MOST_S)
    os._exit(1)


if __name__ == "__main__":
    main()
