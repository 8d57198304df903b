"""How many threads a target's forward runs with, and how they wait for one another.

They do at each of some hundred products. Where another process has the core of one, all the others
wait; libgomp's look for 10 ms, longer than a core is lent for, and so each may have what another
needs: beside two busy processes a forward on two cores took eighteen times its time. So while it
runs, a base station tries what other settings take (``draftlink.planning.trials``), and changes at
once when forwards take longer than they did.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

import torch

from bs_runtime.engine.generation import Round
from bs_runtime.engine.step import Failed, Model, Result, collect
from draftlink.planning.trials import Trials, counts

PARALLEL = 1 << 18  # elements that PyTorch adds with all threads


class Setting(NamedTuple):
    """Threads, and whether they sleep while they wait, rather than look."""

    threads: int
    sleep: bool


def settings(most: int) -> list[Setting]:
    """What is tried: 1, 2, 4, ... and ``most`` threads that sleep, and as many that look."""
    sleeping = [Setting(count, sleep=True) for count in counts(most) if most > 1]
    return [*sleeping, Setting(most, sleep=False)]


class Idlers:
    """Threads that do nothing, whose being there makes all others sleep where they wait.

    libgomp reads how its threads wait when it is loaded, but has them sleep nearly at once while
    there are more of them than cores (``GOMP_SPINCOUNT`` in its manual). That can be changed while
    it runs: these are as many as ``count``, sleep themselves, and end with ``close``. Elsewhere
    they do nothing to others.
    """

    def __init__(self, count: int) -> None:
        self._end = threading.Event()
        begun = threading.Event()

        def idle() -> None:
            torch.set_num_threads(count)
            torch.zeros(PARALLEL).add_(1.0)  # OpenMP makes threads when they are first wanted
            begun.set()
            self._end.wait()

        self._thread = threading.Thread(target=idle, name="idlers", daemon=True)
        self._thread.start()
        begun.wait()

    def close(self) -> None:
        """End them: OpenMP's threads end with the one that wanted them."""
        self._end.set()
        self._thread.join()


def waited_s() -> float:
    """The time that this thread has waited for a core which another had, where Linux tells."""
    try:
        with open("/proc/thread-self/schedstat", "rb", buffering=0) as file:
            return int(file.read().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


class Team:
    """The threads of the model. For the thread that the model runs in: OpenMP counts for each."""

    def __init__(self, most: int | None = None, *, fixed: bool = False) -> None:
        """``most``: threads to begin with, PyTorch's own if not given; with ``fixed`` they stay."""
        most = most or torch.get_num_threads()
        self._settings = [Setting(most, sleep=False)] if fixed else settings(most)
        self._trials = Trials(len(self._settings), len(self._settings) - 1)
        self._idlers: Idlers | None = None
        self._waited_s = 0.0  # by the model's thread so far

    @property
    def setting(self) -> Setting:
        """The next step's."""
        return self._settings[self._trials.at]

    def collect(self, model: Model, work: Sequence[tuple[Round, int]]) -> list[Result]:
        """``step.collect``, in the setting that takes the least time."""
        self._set(self.setting)
        begun = time.perf_counter()
        results = collect(model, work)
        took = time.perf_counter() - begun
        before, self._waited_s = self._waited_s, waited_s()
        tokens = sum(count for _, count in work)
        if tokens and not any(isinstance(result, Failed) for result in results):
            # Steps of alike sizes cost alike: those between two powers of two.
            kind = tokens.bit_length(), len(work).bit_length()
            self._trials.ran(kind, took, waited_s=self._waited_s - before)
        return results

    def _set(self, setting: Setting) -> None:
        if setting.sleep and self._idlers is None:
            self._idlers = Idlers(self._settings[-1].threads)
        elif not setting.sleep and self._idlers is not None:
            self._idlers.close()
            self._idlers = None
        # Beside those, PyTorch's number is the one that was set last, in whichever thread.
        if torch.get_num_threads() != setting.threads:
            torch.set_num_threads(setting.threads)
