"""Where a run of ids stood last: right by brute force, and at a cost that no text can raise."""

from __future__ import annotations

import itertools
import random

import pytest

from bs_runtime.engine import runs
from bs_runtime.engine.lookup import LONGEST, LookUp
from bs_runtime.engine.prices import Prices
from bs_runtime.engine.runs import AT_ONCE, LENGTHS, TAIL, Runs
from tests.watched import Watched

LONG = 9000


def cheap() -> Prices:
    """Of steps whose rows cost nothing, so that everything found is proposed."""
    prices = Prices()
    for rows in (1, 2) * 50:
        prices.stepped(rows, 0.01, 1, 1, 0.0)
    return prices


def slowest(history: list[int], held: list[int]) -> tuple[list[int], int] | None:
    """The last place of the longest run, by looking at all of them."""
    whole = [*history, *held]
    for length in LENGTHS:
        for at in range(len(history) - 1, length - 1, -1):
            if history[at - length : at] == whole[-length:] and len(whole) >= length:
                same = 0
                while same < min(at, TAIL) and whole[at - 1 - same] == whole[-1 - same]:
                    same += 1
                ids = whole[at : at + LONGEST]
                while len(ids) < LONGEST:
                    ids.append(ids[at - len(whole)])
                return ids, same
    return None


def test_it_is_what_brute_force_finds():
    rng = random.Random(0)
    hits = 0
    for _ in range(300):
        size = rng.choice((2, 3, 9))
        history = [rng.randrange(size) for _ in range(rng.randrange(200))]
        table = Runs()
        while history and rng.random() < 0.9:  # it grows, and is cut back
            table.add(history)
            history = history[: rng.randrange(len(history) + 1)] if rng.random() < 0.3 else history
            history += [rng.randrange(size) for _ in range(rng.randrange(9))]
        table = table if rng.random() < 0.5 else Runs()
        table.add(history)
        held = [rng.randrange(size) for _ in range(rng.choice((0, 0, 3, 20)))]
        found, wanted = table.find(history, held, LONGEST), slowest(history, held)
        if found is not None:
            assert wanted is not None
            # It is a place where just so many ids are the same, and what stands behind it.
            assert found.same <= TAIL and len(found.ids) == LONGEST
            whole = [*history, *held]
            places = [at for at in range(2, len(history))
                      if whole[max(0, at - found.same) : at] == whole[-found.same :]]  # fmt: skip
            assert any(whole[at : at + LONGEST] == found.ids[: len(whole) - at] for at in places)
        hits += (None if found is None else tuple(found)) == wanted
    assert hits > 0.85 * 300  # where a text was cut back, or hashes meet, it may find less


@pytest.mark.parametrize("period", [1, 2, 3, 7, 64, 5000, 0])
def test_what_a_token_costs_no_text_can_raise(period):
    """Counted, not timed: ids that are read, of texts constant, periodic and random."""
    rng = random.Random(period)
    unit = [rng.randrange(50) for _ in range(period)]
    text = list(itertools.islice(itertools.cycle(unit), LONG)) if unit else [
        rng.randrange(50) for _ in range(LONG)
    ]  # fmt: skip
    history, look = Watched(text[:10]), LookUp(cheap())
    most = 0
    for token in text[10:]:
        before = history.read
        assert len(look.proposed(history)) <= LONGEST
        most = max(most, history.read - before)
        history.append(token)
    # A step reads a part at once and its tail, whatever there is; and over all it comes to little.
    assert most <= AT_ONCE + 200
    assert history.read <= 200 * LONG
    assert look._runs._tables.nbytes <= 2 * 4 * len(LENGTHS) * LONG


def test_a_long_prompt_is_taken_up_in_parts():
    rng = random.Random(0)
    history = Watched(rng.randrange(50) for _ in range(32_768))
    look = LookUp(cheap())
    for _ in range(12):
        before = history.read
        look.proposed(history)
        assert history.read - before <= AT_ONCE + 200
    assert look._runs._end == len(history) - 1


def test_control_a_search_costs_what_the_text_is_long(monkeypatch):
    def add(self, history):
        return None

    def find(self, history, held, most):
        return next((None for at in range(len(history)) if history[at] < 0), None)

    monkeypatch.setattr(Runs, "add", add)
    monkeypatch.setattr(Runs, "find", find)
    history = Watched([1] * LONG)
    LookUp(cheap()).proposed(history)
    assert history.read > AT_ONCE + 200


def test_ids_whose_hashes_are_all_the_same_are_no_more_work(monkeypatch):
    """Who knows the factors can make runs meet: then less is found, and nothing else."""
    monkeypatch.setattr(runs, "_FACTORS", runs._FACTORS * 0)
    history, look = Watched([1, 2, 3, 4] * 500), LookUp(cheap())
    for _ in range(100):
        before = history.read
        look.proposed(history)
        history.append(1)
        assert history.read - before <= AT_ONCE + 200
