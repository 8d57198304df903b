"""Scheduling in virtual time: a machine whose steps cost what the test says."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

import pytest

from bs_runtime.engine import batching
from bs_runtime.engine.batching import HOLD, LEAST_CAP, LEAST_PART, MOST_CAP, STEP_S, Batcher

DRAFT = 5  # tokens of a verdict's round
# Seconds for the whole step: a CPU (linear), and a GPU (flat).
MACHINES: dict[str, Callable[[int], float]] = {
    "cpu": lambda tokens: 0.010 + 0.0007 * tokens,
    "gpu": lambda tokens: 0.025 + 0.000005 * tokens,
}


def simulate(
    arrivals: list[tuple[float, str, int]],
    cost: Callable[[int], float],
    until: float,
    think_s: float | None = None,
    token_s: float = 4e-3,
) -> tuple[dict[str, list[tuple[float, float]]], list[int]]:
    """Play (time, session, tokens); with ``think_s`` a verdict sets off the session's next draft.

    Per session the (arrival, end) of its requests that ended; and each step's number of requests.
    """
    batcher: Batcher[str] = Batcher(token_s=token_s)
    number = itertools.count()  # of those that come at once, the first to be served comes first
    coming = [(at, next(number), name, tokens) for at, name, tokens in sorted(arrivals)]
    left: dict[str, int] = {}
    begun: dict[str, float] = {}
    served: dict[str, list[tuple[float, float]]] = {name: [] for _, name, _ in arrivals}
    sizes = []
    now = 0.0
    while now < until:
        while coming and coming[0][0] <= now:
            at, _, name, tokens = heapq.heappop(coming)
            left[name], begun[name] = tokens, at
            batcher.add(name, tokens, at, session=name)
        if not len(batcher):
            if not coming:
                break
            now = coming[0][0]
            continue
        due = batcher.due(now)
        if due > now:
            now = min(due, coming[0][0]) if coming else due
            continue
        batch = batcher.take()
        tokens = sum(count for _, count in batch)
        assert 0 < tokens <= batcher.cap
        assert len({name for name, _ in batch}) == len(batch)
        sizes.append(len(batch))
        seconds = cost(tokens)
        now += seconds
        batcher.ran(tokens, seconds)
        for name, count in batch:
            left[name] -= count
            if left[name]:
                batcher.add(name, left[name], now, fed=count)
            else:
                served[name].append((begun[name], now))
                if think_s is not None:
                    batcher.answered(name, now)
                if think_s is not None and name.startswith("draft"):
                    heapq.heappush(coming, (now + think_s, next(number), name, DRAFT))
    return served, sizes


@pytest.mark.parametrize("machine", MACHINES)
def test_a_request_that_finds_nobody_runs_at_once(machine):
    cost = MACHINES[machine]
    served, sizes = simulate([(0.5, "draft", DRAFT), (2.0, "stream", 1)], cost, 9)
    assert served["draft"] == [(0.5, 0.5 + cost(DRAFT))]
    assert served["stream"] == [(2.0, 2.0 + cost(1))]
    assert sizes == [1, 1]


def test_what_gathers_during_a_step_is_the_next_one():
    arrivals = [(0.0, "draft0", DRAFT), *((0.001 * i, f"draft{i}", DRAFT) for i in range(1, 9))]
    _, sizes = simulate(arrivals, MACHINES["cpu"], 9)
    assert sizes == [1, 8]


def test_devices_that_come_a_little_apart_are_gathered_into_one_step(monkeypatch):
    """Four start apart by less than a step's hold; from the second round on they are one batch."""
    drafts = [(0.0002 * i, f"draft{i}", DRAFT) for i in range(4)]

    def rounds() -> tuple[int, float]:
        served, sizes = simulate(drafts, MACHINES["cpu"], 5, think_s=0.004)
        settled = sizes[len(sizes) // 2 :]
        return sum(map(len, served.values())), sum(settled) / len(settled)

    held, size = rounds()
    assert size == 4
    monkeypatch.setattr(batching, "HOLD", 0.0)  # control: without, they stay two groups
    free, apart = rounds()
    assert apart < 3
    assert held > 1.2 * free


@pytest.mark.parametrize("machine", MACHINES)
def test_a_lone_device_never_waits(machine):
    cost = MACHINES[machine]
    served, _ = simulate([(0.0, "draft", DRAFT)], cost, 5, think_s=0.004)
    assert max(end - at for at, end in served["draft"]) < 1.001 * cost(DRAFT)


def test_a_step_is_held_only_for_company_that_is_expected_soon():
    batcher: Batcher[str] = Batcher()

    def round(name: str, at: float) -> None:
        batcher.add(name, DRAFT, at, session=name)

    for name, pause in (("soon", 0.004), ("late", 0.5)):
        round(name, 0.0)
        batcher.take()
        batcher.answered(name, 0.0)
        round(name, pause)
        batcher.take()
    batcher.ran(DRAFT, 0.02)
    until = 1.0 + HOLD * 0.02
    batcher.answered("late", 1.0)
    round("here", 1.0)
    assert batcher.due(1.0) == 1.0  # nobody is expected, or only long after
    batcher.answered("soon", 1.0)
    assert batcher.due(1.0) == batcher.due(1.001) == until
    assert batcher.due(until) == until  # and no longer, whether it came or not
    round("soon", 1.004)
    assert batcher.due(1.004) == 1.004
    batcher.take()
    # One that stays away longer than it used to is not waited for again; nor one that has gone.
    batcher.answered("soon", 1.1)
    round("here", 2.0)
    assert batcher.due(2.0) == 2.0
    batcher.take()
    batcher.answered("soon", 3.0)
    round("here", 3.0)
    assert batcher.due(3.0) > 3.0
    # Who sits out is not waited for; when it comes again is still known.
    batcher.sits_out("soon")
    assert batcher.due(3.0) == 3.0
    round("soon", 3.5)
    batcher.take()
    batcher.answered("soon", 4.0)
    round("here", 4.0)
    assert 4.0 < batcher.due(4.0) <= 4.0 + HOLD * 0.02
    batcher.add("prompt", batcher.cap, 4.0)
    assert batcher.due(4.0) == 4.0  # the step is full
    batcher.take()
    round("here", 4.0)
    assert batcher.due(4.0) > 4.0
    batcher.forget("soon")
    assert batcher.due(4.0) == 4.0


def test_who_is_not_admitted_goes_on_waiting():
    batcher: Batcher[str] = Batcher()
    for i in range(3):
        batcher.add(f"draft{i}", DRAFT, 0.001 * i)
    asked: list[str] = []
    taken = batcher.take(lambda item: asked.append(item) or item != "draft1")
    assert asked == ["draft0", "draft1", "draft2"]
    assert taken == [("draft0", DRAFT), ("draft2", DRAFT)]
    batcher.add("gone", DRAFT, 0.0)
    batcher.drop(lambda item: item == "gone")
    assert batcher.take() == [("draft1", DRAFT)]


@pytest.mark.parametrize("machine", MACHINES)
def test_a_long_prompt_does_not_stall_verdicts(machine):
    cost = MACHINES[machine]
    drafts = [(0.01 * i, f"draft{i}", DRAFT) for i in range(4)]
    prompt = (1.0, "prompt", 4000)
    served, _ = simulate([*drafts, prompt], cost, 60, think_s=0.03)
    worst = max(end - at for i in range(4) for at, end in served[f"draft{i}"])
    # The step that runs when the draft comes, and its own; a full one is within STEP_S, or was the
    # one that shows the cap to be too high.
    assert worst <= 2 * 2 * STEP_S
    ((_, end),) = served["prompt"]
    alone, _ = simulate([prompt], cost, 60)
    # Verdicts take their share, and no more.
    assert end - 1.0 < 3 * (alone["prompt"][0][1] - 1.0)


def test_a_prompt_has_its_turn_however_many_drafts_there_are():
    """Drafts alone are more than the machine can do; a prompt's parts still come in turn."""
    cost = MACHINES["cpu"]
    drafts = [(0.0, f"draft{i}", DRAFT) for i in range(64)]
    served, _ = simulate([*drafts, (0.1, "prompt", 300)], cost, 60, think_s=0.0)
    ((at, end),) = served["prompt"]
    delay = max(end - at for i in range(64) for at, end in served[f"draft{i}"])
    # A part waits as long as a draft, and for the deadline that its own tokens give it.
    assert end - at < 300 / LEAST_PART * (delay + LEAST_PART * 4e-3)
    never, _ = simulate(
        [*drafts, (0.1, "prompt", 300)], cost, 60, think_s=0.0, token_s=1e3
    )  # control: with deadlines so far off, drafts go first for ever
    assert never["prompt"] == []


def test_sessions_that_are_alike_are_served_alike():
    drafts = [(0.003 * i, f"draft{i}", DRAFT) for i in range(40)]
    served, _ = simulate(drafts, MACHINES["cpu"], 30, think_s=0.01)
    counts = [len(ends) for ends in served.values()]
    assert max(counts) <= 1.03 * min(counts)  # who came first also had the machine alone at first


def test_prompts_take_turns():
    prompts = [(0.0, f"prompt{i}", 600) for i in range(3)]
    served, _ = simulate(prompts, MACHINES["cpu"], 60)
    ends = [served[f"prompt{i}"][0][1] for i in range(3)]
    assert max(ends) < 1.35 * min(ends)


@pytest.mark.parametrize(
    ("cost", "cap"),
    [
        (lambda tokens: 0.001, MOST_CAP),
        (lambda tokens: 1.0, LEAST_CAP),
        (lambda tokens: STEP_S * (0.2 + tokens / 500), 256),
    ],
)
def test_the_cap_fits_the_machine(cost, cap):
    batcher: Batcher[str] = Batcher()
    for _ in range(20):
        batcher.add("prompt", 1 << 20, 0.0)
        ((_, tokens),) = batcher.take()
        batcher.ran(tokens, cost(tokens))
    assert batcher.cap == cap
    batcher.ran(1, 9.0)  # a small step says nothing about full ones
    assert batcher.cap == cap
    batcher.ran(cap, 9.0)
    assert batcher.cap == max(cap // 2, LEAST_CAP)


def test_a_request_with_nothing_to_feed_takes_part_in_a_full_step():
    batcher: Batcher[str] = Batcher()
    batcher.add("prompt", 1000, -10.0)
    batcher.add("judging", 0, 0.0)
    assert batcher.take() == [("prompt", LEAST_CAP), ("judging", 0)]
    assert len(batcher) == 0


def test_a_draft_is_not_torn_up():
    batcher: Batcher[str] = Batcher()
    for i in range(LEAST_CAP // DRAFT + 1):
        batcher.add(f"draft{i}", DRAFT, 0.0)
    assert {count for _, count in batcher.take()} == {DRAFT}
    assert batcher.take() == [(f"draft{LEAST_CAP // DRAFT}", DRAFT)]
