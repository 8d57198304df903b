"""Whether drafting pays with what was measured, by how much, and what decides it.

Where rows are sent (``topk``) the modes are those of ``plan``: the better of stop-and-wait
(``theory``) and run-ahead over one serial verifier (``schedule``), against the base station alone.
Acceptance is taken as independent. Where both ends write (``coupled``) the gain is what was seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, Literal

from draftlink.planning import schedule, theory
from draftlink.planning.plan import FixedMode
from draftlink.planning.theory import Costs

LONGEST: Final = 16  # tokens of a block, as a device plans
ERRORS: Final = 2.0  # standard errors of the acceptance rate that a gain is told between
NOTHING_S: Final = 1e-6  # a time that would cost nothing: 0 has no schedule
GOOD: Final = 0.95  # the acceptance of a draft that would be hard to better

Cause = Literal["draft", "round trip", "acceptance", "verification"]


@dataclass(frozen=True)
class Measured:
    """What a device and a base station take, in seconds, and how much is accepted."""

    alpha: float
    alpha_error: float  # standard
    draft_s: float  # a draft forward while the base station is idle
    target_s: float  # a token that the base station writes alone
    verify_s: float  # a verification, without its rows
    row_s: float  # and what each drafted token adds to it
    rtt_s: float
    # Both at work at once, as in run-ahead: slower where they share a machine.
    draft_beside_s: float
    verify_beside_s: float  # with the rows of a block


@dataclass(frozen=True)
class Verdict:
    """``gain``: tokens/s of the best drafting mode over those of the base station alone."""

    gain: float
    low: float  # where acceptance is so many standard errors worse,
    high: float  # or better, than it was seen to be
    mode: FixedMode
    drafting_tokens_per_s: float
    stream_tokens_per_s: float
    cause: Cause  # what drafting would gain most from if it cost nothing

    @property
    def pays(self) -> bool:
        """Whether to draft."""
        return self.gain > 1.0


@dataclass(frozen=True)
class Both:
    """Both ends writing, as it went. ``gain``: tokens/s over those of the base station alone."""

    gain: float
    tokens_per_s: float
    tokens: int  # that this was seen over

    @property
    def error(self) -> float:
        """Standard, of the gain, where a text's steps are as uncertain as a count of them."""
        return self.gain * math.sqrt(self.gain / self.tokens)

    @property
    def pays(self) -> bool:
        """Whether it is faster by more than luck."""
        return self.gain > 1.0 + self.error


def judge(measured: Measured) -> Verdict:
    """The verdict where rows are sent. Raises ValueError for impossible times."""
    gain, mode = _gain(measured)
    off = ERRORS * measured.alpha_error
    alphas = (max(0.0, measured.alpha - off), min(1.0, measured.alpha + off))
    low, high = (_gain(replace(measured, alpha=alpha))[0] for alpha in alphas)
    ideal: dict[Cause, Measured] = {
        "draft": replace(measured, draft_s=NOTHING_S, draft_beside_s=NOTHING_S),
        "round trip": replace(measured, rtt_s=0.0),
        "acceptance": replace(measured, alpha=max(GOOD, measured.alpha)),
        "verification": replace(
            measured,
            verify_s=min(measured.verify_s, measured.target_s),
            verify_beside_s=min(measured.verify_beside_s, measured.target_s),
            row_s=0.0,
        ),
    }
    cause = max(ideal, key=lambda each: _gain(ideal[each])[0])
    alone = 1.0 / theory.stream_time(_costs(measured))
    return Verdict(gain, low, high, mode, gain * alone, alone, cause)


def answer(measured: Measured, verdict: Verdict, both: Both | None) -> list[str]:
    """The better choice in a line, and why; then, where there is one, the other choice."""
    rows = reason(measured, verdict)
    if both is None:
        return [rows]
    if both.pays and (not verdict.pays or both.gain > verdict.gain):
        return [together(both, verdict), f"with --scheme topk {rows}"]
    return [f"{rows} (--scheme topk)" if verdict.pays else rows, together(both, verdict)]


def together(both: Both, verdict: Verdict) -> str:
    """What came of both ends writing, in a line."""
    how = "where both ends write (--scheme coupled; chat and serve do so)"
    seen = (
        f"{both.tokens_per_s:.3g} tokens/s, {verdict.stream_tokens_per_s:.3g} without, over"
        f" {both.tokens} tokens"
    )
    times = f"{both.gain:.2f} ± {both.error:.2f} times"
    if both.pays:
        return f"drafting gains {both.gain:.1f} times here {how}: {times}, {seen}"
    if both.gain < 1.0 - both.error:
        return f"{how} the base station alone is faster, too: {times}, {seen}"
    return f"{how} a text comes about as fast as the base station's alone: {times}, {seen}"


def reason(measured: Measured, verdict: Verdict) -> str:
    """The verdict where rows are sent in a line, and why."""
    alone, drafting = verdict.stream_tokens_per_s, verdict.drafting_tokens_per_s
    close = ""
    if verdict.low < 1.0 < verdict.high:
        close = f"; it is close: {verdict.low:.2f} to {verdict.high:.2f} times"
    target = f"{_ms(measured.target_s)} for a token that the base station writes alone"
    if verdict.pays:
        return (
            f"drafting gains {verdict.gain:.1f} times here ({drafting:.3g} tokens/s by"
            f" {verdict.mode}, {alone:.3g} without): {measured.alpha:.0%} of drafted tokens are"
            f" accepted, at {_ms(measured.draft_s)} each, against {target}{close}"
        )
    because = {
        "draft": f"a draft forward takes {_ms(measured.draft_s)} here, against {target}",
        "round trip": f"a round trip takes {_ms(measured.rtt_s)}, in which the base station writes"
        f" {measured.rtt_s / measured.target_s:.1f} tokens",
        "acceptance": f"only {measured.alpha:.0%} of drafted tokens are accepted",
        "verification": f"checking a block takes {_ms(measured.verify_beside_s)}, against {target}",
    }[verdict.cause]
    return (
        f"the base station alone is faster ({alone:.3g} tokens/s; drafting would have"
        f" {drafting:.3g}), because {because}{close}"
    )


def _gain(measured: Measured) -> tuple[float, FixedMode]:
    wait, ahead = _stop_and_wait_s(measured), _run_ahead_s(measured)
    alone = theory.stream_time(_costs(measured))
    return alone / min(wait, ahead), "stop-and-wait" if wait <= ahead else "run-ahead"


def _costs(measured: Measured) -> Costs:
    return Costs(
        measured.draft_beside_s, measured.target_s, measured.verify_beside_s, measured.rtt_s
    )


def _stop_and_wait_s(measured: Measured) -> float:
    fixed_s = measured.rtt_s + measured.verify_s
    drafted_s = measured.draft_s + measured.row_s
    gamma = theory.best_draft_length(
        measured.alpha, fixed_s=fixed_s, draft_s=drafted_s, longest=LONGEST
    )
    tokens = theory.expected_tokens(measured.alpha, gamma)
    return (fixed_s + gamma * drafted_s) / tokens


def _run_ahead_s(measured: Measured) -> float:
    return schedule.best_schedule(measured.alpha, _costs(measured), longest=LONGEST).token_s


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"
