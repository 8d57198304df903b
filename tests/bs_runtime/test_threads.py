"""The threads of a target's forwards: changed in the model's own thread, measured by its steps."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch

from bs_runtime.engine import threads
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.engine.threads import Team
from bs_runtime.serving.app import create_app
from tests.bs_runtime.test_scheduler import TABLE, generation
from tests.fake_models import random_logits
from tests.fakes import FakeTarget


@pytest.fixture
def clock(monkeypatch):
    """The team's clock, which stands still but for what a step takes."""
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(threads, "time", SimpleNamespace(perf_counter=lambda: now.s))
    yield now
    torch.set_num_threads(1)  # as for all other tests


def take(team, clock, monkeypatch, seconds, steps):
    """Steps of one token: ``seconds`` by thread count. The counts that PyTorch had meanwhile."""
    seen = []

    def collect(model, work):
        seen.append(torch.get_num_threads())
        clock.s += seconds[seen[-1]]
        return [None]

    monkeypatch.setattr(threads, "collect", collect)
    # In a thread of its own, as the scheduler's: PyTorch counts threads for each.
    with ThreadPoolExecutor(1) as worker:
        for _ in range(steps):
            worker.submit(team.collect, None, [(None, 1)]).result()
    return seen


def test_beside_others_fewer_threads_take_part_and_later_all_again(clock, monkeypatch):
    team = Team(4)
    alone, crowded = {1: 0.02, 2: 0.012, 4: 0.008}, {1: 0.025, 2: 0.06, 4: 0.3}
    seen = take(team, clock, monkeypatch, alone, 1000)
    assert seen.count(4) / len(seen) > 0.98
    seen = take(team, clock, monkeypatch, crowded, 400)
    assert seen[0] == 4 and seen[200:].count(1) / len(seen[200:]) > 0.9
    seen = take(team, clock, monkeypatch, alone, 4000)
    assert seen[-1000:].count(4) > 970


def test_a_count_that_was_asked_for_stays(clock, monkeypatch):
    team = Team(2, fixed=True)
    assert set(take(team, clock, monkeypatch, {2: 0.01}, 300)) == {2}
    assert set(take(team, clock, monkeypatch, {2: 1.0}, 300)) == {2}


def test_a_step_that_failed_says_nothing(clock, monkeypatch):
    team = Team(2)

    def collect(model, work):
        clock.s += 1.0
        return [threads.Failed(ValueError())]

    monkeypatch.setattr(threads, "collect", collect)
    for _ in range(100):
        team.collect(None, [(None, 1)])
        assert team.setting.threads == 2
    torch.set_num_threads(1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux tells it")
def test_the_time_that_a_thread_waits_for_a_core_is_known():
    """Three threads of other processes on the one core of this one; alone it hardly waits."""
    code = (
        "import os, subprocess, sys, time\n"
        "from bs_runtime.engine.threads import waited_s\n"
        "os.sched_setaffinity(0, list(os.sched_getaffinity(0))[:1])\n"
        "busy = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(3)]\n"
        "time.sleep(0.1)\n"
        "before, until = waited_s(), time.perf_counter() + 0.5\n"
        "while time.perf_counter() < until: pass\n"
        "print(waited_s() - before)\n"
        "[one.kill() for one in busy]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert float(done.stdout) > 0.1, done.stderr


def test_what_is_tried_ends_at_the_cores():
    """All that sleep, but the last: what PyTorch does by itself."""
    tried = {1: [1], 2: [1, 2, 2], 3: [1, 2, 3, 3], 16: [1, 2, 4, 8, 16, 16]}
    for most, counts in tried.items():
        found = threads.settings(most)
        assert [one.threads for one in found] == counts
        assert [one.sleep for one in found] == [True] * (len(counts) - 1) + [False]


def test_what_it_costs_a_step():
    """Less than 20 µs: a change to another count is not among it, of which there are few."""
    team, work = Team(1), [(None, 1)]
    kept, threads.collect = threads.collect, lambda model, work: [None]
    try:
        begun = time.process_time()
        for _ in range(10_000):
            team.collect(None, work)
        assert (time.process_time() - begun) / 10_000 < 20e-6
    finally:
        threads.collect = kept


def burnt_ms():
    """Processor time that goes by while a product's threads have nothing more to do."""
    x = torch.zeros(1 << 18)
    found = []
    for _ in range(5):
        begun = time.process_time()
        x.add_(1.0)
        time.sleep(0.005)
        found.append(1e3 * (time.process_time() - begun))
    return sorted(found)[2]


def test_how_threads_wait_is_changed_while_they_run():
    """In a process of its own: libgomp reads at its start how threads wait, and how many."""
    code = (
        "import torch\n"
        "from bs_runtime.engine.threads import Idlers\n"
        "from tests.bs_runtime.test_threads import burnt_ms\n"
        "torch.set_num_threads(2)\n"
        "idlers = Idlers(2)\n"
        "sleeping = burnt_ms()\n"
        "idlers.close()\n"
        "torch.set_num_threads(2)\n"
        "print(sleeping, burnt_ms())\n"
    )
    if not sys.platform.startswith("linux") or len(os.sched_getaffinity(0)) != 2:
        pytest.skip("libgomp is needed, and as many cores as threads")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    sleeping, looking = map(float, done.stdout.split())
    assert sleeping < 2.0 < looking, done.stderr


@pytest.mark.parametrize("threads, tried", [(None, [1, 2, 2]), (1, [1]), (3, [3])])
def test_a_base_station_follows_the_machine_unless_it_is_told(monkeypatch, threads, tried):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    app = create_app(FakeTarget(random_logits(0, 8)), threads=threads)
    assert [one.threads for one in app.state.scheduler._team._settings] == tried


def test_a_gpu_needs_no_threads_to_be_tried(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    target = FakeTarget(random_logits(0, 8))
    target.device = torch.device("meta")
    assert create_app(target).state.scheduler._team._settings == [(2, False)]


def test_steps_of_a_scheduler_are_its_teams():
    """In the model's thread, not in that of the event loop."""
    names = []

    class Watched(Team):
        def collect(self, model, work):
            names.append(threading.current_thread().name)
            return super().collect(model, work)

    async def run():
        target = FakeTarget(TABLE)
        await Scheduler(target, team=Watched(1)).run(generation(target, [1, 2, 3]).prompt())

    asyncio.run(run())
    assert names and all(name.startswith("model") for name in names)
