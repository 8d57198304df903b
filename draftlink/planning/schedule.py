"""Run-ahead over one serial verifier: what to check together, and what a token then costs.

An epoch begins when the device has a correction and ends with the next. The device drafts without
pause; the base station checks one block at a time. A block of m tokens that starts when they are
there ends the epoch with probability 1 − α^m, and the correction is back a verification and a round
trip later. A larger block puts off the news of a rejection; a smaller one keeps the verifier busy
while the token that will be rejected waits. ``theory.run_ahead_time`` is the bound without that
conflict, with a verifier for each token.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from draftlink.planning.theory import Costs, expected_tokens

LONGEST = 64  # tokens of a block, as ``schemes.base.MAX_DRAFT``
NEGLIGIBLE = 1e-4  # probability of an epoch that lasts longer than what is summed up


@dataclass(frozen=True)
class Schedule:
    """An epoch's blocks: ``first`` tokens, then always what is there when the verifier is free."""

    first: int
    token_s: float  # expected seconds per token


def block_time(
    alpha: float, first: int, costs: Costs, *, restart_s: float = 0.0, stall_s: float = 0.0
) -> float:
    """Expected seconds per token of epochs that begin with a block of ``first`` tokens.

    Each later block starts as soon as the verifier is free and one token is there, and takes all
    that are. ``restart_s``: from the correction's arrival until drafting begins anew, as a forward
    is not interrupted. ``stall_s``: by how much each later block's message puts off the correction
    on average, as those behind a lost packet wait for it; the first one's is a part of the RTT.
    """
    back_s = costs.correction_s - costs.verify_s + restart_s
    seconds = tokens = 0.0
    reached, drafted, count = 1.0, 0, first
    free_s = 0.0  # when the verifier is done with what it has, since drafting began
    while True:
        start_s = max(free_s, (drafted + count) * costs.pace_s)
        free_s = start_s + costs.verify_s
        all_stand = alpha**count
        # Accepted, and the correction if there is one: E[tokens of a round] less the bonus token.
        tokens += reached * (expected_tokens(alpha, count) - all_stand)
        seconds += reached * (1.0 - all_stand) * (free_s + back_s)
        reached *= all_stand
        seconds += reached * stall_s
        drafted += count
        if reached < NEGLIGIBLE or drafted > 1000:
            break
        there = int(free_s / costs.pace_s + 1e-9) - drafted
        count = min(max(there, 1), LONGEST)
    # The epoch is over here for certain: what is left out is less than NEGLIGIBLE of it.
    return (seconds + reached * (free_s + back_s)) / (tokens + reached)


def epoch_time(
    tokens: int, first: int, costs: Costs, *, restart_s: float = 0.0, stall_s: float = 0.0
) -> float:
    """Seconds of an epoch as in ``block_time`` whose ``tokens``-th drafted token is rejected."""
    drafted, count, free_s, stalls_s = 0, first, 0.0, 0.0
    while True:
        free_s = max(free_s, (drafted + count) * costs.pace_s) + costs.verify_s
        drafted += count
        if drafted >= tokens:
            return free_s + costs.correction_s - costs.verify_s + restart_s + stalls_s
        stalls_s += stall_s
        count = min(max(int(free_s / costs.pace_s + 1e-9) - drafted, 1), LONGEST)


def best_schedule(
    alpha: float,
    costs: Costs,
    *,
    longest: int = 16,
    restart_s: float | None = None,
    stall_s: float = 0.0,
) -> Schedule:
    """The first block, of at most ``longest`` tokens, with the least time per token.

    ``restart_s`` is half a draft forward if not given; ``stall_s`` as in ``block_time``. Raises
    ValueError where drafting is free.
    """
    if not 0.0 <= alpha <= 1.0:
        raise ValueError(f"alpha must be in [0, 1], not {alpha}")
    if costs.pace_s == 0.0:
        raise ValueError("a schedule needs a draft time or an uplink time above 0 seconds")
    restart_s = costs.draft_s / 2.0 if restart_s is None else restart_s
    times = {
        first: block_time(alpha, first, costs, restart_s=restart_s, stall_s=stall_s)
        for first in range(1, longest + 1)
    }
    first = min(times, key=times.__getitem__)
    return Schedule(first, times[first])


def ideal_time(alpha: float, costs: Costs, *, restart_s: float = 0.0) -> float:
    """Seconds per token under the best of all policies for when to start which block.

    Dynamic programming over the state that matters when the verifier falls free while all so far
    stands: how long ago the last checked token was drafted. Optimal for acceptance that is
    independent with a known α. Renewal-reward: the time per token t is where an epoch's
    E[seconds] − t E[tokens] has minimum 0.
    """
    back_s = costs.correction_s - costs.verify_s + restart_s
    pace_s, verify_s = costs.pace_s, costs.verify_s

    def choices(lag_s: float) -> range:
        there = int(lag_s / pace_s + 1e-9)
        return range(max(there, 1), max(there, 1) + 16)

    def after(lag_s: float, count: int) -> float:
        return round(max(lag_s, count * pace_s) + verify_s - count * pace_s, 9)

    lags, new = {0.0}, [0.0]
    while new:
        lag_s = new.pop()
        found = {after(lag_s, count) for count in choices(lag_s)} - lags
        lags |= found
        new += found

    def least(token_s: float) -> float:
        """The minimum of E[seconds] − token_s · E[tokens] over an epoch."""
        value = dict.fromkeys(lags, 0.0)
        for _ in range(500):
            old = dict(value)
            for lag_s in lags:
                value[lag_s] = min(
                    max(0.0, count * pace_s - lag_s)
                    + verify_s
                    + (1.0 - alpha**count) * back_s
                    - token_s * (expected_tokens(alpha, count) - alpha**count)
                    + alpha**count * old[after(lag_s, count)]
                    for count in choices(lag_s)
                )
            if max(abs(value[lag_s] - old[lag_s]) for lag_s in lags) < 1e-9:
                break
        return value[0.0]

    low, high = 0.0, block_time(alpha, 1, costs, restart_s=restart_s)
    while high - low > 1e-6 * high:
        middle = (low + high) / 2.0
        low, high = (middle, high) if least(middle) > 0.0 else (low, middle)
    return high


@functools.lru_cache(maxsize=256)
def planned(
    alpha_percent: int, draft_us: int, verify_us: int, rtt_us: int, stall_us: int = 0
) -> Schedule:
    """``best_schedule`` for rounded estimates: computed once as long as they hardly move."""
    costs = Costs(
        draft_s=draft_us * 1e-6,
        target_s=1.0,
        verify_s=verify_us * 1e-6,
        rtt_s=rtt_us * 1e-6,
    )
    return best_schedule(alpha_percent / 100.0, costs, stall_s=stall_us * 1e-6)


def depth(alpha: float, share: float) -> int:
    """Tokens into an epoch that only ``share`` of all epochs reach, α^n = share."""
    if not 0.0 < alpha < 1.0 or not 0.0 < share < 1.0:
        raise ValueError(f"alpha and share must be in (0, 1), not {alpha} and {share}")
    return math.ceil(math.log(share) / math.log(alpha))
