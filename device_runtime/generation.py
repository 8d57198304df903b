"""One generation on the device: who writes next, and every way to stop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from device_runtime import reasons
from device_runtime.drafting.alone import Alone
from device_runtime.drafting.controller import Controller
from device_runtime.drafting.drafter import Drafter
from device_runtime.drafting.estimators import Estimates
from device_runtime.drafting.temperature import DraftTemperature
from device_runtime.request import Request
from device_runtime.result import Came, Result, Token
from device_runtime.text import Text
from device_runtime.writers.both import Both
from device_runtime.writers.branches import Branches
from device_runtime.writers.drafting import Drafting
from device_runtime.writers.host import Host
from device_runtime.writers.streaming import Streaming
from device_runtime.writers.writing import Writing
from draftlink.distribution import noise
from draftlink.planning.plan import FixedMode
from draftlink.protocol.history import common
from draftlink.protocol.states import State


class Generation:
    """An async iterator of tokens; ``result`` is there when it has ended.

    ``text`` and ``tokens`` hold what has come so far and stands, also after an error;
    ``provisional`` the tokens behind it that were returned and may be taken back. Those that are
    left when it ends do not stand.

    ``text`` is a function of prompt and tokens (see ``text.py``), and ends before the first stop
    string. While tokens come it is their pieces joined; what a later token may change, or what may
    begin a stop string, is held back. The token that ends a text brings what is left. Where none
    does, because the generation was cancelled, failed or was left, that is in ``text`` alone.
    """

    def __init__(
        self,
        device: Host,
        request: Request,
        estimates: Estimates,
        learned: DraftTemperature | None,
    ) -> None:
        self.text = ""
        self.tokens: list[int] = []
        self.provisional: list[int] = []
        self._result: Result | None = None
        self._device = device
        self._request = request
        self._start = start = request.start(0, 0)  # but for its number, and what is sent of the ids
        self._decoded = Text(device.detokenizer, request.prompt, request.stop)
        self._guesses: Text  # with the provisional tokens
        self._reason: str | None = None
        self._cancelled = False
        self._begun = self._over = False
        if request.seed is None:
            key = noise.fresh_key()
        else:
            role = "coupled" if request.scheme.shares_seed else "device"
            key = noise.key_from_seed(request.seed, role)
        drafter = Drafter(device.model, start, device.client.welcome.vocab_size, key, learned)
        fixed: dict[str, FixedMode] = {"stop-and-wait": "stop-and-wait", "run-ahead": "run-ahead"}
        controller = Controller(estimates, request.gamma, fixed.get(request.mode, "stream"))
        controller.foretells = drafter.foretells or start.streams_surprisals
        after_s = request.offline_after_s
        alone = None if after_s is None else Alone(after_s)
        self._writing = Writing(
            device, start, drafter, controller, learned, alone, request.draft_price,
            request.branches,
        )  # fmt: skip
        self._writers: list[str] = []  # modes, in the order in which they wrote
        self._writer: Both | Drafting | Streaming | None = None
        self._iterator = self._run()

    def __aiter__(self) -> AsyncIterator[Token]:
        return self._iterator

    @property
    def result(self) -> Result:
        """What the text took. Raises RuntimeError before its end."""
        if self._result is None:
            raise RuntimeError(
                "there is no result before the text has ended: iterate to its end first"
            )
        return self._result

    @property
    def estimates(self) -> Estimates:
        """What the device has found out about link, models and acceptance."""
        return self._writing.controller.estimates

    @property
    def returned(self) -> int:
        """Tokens of the device's history up to the last one that was returned."""
        return len(self._request.prompt) + len(self.tokens)

    @property
    def over(self) -> bool:
        """Whether it has ended; not where its iterator was left in the middle."""
        return self._over

    def cancel(self) -> None:
        """End after the tokens that have been returned; the iterator then stops."""
        self._cancelled = True

    async def leave(self) -> None:
        """Wait for what is under way, and end it: history and cache are what was returned."""
        await self._writing.close()
        # Once: an iterator that was left may be closed at any time, by the garbage collector, when
        # the history is another's.
        if self._begun and not self._over:
            device = self._device
            del device.history[self.returned :]
            device.held = list(device.history)
            self._writing.drafter.rollback(self.returned)
        self._over = True

    async def _run(self) -> AsyncIterator[Token]:
        device, writing = self._device, self._writing
        client = device.client
        client.begin_ledger()
        reconnects = client.reconnects
        try:
            async with device.beginning:
                await device.take_over(self)
                writing.tally.started_s = writing.now()
                await self._begin()
            while self._reason is None:
                batch = await self._more()
                for place, came in enumerate(batch):
                    if self._cancelled:
                        self._reason = "cancel"
                        writing.tally.behind([each.kind for each in batch[place:]])
                        break
                    if came.kind == "provisional":
                        yield self._guess(came.id)
                        continue
                    yield self._take(came)
                    if self._reason is not None:
                        writing.tally.behind([each.kind for each in batch[place + 1 :]])
                        break
                else:
                    if writing.agreed and client.session.state is State.READY:
                        self._reason = "length"
        finally:
            self.text += self._decoded.finish()
            await self.leave()
        keep = self.returned
        # Where the connection is not there, the next generation makes one; this one has ended.
        if not client.interrupted and (
            client.session.state is not State.READY or client.session.length > keep
        ):
            await client.finish(keep)
        writing.tally.taken_back += len(self.provisional)
        self.provisional.clear()
        client.close_ledger()
        writing.tally.alone = reasons.alone(self._request, writing)
        self._result = writing.tally.result(
            text=self.text,
            tokens=self.tokens,
            prompt_tokens=self._request.prompt_tokens,
            seed=self._request.seed,
            scheme=writing.drafter.scheme.name,
            mode=", then ".join(self._writers),
            stop_reason=self._reason or "length",
            draft_temperature=1.0 if writing.learned is None else writing.learned.value,
            ledger=client.ledger.entries(),
            reconnects=client.reconnects - reconnects,
        )
        device.rest()

    async def _begin(self) -> None:
        """Have both ends hold the prompt's beginning, and the base station begin behind it."""
        device, client = self._device, self._device.client
        prompt = list(self._request.prompt)
        kept = common(device.held, prompt)
        device.held = prompt[:kept]  # until both are known to hold more
        self._writing.drafter.rollback(kept)
        # A generation whose iterator was abandoned, or that ended where no connection was.
        if client.interrupted or client.session.state is not State.READY:
            await client.finish(kept)
        # The base station may hold less: it has not been sent a last token that the device
        # corrected itself (``split``), and has nothing over a new connection. The row behind the
        # prompt has to be made in any case.
        base = min(kept, client.held, len(prompt) - 1)
        device.history[:] = prompt
        tally = self._writing.tally
        tally.cached, tally.target_cached = min(device.model.length, len(prompt) - 1), base
        auto = self._request.mode == "auto"
        drafts = auto and self._writing.controller.begin(near=self._writing.near) != "stream"
        start = self._request.start(client.session.generation + 1, base, drafts=drafts)
        self._writing.start = start
        self._writing.open_window(auto=auto)
        if self._writing.both and self._writing.paths.turns and not self._writing.paths.follows:
            start = msgspec.structs.replace(start, turns=True)
        self._start = self._writing.start = start
        await self._writing.send(start)
        self._begun = True

    async def _more(self) -> list[Came]:
        """The next tokens, from whoever's turn it is; they may be none."""
        writing = self._writing
        wanted: type[Both | Drafting | Streaming]
        if writing.both:
            wanted = Branches if writing.branches > 1 else Both
        else:
            wanted = Streaming if writing.window.streams else Drafting
        if not isinstance(self._writer, wanted):
            self._writer = wanted(writing)
        if writing.mode not in self._writers:
            self._writers.append(writing.mode)
        return await self._writer.more()

    def _take(self, came: Came) -> Token:
        """A token has come: count it, decode it, see whether the text ends here."""
        token, kind, told = came
        self.tokens.append(token)
        tally, takes_back = self._writing.tally, 0
        tally.token(self._writing.now(), kind, told)
        confirms = self.provisional[:1] == [token]
        if confirms:
            del self.provisional[0]
        elif self.provisional:
            takes_back = len(self.provisional)
            tally.taken_back += takes_back
            self.provisional.clear()
        piece = ""
        if token in self._start.eos_ids:
            self._reason = "eos"  # which has no text
        else:
            piece = self._decoded.push(token)
            if len(self.tokens) == self._start.max_tokens:
                self._reason = "length"
        if self._reason is not None:
            piece += self._decoded.finish()
        if self._decoded.stopped:
            self._reason = "stop"
        self.text += piece
        said = () if told is None else told
        return Token(token, piece, kind, confirms, takes_back, *said)

    def _guess(self, token: int) -> Token:
        """A provisional token, behind the others."""
        if not self.provisional:
            self._guesses = self._decoded.fork()
        self.provisional.append(token)
        self._writing.tally.provisional += 1
        eos = token in self._start.eos_ids
        piece = self._guesses.finish() if eos else self._guesses.push(token)
        return Token(token, piece, "provisional")
