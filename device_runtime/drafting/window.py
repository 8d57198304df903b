"""The drafting window: decides what a device does next, without I/O, a model, a clock or an id.

It is told the time, what has been drafted (each token only as its probability in the draft, and
whether it is an EOS), verdicts, and tokens that the base station streamed. It says what is due:
draft so many tokens, send this block, wait until a time, let the base station write, show a token.
That a choice must not look at the drawn token holds by construction. The shells in ``writers`` only
carry out. ``docs/window.md`` has the rules for other clients, and ``tests/golden/window.json``
what is due in given situations.
"""

from __future__ import annotations

from collections.abc import Sequence

from device_runtime.drafting.actions import Action, GiveBack, Guess, Show, Switch, Wait
from device_runtime.drafting.blocks import Judged, Proposed
from device_runtime.drafting.controller import Controller
from device_runtime.drafting.counts import Counts, Limits
from device_runtime.drafting.epochs import Epochs
from device_runtime.drafting.offline import Offline
from device_runtime.drafting.stream import Stream


class Window:
    """One generation's window. ``length`` tokens of history are there when it begins.

    ``streams``: the base station writes first. ``auto``: who writes may change. ``started_s`` is
    when the generation began, ``now`` when the base station has been asked to; ``offline_after_s``
    says after how long a silence provisional tokens are shown, None for never.
    """

    def __init__(
        self,
        controller: Controller,
        limits: Limits,
        length: int,
        *,
        started_s: float,
        now: float,
        streams: bool,
        auto: bool,
        offline_after_s: float | None = None,
    ) -> None:
        self.controller = controller
        self._counts = Counts(limits, length)
        self._started_s = started_s
        self._auto = auto
        self._offline = Offline(offline_after_s)
        self._offline.heard_s = started_s
        self._writes: Epochs | Stream = self._streaming() if streams else self._drafting(now)

    def _streaming(self) -> Stream:
        return Stream(self.controller, self._counts, self._started_s, auto=self._auto)

    def _drafting(self, now: float) -> Epochs:
        return Epochs(self.controller, self._counts, self._offline, now, auto=self._auto)

    @property
    def mode(self) -> str:
        """Who writes, and how: ``stop-and-wait``, ``run-ahead`` or ``stream``."""
        return self._writes.mode if isinstance(self._writes, Epochs) else "stream"

    @property
    def streams(self) -> bool:
        """Whether the base station writes alone."""
        return isinstance(self._writes, Stream)

    @property
    def rests(self) -> bool:
        """Whether the base station writes since drafting would not pay, as far as that is known."""
        return isinstance(self._writes, Stream) and not self._writes.leaves

    @property
    def gone(self) -> bool:
        """Whether ``due`` gives back as soon as a connection is there, whatever is unread."""
        return isinstance(self._writes, Epochs) and self._writes.gone

    @property
    def judged(self) -> int:
        """Drafted tokens that have been accepted since the epoch began."""
        return self._epochs.judged

    def due(
        self, now: float, *, cached: int, connected: bool = True, unread: bool = False
    ) -> list[Action]:
        """What is to be done at ``now``, in this order; the last one may be to wait.

        ``cached`` is the number of tokens in the draft's cache; of no account while it drafts.
        ``connected``: frames can be sent. ``unread``: a frame has come that the window has not been
        told of; until then it sends nothing.
        """
        writes, pause_s = self._writes, None
        since_s: float | None
        if isinstance(writes, Stream):
            actions, since_s = writes.due(now, cached), writes.started_s
        elif connected and writes.gone:
            self._writes = self._streaming()
            return [GiveBack()]
        else:
            agreed = connected and not unread
            actions, since_s = [], writes.waits_since_s(connected=connected)
            if agreed:
                actions = writes.due(now, cached)
                # A pause ends with a token being drafted, for which both ends must be agreed.
                pause_s = writes.pause_s
        if actions:
            return actions
        alone_s = None if unread else self._offline.begins_s(since_s)
        if alone_s is not None and now >= alone_s:
            if (shown := self._show(writes)) is not None:
                return [shown]
            alone_s = None  # there is no more than that
        return [Wait(min((s for s in (pause_s, alone_s) if s is not None), default=None))]

    def _show(self, writes: Epochs | Stream) -> Show | Guess | None:
        """The provisional tokens that are shown next, if there are any."""
        ends = writes.ends if isinstance(writes, Epochs) else []
        room, busy = self._counts.room, writes.drafting
        return self._offline.next(ends, writes.begins, room, busy=busy)

    # What has happened.

    def drafted(self, now: float, proposed: Sequence[Proposed], waited_s: float = 0.0) -> bool:
        """What ``Draft`` asked for is there. False if it is void: its epoch has been closed.

        ``waited_s``: of the time since, the draft model was at work for others.
        """
        return self._epochs.drafted(now, proposed, waited_s)

    def reused(self, proposed: Sequence[Proposed]) -> None:
        """What ``Reuse`` asked for: tokens that are shown already follow those drafted."""
        self._epochs.append(proposed)

    def guessed(self, *, ends: bool) -> None:
        """What ``Guess`` asked for has been drafted and shown; ``ends``: it is an EOS."""
        self._offline.guessed(ends=ends)

    def followed(self, now: float, waited_s: float = 0.0) -> Switch | None:
        """What ``Follow`` asked for has been proposed. ``waited_s``: see ``drafted``.

        The switch that is due at once, if one is.
        """
        return self._stream.followed(now, waited_s)

    def foretold(self, chance: float, *, accepted: bool) -> None:
        """A proposal beside the stream has met the target's own token; ``accepted``: it is it."""
        self.controller.estimates.acceptance.foretold(chance, accepted)

    def told(self, share: float) -> None:
        """A token of the stream has come: what share of it a draft's own would have kept."""
        self.controller.estimates.acceptance.told(share)

    def commit(self, tokens: int, *, confirmed: int = 0, refuted: bool = False) -> None:
        """The history has grown by so many tokens, the first ``confirmed`` of them as shown.

        ``refuted``: the next of them differs from what was shown in its place.
        """
        self._counts.length += tokens
        self._offline.accept(confirmed, refuted=refuted)

    def verdict(self, now: float, verdict: Judged) -> bool:
        """A verdict has come. Whether it rejects a token.

        Then ``commit`` says what it adds to the history, and ``proceed`` that this is all.
        """
        self._offline.heard_s = now
        return self._epochs.verdict(now, verdict)

    def proceed(self, now: float, *, closes: bool, owes: bool = False) -> None:
        """All that a verdict adds to the history is there, and the text has not ended.

        ``closes``: the verdict closes the epoch. ``owes``: its last token was drawn by the device.
        """
        self._epochs.proceed(now, closes=closes, owes=owes)

    def streamed(self, now: float, tokens: int, *, ended: bool) -> Switch | None:
        """So many tokens of the stream have come, and ``commit`` has been told.

        ``ended``: they are the last of the text. The switch that is due at once, if one is.
        """
        self._offline.heard_s = now
        return self._stream.streamed(now, tokens, ended=ended)

    def switched(self, now: float) -> None:
        """The base station has stopped its stream, and the device drafts."""
        self._offline.heard_s = now
        self._writes = self._drafting(now)

    @property
    def _epochs(self) -> Epochs:
        assert isinstance(self._writes, Epochs), "the base station writes"
        return self._writes

    @property
    def _stream(self) -> Stream:
        assert isinstance(self._writes, Stream), "the device drafts"
        return self._writes
