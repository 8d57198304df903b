"""Which mode writes: estimates into closed forms, what was measured on top, and no oscillation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from device_runtime.drafting.estimators import Estimates
from draftlink.planning import schedule, theory
from draftlink.planning.plan import FixedMode

DraftingMode = Literal["stop-and-wait", "run-ahead"]

LONGEST = 16  # tokens of a block that is planned
HYSTERESIS = 0.05  # by how much another mode must be faster
SHARES = 1.5  # times as long run-ahead is taken to take on one machine, before it is known
WAITS_BELOW = 0.95  # of run-ahead's time per token, before stop-and-wait is chosen
PATIENCE = 0.6  # of them by which acceptance may be better than it looks, before drafting is left
MORE_PATIENCE = 1.0  # and before it has been drafted for long
TRUST = 60.0  # tokens' time, foretold, that weighs against what was measured
SLOWEST = 2.0  # times what was foretold, as which an epoch counts at the most
DWELL_TOKENS = 12  # written in a mode before it is left; doubled each time it is
PROBE_SHARE = 0.03  # of what is left, in time, that finding out may cost
MEMORY = 0.95  # what an epoch's time weighs after the next one
NEAR_S = 0.02  # a greeting's way there and back within a busy machine
LOOKS = (8, 64)  # tokens of a stream between two looks on one machine: where there is hope, or none


@dataclass(frozen=True)
class DraftPlan:
    """How to draft: blocks of ``first`` tokens, and whether the device ``waits`` behind each.

    A block is sent as soon as the probability that all of it is accepted has fallen to ``sure``: in
    run-ahead ``first`` is meant on average, in stop-and-wait it is the most. ``window``: drafted
    tokens without a verdict, at most.
    """

    first: int
    waits: bool
    sure: float
    window: int


@dataclass
class _Record:
    """Time that tokens took in a mode, over the time that was foretold for them."""

    measured_s: float = 0.0
    foretold_s: float = 0.0

    def add(self, measured_s: float, foretold_s: float) -> None:
        self.measured_s = MEMORY * self.measured_s + measured_s
        self.foretold_s = MEMORY * self.foretold_s + foretold_s

    def ratio(self, weight_s: float) -> float:
        """Measured over foretold, with ``weight_s`` seconds that went as foretold added to both."""
        return (self.measured_s + weight_s) / (self.foretold_s + weight_s)


@dataclass
class Controller:
    """Decides for one generation, which begins with it. Lengths come in; nothing is read.

    ``gamma``: the draft length of stop-and-wait, if the caller has fixed it. ``foretells``: what
    would be accepted is also learned while the target streams. ``opens``: the base station is on
    this machine, nothing delays on the way to it, and it reads the prompt before the device does.
    """

    estimates: Estimates
    gamma: int | None = None
    writer: FixedMode = "stream"
    foretells: bool = False
    opens: bool = False
    _here: bool = False  # the base station's address is here
    _since: int = 0  # tokens written in this mode
    _dwell: int = DWELL_TOKENS
    _record: _Record = field(default_factory=_Record)  # of drafting

    def __post_init__(self) -> None:
        self.estimates.acceptance.begin()

    @property
    def drafts(self) -> DraftingMode:
        """How to draft, where drafting it is."""
        return "run-ahead" if self.writer == "stream" else self.writer

    def plan(self, mode: DraftingMode) -> DraftPlan:
        """How to draft in a mode, as the estimates are now."""
        if mode == "stop-and-wait":
            length, sure = self._round()
            return DraftPlan(length, waits=True, sure=sure, window=length)
        return self._ahead()

    def token_s(self, writer: FixedMode, alpha: float) -> float:
        """Foretold seconds per token, if the acceptance rate is ``alpha``."""
        here = self.estimates
        if writer == "stream":
            return here.stream_s
        if writer == "stop-and-wait":
            return self._round_s(alpha)
        return self._schedule(alpha).token_s

    def begin(self, *, near: bool) -> FixedMode:
        """Who writes first, where that may change; ``near``: the base station's address is here.

        The base station, while the device reads its own prompt. Where both are on one machine, that
        would have them share its cores, and a round costs no way: there the device drafts, and
        waits, unless it has found out that this is slower.
        """
        alpha = self.estimates.acceptance.alpha
        self._here, self.opens = near, near and self.near
        if near and self._known:
            near = self._drafting_s("stop-and-wait", alpha) < self.token_s("stream", alpha)
        elif near:
            near = self.opens
        if near:
            self.writer = "stop-and-wait"
        return self.writer

    def drafted(self, writer: DraftingMode, tokens: int, seconds: float, length: int = 0) -> None:
        """An epoch, or a round of ``length``, brought so many tokens in so many seconds."""
        self._since += tokens
        if self._known:
            foretold_s = self._epoch_s(writer, tokens, length)
            self._record.add(min(seconds, SLOWEST * foretold_s), foretold_s)

    def streamed(self, tokens: int) -> None:
        """So many tokens of a stream came."""
        self._since += tokens

    @property
    def looks(self) -> int:
        """Tokens of a stream that are fed to the draft at once: here each look may slow it."""
        told = self.estimates.acceptance
        if not self._here or not self._known or told.weight < LOOKS[0]:
            return 1
        hope = told.hoped()
        hoped_s = self._drafting_s(self._drafting(hope), hope)
        return LOOKS[hoped_s >= (1.0 - HYSTERESIS) * self.token_s("stream", hope)]

    def nearer(self) -> None:
        """The link has become another one: that drafting did not pay over the last says little."""
        self._dwell = DWELL_TOKENS

    def _epoch_s(self, writer: DraftingMode, tokens: int, length: int) -> float:
        """Foretold seconds of an epoch of so many tokens; of a round, whatever their number."""
        here = self.estimates
        if writer == "stop-and-wait":
            fixed_s, drafted_s = here.round_s()
            return length * drafted_s + fixed_s
        draft_s, verify_s = here.costs_s(beside=True)
        costs = theory.Costs(draft_s, 1.0, verify_s, here.rtt.mean)
        first = self._schedule(here.acceptance.alpha).first
        return schedule.epoch_time(
            tokens, first, costs, restart_s=draft_s / 2.0, stall_s=here.stall_s
        )

    def choose(self, left: int) -> FixedMode:
        """The mode for the next of ``left`` tokens; ``writer`` from now on."""
        if not self._known:
            return self.writer
        here = self.estimates
        alpha = here.acceptance.alpha
        drafting = self._drafting(alpha)
        stream_s = self.token_s("stream", alpha)
        if self.writer == "stream":
            # By what is expected, without a margin for what is not certain yet: a guess that proves
            # wrong costs two changes and a few epochs (``Refuted``), and to wait for certainty
            # costs what drafting would save for as long.
            change_s = here.rtt.mean + here.draft.mean
            draft_s = self._drafting_s(drafting, alpha)
            better = draft_s < (1.0 - HYSTERESIS) * stream_s
            pays = better and (stream_s - draft_s) * left > 2.0 * change_s and self._rested
            if pays or (not self.foretells and self._worth_a_try(left)):
                self._change(drafting)
        else:
            lasted = self._since >= self._dwell
            patience = PATIENCE if lasted else MORE_PATIENCE
            draft_s = self._drafting_s(self.writer, here.acceptance.hoped(patience))
            if stream_s < (1.0 - HYSTERESIS) * draft_s:
                self._change("stream")
            elif drafting != self.writer and (self._since >= DWELL_TOKENS or self._crowded):
                self._change(drafting)
        return self.writer

    def _drafting(self, alpha: float) -> DraftingMode:
        """The better way to draft, if the acceptance rate is ``alpha``."""
        # Run-ahead looks at each token's probability, which its formula knows nothing of.
        ahead_s = self.token_s("run-ahead", alpha)
        if self.opens and not self.estimates.draft.compared:
            ahead_s *= SHARES
        waits = self.token_s("stop-and-wait", alpha) < WAITS_BELOW * ahead_s
        return "stop-and-wait" if waits else "run-ahead"

    @property
    def near(self) -> bool:
        """Whether a base station may be on this machine, by the round trip: through a tunnel one at
        this machine's address is not."""
        return 0.0 < self.estimates.rtt.typical <= NEAR_S

    @property
    def _rested(self) -> bool:
        """Whether the stream has lasted long enough; the first one need not."""
        return self._dwell == DWELL_TOKENS or self._since >= self._dwell

    @property
    def _crowded(self) -> bool:
        """Whether drafting on has shown that both ends share cores: that is no streak of luck."""
        return self.writer == "run-ahead" and self.estimates.draft.slowdown > 1.0

    @property
    def _known(self) -> bool:
        here = self.estimates
        return bool(len(here.rtt) and len(here.draft) and here.stream_s)

    def _drafting_s(self, writer: DraftingMode, alpha: float) -> float:
        """Seconds per token of a drafting mode: foretold, and corrected by what was measured."""
        foretold_s = self.token_s(writer, alpha)
        # A few epochs say little, where one that stalled may take twice as long as the others.
        return foretold_s * self._record.ratio(TRUST * foretold_s)

    def _worth_a_try(self, left: int) -> bool:
        """Whether drafting might be faster, and finding out costs little of what is left."""
        here = self.estimates
        hope = here.acceptance.hoped()
        stream_s = self.token_s("stream", hope)
        alpha = here.acceptance.alpha
        epoch_s = (self.token_s("run-ahead", alpha) - stream_s) / (1.0 - alpha)
        return (
            self._dwell == DWELL_TOKENS  # else it was tried before
            and self.token_s("run-ahead", hope) < (1.0 - HYSTERESIS) * stream_s
            and epoch_s + here.rtt.mean < PROBE_SHARE * left * stream_s
        )

    def _change(self, writer: FixedMode) -> None:
        if writer == "stream":  # from one way to draft to the other is no way back
            self._dwell *= 2
        self.writer, self._since = writer, 0

    def _round_s(self, alpha: float) -> float:
        """Seconds per token of stop-and-wait, at the caller's draft length or the best one."""
        fixed_s, drafted_s = self.estimates.round_s()
        length = self.gamma or theory.best_draft_length(
            alpha, fixed_s=fixed_s, draft_s=drafted_s, longest=LONGEST
        )
        return (length * drafted_s + fixed_s) / theory.expected_tokens(alpha, length)

    def _round(self) -> tuple[int, float]:
        """The most tokens of a block that waits, and how sure of all of it to be to go on.

        One more saves what a token takes, if it and all before it are accepted, and costs what a
        drafted token costs. Where all chances are alike that stops at the best fixed length; but a
        token from a row's tail is all but rejected, and known to be.
        """
        here = self.estimates
        if self.gamma:
            return self.gamma, 0.0
        if not len(here.draft) or not len(here.rtt):
            return 5, 0.0  # too early to tell
        alpha = here.acceptance.alpha
        drafted_s = here.round_s()[1]
        return LONGEST, min(drafted_s / (alpha * self._round_s(alpha)), 1.0)

    def _ahead(self) -> DraftPlan:
        here = self.estimates
        draft_s = here.draft.typical
        if not draft_s:
            return DraftPlan(2, waits=False, sure=0.75, window=2 * LONGEST)
        alpha, verify_s = here.acceptance.alpha, here.verify_s
        first = self._schedule(alpha).first
        # Enough to draft without pause until the first block's verdict is there, and no deeper than
        # one epoch in a hundred gets.
        until = first + int((here.rtt.typical + 2.0 * verify_s) / draft_s) + 1
        deep = schedule.depth(alpha, 0.01)
        window = max(first, min(until, deep))
        # Others wait for the base station too: what it checks should be accepted.
        load = here.queue.typical / verify_s if verify_s else 0.0
        window = max(first, int(window / (1.0 + load)))
        return DraftPlan(first, waits=False, sure=alpha ** (first - 0.5), window=window)

    def _schedule(self, alpha: float) -> schedule.Schedule:
        here = self.estimates
        draft_s, verify_s = here.costs_s(beside=True)
        return schedule.planned(
            round(100 * alpha),
            _rounded_us(draft_s),
            _rounded_us(verify_s),
            _rounded_us(here.rtt.mean),
            _rounded_us(here.stall_s) if here.stall_s else 0,
        )


def _rounded_us(seconds: float) -> int:
    """Microseconds to two digits, at least 1."""
    whole = max(1, round(seconds * 1e6))
    unit = 10 ** max(0, len(str(whole)) - 2)
    return int(round(whole / unit) * unit)
