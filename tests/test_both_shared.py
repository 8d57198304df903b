"""Both ends on one machine, where each slows the other: known by the address, they take turns."""

from __future__ import annotations

import random

from bench.both.cells import Costs, play
from bench.virtual.record import Record

TOKENS = 120


def rate(slowdown: float, *, shared: bool) -> float:
    """Tokens/s of a cold text; a draft takes 20 ms and a step 50, alone."""
    rng = random.Random(5)
    right = tuple(rng.random() < 0.75 for _ in range(TOKENS))
    costs = Costs(50.0, 20.0, 0.2, slowdown=slowdown, shared=shared)
    return play(costs, Record(5, 3, right, (0.7,) * TOKENS), "auto").tokens_per_s


def test_who_takes_turns_from_the_first_token_hardly_notices_the_other():
    """No step is begun beside a draft that is waited for, not even the first."""
    assert rate(2.5, shared=True) > 0.95 * rate(1.0, shared=True)
    # The control: who has to find out has paid for it by then.
    assert rate(2.5, shared=False) < 0.9 * rate(1.0, shared=False)
