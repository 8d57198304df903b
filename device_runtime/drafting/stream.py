"""The window while the base station writes alone: what the draft does beside it, and when it ends.

Where a proposal is a function of the draft's distribution (greedy and ``coupled``), comparing it
with each token of the stream tells the acceptance rate before anything is drafted, for nothing but
the device's own time. A cache that has kept up is also ready to draft at once. In other schemes a
few proposals are made for the time that they take, and forgotten. All times are in seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from device_runtime.drafting.actions import Action, Follow, Switch
from device_runtime.drafting.controller import Controller
from device_runtime.drafting.counts import Counts
from device_runtime.drafting.epochs import BACKLOG
from device_runtime.drafting.nearer import Nearer

BURST_S = 0.002  # tokens that come closer to one another had waited for something on the link
LOOKS = 3  # draft forwards that are timed, whatever else they tell


@dataclass(frozen=True)
class _Forward:
    """A draft forward under way since ``asked_s``, which feeds ``fed`` tokens."""

    asked_s: float
    fed: int


class Stream:
    """Reading a stream. With ``auto`` the draft follows it, and the controller may end it."""

    def __init__(
        self, controller: Controller, counts: Counts, started_s: float, *, auto: bool
    ) -> None:
        self._controller = controller
        self._estimates = controller.estimates
        self._counts = counts
        self.started_s = started_s  # when the generation began
        self.begins = counts.length
        self._auto = auto
        self._last_s: float | None = None  # when the last token came
        self._first_s = 0.0  # when the first one of the last burst came
        # The round trip is bounded once a generation, by the stream that it begins with.
        self._bounded = counts.length > counts.limits.begins
        self.leaves = False  # the controller has ended it
        self._nearer = Nearer()
        self._forward: _Forward | None = None

    @property
    def drafting(self) -> bool:
        """Whether a draft forward is under way."""
        return self._forward is not None

    def due(self, now: float, cached: int) -> list[Action]:
        """What is to be done at once; ``cached`` is the number of tokens in the draft's cache.

        The draft is fed the next token of the history, and what it proposes behind it is noted. Of
        the prompt all but the last token first, where no forward has been timed yet: that one is.
        """
        if self._forward is not None or not self._looks():
            return []
        limits = self._counts.limits
        begins = limits.begins if len(self._estimates.draft) else limits.begins - 1
        until = max(cached + 1, begins)  # the target writes from ``limits.begins`` on
        there = min(self._counts.length, limits.context)
        if until > there:
            return []
        if until > begins and (looks := self._controller.looks) > 1:
            if cached + looks > there:
                return []
            until = there  # what came since the last look is fed at once
        self._forward = _Forward(now, until - cached)
        return [Follow(until, self.begins)]

    def _looks(self) -> bool:
        """Whether the draft is to follow: always, if that tells what would be accepted."""
        follows = self._counts.limits.follows
        return self._auto and not self.leaves and (follows or len(self._estimates.draft) < LOOKS)

    def followed(self, now: float, waited_s: float = 0.0) -> Switch | None:
        """The draft has proposed a token, and was at work for others for ``waited_s``.

        The switch that is due at once, if one is. The base station writes while the device reads
        the prompt; where it is known that drafting is faster, no longer than that.
        """
        forward, self._forward = self._forward, None
        assert forward is not None
        draft = self._estimates.draft
        news = self._last_s is None or not len(draft)
        if forward.fed <= BACKLOG:
            draft.took(now - forward.asked_s - waited_s, beside=True)
        return self._choose() if news and self._may_leave else None

    def streamed(self, now: float, tokens: int, *, ended: bool) -> Switch | None:
        """Tokens have come, and joined the history. The switch that is due at once, if one is.

        ``ended``: they are the last of the text.
        """
        if self._last_s is not None and now - self._last_s > BURST_S:
            self._estimates.target.add((now - self._last_s) / tokens)
        else:
            self._first_s = now
        self._last_s = now
        self._bound_rtt()
        rtt = self._estimates.rtt
        if nearer_s := self._nearer.came(now, rtt.typical):
            rtt.became(rtt.typical - 2.0 * nearer_s)
            self._controller.nearer()
        if ended or not self._may_leave:
            return None
        self._controller.streamed(tokens)
        return self._choose()

    @property
    def _may_leave(self) -> bool:
        return self._auto and not self.leaves and self._counts.room > 0

    def _choose(self) -> Switch | None:
        """The switch, if the device is to draft from here on."""
        if self._controller.choose(self._counts.room) == "stream":
            return None
        self.leaves = True
        return Switch("draft")

    def _bound_rtt(self) -> None:
        """A round trip and the prompt came before the first token: no link is slower than that.

        A greeting that stalled would otherwise keep a fast link from being used.
        """
        estimates = self._estimates
        if self._bounded or not len(estimates.target):
            return
        self._bounded = True
        first_s = self._first_s - self.started_s
        estimates.rtt.at_most(first_s - estimates.target.typical)  # a prompt takes a token's time
