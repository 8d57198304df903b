"""The choice among settings, in virtual time: what it costs where nothing changes, how it follows.

Times of a step on two cores, in ms, alone and beside one and two busy processes: with one thread,
two that sleep while they wait for one another, and two that look.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from draftlink.planning.trials import Trials

ALONE, ONE_BUSY, TWO_BUSY = (11.4, 10.6, 7.8), (9.4, 10.0, 27.0), (12.3, 17.2, 143.0)
MANY_BUSY = (40.0, 25.0, 1000.0)  # two threads that sleep have two shares of the machine
KINDS = ((1, 1.0), (4, 1.3), (64, 5.0))  # tokens fed, and what that costs
SEEDS = range(8)


class Machine:
    """Steps of random kinds, one after the other, until some seconds have gone by."""

    def __init__(
        self, settings: int, seed: int, *, noise: float = 0.2, told: bool = True, **options: float
    ) -> None:
        """``noise``: of a step's time, its logarithm's; ``told``: the policy knows the kinds."""
        self.trials = Trials(settings, settings - 1, **options)  # type: ignore[arg-type]
        self._random = random.Random(seed)
        self._noise = noise
        self._told = told

    def run(
        self,
        seconds: float,
        costs_ms: Sequence[float],
        kinds: Sequence[tuple[int, float]] = KINDS,
        waiting: float | Sequence[float] = 0.0,
        bursts: float = 1.0,
    ) -> float:
        """The work that was done, as a share of what the best setting would have done.

        ``waiting``: the share of a step that is waited for a core, in each setting or in all;
        ``bursts``: the share of the steps in which all of that is waited.
        """
        spent = best = 0.0
        while spent < seconds:
            kind, size = self._random.choice(kinds)
            size *= self._random.lognormvariate(-(self._noise**2) / 2, self._noise)
            took = costs_ms[self.trials.at] / 1e3 * size
            share = waiting if isinstance(waiting, float) else waiting[self.trials.at]
            share *= (self._random.random() < bursts) / bursts
            self.trials.ran(kind if self._told else 0, took, waited_s=took * share)
            spent += took
            best += min(costs_ms) / 1e3 * size
        return best / spent


@pytest.mark.parametrize("costs", [ALONE, (7.8, 7.9), (7.9, 7.8, 7.8)])
def test_alone_it_costs_next_to_nothing(costs):
    assert all(Machine(len(costs), seed).run(30.0, costs) > 0.97 for seed in SEEDS)


@pytest.mark.parametrize("costs", [ONE_BUSY, TWO_BUSY, MANY_BUSY])
def test_beside_others_it_is_nearly_as_fast_as_the_best(costs):
    for seed in SEEDS:
        machine = Machine(3, seed)
        machine.run(20.0, ALONE)
        machine.run(30 * max(costs) / 1e3, costs, KINDS[:2])  # some steps
        assert machine.run(20.0, costs, KINDS[:2]) > 0.85


def test_a_change_is_noticed_within_some_steps():
    """Single tokens: three late steps, and three more of either setting."""
    for seed in SEEDS:
        machine = Machine(3, seed)
        machine.run(20.0, ALONE, KINDS[:1])
        machine.run(20 * TWO_BUSY[2] / 1e3, TWO_BUSY, KINDS[:1])
        assert machine.trials.best < 2


def test_it_returns_when_the_others_have_gone():
    """One thread is none the faster for it where they left it a core: nothing is to be noticed."""
    for seed in SEEDS:
        machine = Machine(3, seed)
        machine.run(10.0, ALONE)
        machine.run(10.0, ONE_BUSY)
        machine.run(10.0, (*ONE_BUSY[:2], 7.8))
        assert machine.run(20.0, (*ONE_BUSY[:2], 7.8)) > 0.97


@pytest.mark.parametrize("busy", [TWO_BUSY, MANY_BUSY])
def test_it_returns_soon_when_no_core_is_waited_for(busy):
    """However dear the last trial of it was. Control: where the system does not tell."""

    def returned(told: float) -> int:
        count = 0
        for seed in SEEDS:
            machine = Machine(3, seed)
            machine.run(10.0, ALONE)
            machine.run(30.0, busy, KINDS[:2], told)
            machine.run(2.0, ALONE, KINDS[:2])
            count += machine.trials.best == 2
        return count

    assert returned(0.5) == len(SEEDS)
    assert returned(0.0) < len(SEEDS) or busy is MANY_BUSY  # steps tell, too: they are far shorter


def test_what_a_trial_waits_is_no_reason_for_the_next():
    """Threads that look wait for the core that they took from each other, and stop when it ends.

    So beside one busy process each trial of them looked like a disturbance that had gone.
    """
    for seed in SEEDS:
        machine = Machine(3, seed)
        machine.run(10.0, ALONE)
        machine.run(20.0, (9.4, 10.0, 400.0), KINDS[:2], (0.01, 0.1, 0.8))
        assert machine.run(60.0, (9.4, 10.0, 400.0), KINDS[:2], (0.01, 0.1, 0.8)) > 0.9


def test_a_core_that_is_waited_for_in_bursts_is_not_free_between_them():
    """Beside one busy process single threads wait in one step of five, and not at all in others."""
    busy, waiting = (9.4, 10.0, 200.0), (0.15, 0.2, 0.8)
    for seed in SEEDS:
        machine = Machine(3, seed)
        machine.run(10.0, ALONE)
        machine.run(20.0, busy, KINDS[:2], waiting, bursts=0.2)
        assert machine.run(60.0, busy, KINDS[:2], waiting, bursts=0.2) > 0.95


def test_steps_of_other_sizes_do_not_pass_for_a_change():
    """A prompt takes five times a token's time. Control: a policy that is not told."""

    def trials(*, told: bool) -> float:
        """The share of the best, where sizes come in spells."""
        shares = []
        for seed in SEEDS:
            machine = Machine(3, seed, noise=0.05, told=told)
            machine.run(5.0, ALONE)
            spells = [machine.run(0.4, ALONE, [kind]) for _ in range(30) for kind in KINDS]
            shares.append(sum(spells) / len(spells))
        return min(shares)

    assert trials(told=True) > 0.97
    assert trials(told=False) < 0.97


def test_of_many_settings_the_best_is_found_too():
    """1 to 16 threads on 16 cores, and 16 that look: alone; beside 4 busy processes; beside 16."""
    alone, few = (60, 32, 17, 10, 8, 7), (60, 32, 17, 11, 90, 90)
    many = (62, 64, 90, 150, 400, 400)
    for seed in SEEDS:
        machine = Machine(6, seed)
        machine.run(10.0, alone)  # each is tried once
        assert machine.run(20.0, alone) > 0.97
        machine.run(10.0, few)
        assert machine.run(20.0, few) > 0.85
        machine.run(20.0, many, KINDS[:2])
        assert machine.run(20.0, many, KINDS[:2]) > 0.8
        machine.run(30.0, alone)
        assert machine.run(20.0, alone) > 0.9


def test_trials_pay_for_the_changes_that_they_take():
    """A device loads its weights anew for each: a second in a hundred, not one a generation."""
    trials = Trials(2, 1, least=1, most=3, recent=1, change_s=1.0)
    changed, spent = [], 0.0
    while spent < 1000.0:
        before = trials.at
        trials.ran(None, (1.5, 1.0)[before])
        spent += (1.5, 1.0)[before]
        if trials.at != before:
            changed.append(spent)
    assert trials.best == 1 and 0 < len(changed) <= 12
    # Nor does one begin with them: its first texts came a third of a second late each.
    assert changed[0] > 20.0


def test_a_step_during_which_the_machine_slept_is_one_late_step():
    """An hour in a trial, which would have been the last of the day."""
    trials, slept, tried = Trials(2, 1), False, 0
    for _ in range(20_000):
        now = trials.at == 0 and not slept
        slept = slept or now
        tried += trials.at == 0
        trials.ran(1, 3600.0 if now else (0.011, 0.008)[trials.at])
    assert slept and trials.best == 1 and tried > 10


def test_a_single_setting_is_never_tried():
    trials = Trials(1, 0)
    for _ in range(1000):
        trials.ran(1, 1.0)
        assert trials.at == 0
