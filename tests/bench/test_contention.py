"""What ``bench.contention`` says of its figures, and that it ends what it started."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from bench import contention


def test_ours_is_held_against_the_best_fixed_setting_of_the_same_cell():
    rates = {
        ("ours", 2, "auto"): 80.0,
        ("ours", 0, "auto"): 100.0,
        ("before", 2, "auto"): 8.0,
        ("all, active", 2, "auto"): 10.0,
        ("one, passive", 2, "auto"): 100.0,
        ("one, passive", 0, "auto"): 50.0,
        ("one, passive", 2, "stream"): 400.0,
        (contention.GENERATE, 2, "auto"): 900.0,
    }
    beside, alone = contention.ratios(rates)
    assert beside == {
        "busy": 2, "mode": "auto", "best": "one, passive", "of_best": 0.8, "of_before": 10.0
    }  # fmt: skip
    assert alone["of_best"] == 2.0 and alone["of_before"] is None


def test_the_fixed_settings_are_one_and_all_threads_active_and_passive(monkeypatch):
    monkeypatch.setattr(contention, "available", lambda: 8)
    ours, before, *fixed = contention.systems()
    assert not ours.environ and not ours.options and ours.threads is None
    assert before.options == ("--threads", "8")
    found = {(s.options[1], s.threads, s.environ["OMP_WAIT_POLICY"], s.spins) for s in fixed}
    assert found == {
        ("1", 1, "active", True), ("1", 1, "passive", False),
        ("8", 8, "active", True), ("8", 8, "passive", False),
    }  # fmt: skip


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_busy_processes_end_with_the_block(monkeypatch):
    started = []
    real = contention.subprocess.Popen

    def popen(*args):
        started.append(real(*args))
        return started[-1]

    monkeypatch.setattr(contention.subprocess, "Popen", popen)
    with pytest.raises(KeyboardInterrupt), contention.busy(2):
        assert all(alive(process.pid) for process in started)
        raise KeyboardInterrupt
    assert len(started) == 2
    assert {process.returncode for process in started} == {-signal.SIGKILL}


def test_it_ends_as_by_an_error_when_told_to(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["contention"])
    monkeypatch.setattr(contention, "measure", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit):
        contention.main()
