"""Both ends write: the base station's side of it, one step after the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from bs_runtime.engine.generation import Generation, Round
from bs_runtime.engine.late import Late, Leaf
from bs_runtime.engine.leaves import Leaves
from bs_runtime.engine.lookup import Proposer
from bs_runtime.engine.paths import Paths
from bs_runtime.engine.patience import LONGEST, Patience
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.serving.conversations import Told
from bs_runtime.serving.outgoing import Outgoing
from bs_runtime.verify.job import Outcome
from draftlink import schemes
from draftlink.protocol import frames
from draftlink.protocol.frames import Propose
from draftlink.protocol.session import RemoteProtocolError, Session
from draftlink.protocol.states import State

DECODES = 128  # proposed tokens between two steps: eight times those that one may take


@dataclass(frozen=True)
class _Wait:
    """A wait for more than the ``held`` proposed tokens."""

    held: int
    began_s: float


class Both:
    """One generation that a device writes too. ``run`` runs a round to its end.

    ``told``: what was said of what it has written; kept with the conversation.
    """

    def __init__(
        self,
        generation: Generation,
        session: Session,
        out: Outgoing,
        scheduler: Scheduler,
        run: Callable[[Round], Awaitable[Outcome | None]],
        told: Told,
        proposer: Proposer,
    ) -> None:
        self._generation = generation
        self._session = session
        self._out = out
        self._scheduler = scheduler
        self._run = run
        self._told = told
        self._proposer = proposer
        self._held = 0  # of the step's block, those that the device has proposed
        start = generation.start
        scheme = schemes.in_effect(start.scheme, greedy=start.sampling.greedy)
        self._paths = Paths(
            scheme, session.vocab_size, generation.history,
            branches=_speaks(session, frames.BRANCHES),
        )  # fmt: skip
        self._patience = Patience(scheduler.prices, turns=start.turns is True)
        self._worth = Leaves(scheduler.prices)
        self._proposals: list[Propose] = []
        self._decoded = 0  # proposed tokens, since the last step
        self._since_s: float | None = None  # when the next step could have begun
        self._wait: _Wait | None = None
        self._under_way = False  # a round is
        self._reading: asyncio.Task[None] | None = None  # what has come meanwhile

    def take(self, frame: Propose) -> None:
        """A proposal has come."""
        if self._paths.leads(frame) and self._paths.useful(frame):  # what branches off is no pace
            self._patience.proposed(
                _now(),
                frame.length,
                frame.known,
                goes_on=frame.goes_on,
                begins=frame.first == 0,
                waits=self._wait is not None,
            )
        if self._paths.counts(frame):
            self._proposals = [one for one in self._proposals if one.path == frame.path]
            self._proposals.append(frame)
            if self._under_way and (self._reading is None or self._reading.done()):
                self._reading = asyncio.create_task(self._read())

    async def tell(self, begin: int) -> None:
        """What was written behind the first ``begin`` tokens, over a new connection."""
        generation, end = self._generation, len(self._generation.history)
        while begin < end:
            count, accepted = self._told.step(end - begin, frames.MAX_TOKENS)
            ids = tuple(generation.history[begin : begin + count])
            bits, logprobs = self._told.of(end - begin, count)
            ended = generation.ended and begin + count == end
            await self._out.send(
                frames.Written(begin, ids, accepted, ended, 0, 0, bits, rows=0, logprobs=logprobs)
            )
            begin += count

    async def step(self) -> float:
        """Write what comes next, and 0; or the seconds to wait, unless a proposal comes before."""
        await self._decode()
        if self._session.state is not State.WRITING:
            return 0.0
        now, generation = _now(), self._generation
        if generation.kept_row() is not None:  # behind the prompt: a token that needs no step
            await self._write(generation.next())
            return 0.0
        if self._since_s is None:
            self._since_s = now
        held = self._paths.following(LONGEST)
        wait = self._wait
        if wait is not None and len(held) > wait.held:
            self._patience.waited(now - wait.began_s, came=True)
            wait = None
        self._looked_up(held[: self._patience.worth(len(held))])
        least = self._proposer.rate
        behind, left_at = self._paths.behind, self._paths.left_at
        if left_at is not None:
            self._patience.left(left_at)
        wait_s = self._patience.wait_s(
            now, self._since_s, len(held), generation.left, least, behind
        )
        if wait_s > 0.0:
            self._wait = wait or _Wait(len(held), now)
            self._scheduler.sits_out(generation.slot)
            return wait_s
        if wait is not None:
            self._patience.waited(now - wait.began_s, came=False)
        self._wait = None
        await self._write(Late(generation, self._block, self._leaves))
        return 0.0

    def _block(self) -> list[int]:
        """The proposed tokens that a step is given which begins now: the device's come first."""
        held = self._paths.following(LONGEST)
        held = held[: self._patience.worth(len(held))]
        self._held = len(held)
        return [*held, *self._looked_up(held)]

    def _looked_up(self, held: Sequence[int]) -> Sequence[int]:
        """What this end has found to stand behind those held."""
        return self._proposer.proposed(self._generation.history, held, self._patience.alpha)

    def _leaves(self, count: int) -> Sequence[Leaf]:
        """The candidates that are worth their rows, beside the device's of a block of so many."""
        if not _speaks(self._session, frames.LEAVES):  # the target may take no block that branches
            return ()
        beside = self._paths.beside(min(count, self._held))
        return self._worth.worth(beside, self._patience.alpha, count)

    async def _read(self) -> None:
        """Decode what comes while a round is under way: it may still be in its block."""
        with contextlib.suppress(RemoteProtocolError):  # ``step`` meets it again, and raises it
            await self._decode()

    async def _decode(self) -> None:
        """What is proposed, as far as it may be of use; not much more than ``DECODES``.

        A device begins a path where the text has left the last one, so it needs no more. One that
        begins others has them decoded at the pace of its steps, which its token rate bounds.
        """
        while self._proposals and self._decoded < DECODES:
            frame = self._proposals[0]
            self._decoded += self._paths.costs(frame)
            try:
                await self._scheduler.turns.run(
                    self._paths.adding(frame), self._writes, self._generation.slot, frame.nodes
                )
            except ValueError as error:
                raise RemoteProtocolError(str(error)) from None
            if self._proposals and self._proposals[0] is frame:
                del self._proposals[0]

    def _writes(self) -> bool:
        return self._session.state is State.WRITING

    async def _write(self, round: Round) -> None:
        generation, patience = self._generation, self._patience
        base = len(generation.history)
        free = generation.kept_row() is not None
        self._under_way, self._held = True, 0
        try:
            outcome = await self._run(round)
        finally:
            self._under_way = False
            if self._reading is not None and not self._reading.done():
                await self._reading
        self._since_s, self._decoded = None, 0
        assert outcome is not None
        drafted = min(self._held, len(round.drafted))
        accepted = min(outcome.accepted, drafted)
        self._told.add(outcome, accepted)
        if self._session.state is not State.WRITING:
            return
        ids = tuple(generation.history[base:])
        step_us = 0 if free else outcome.verify_us
        if not free:
            patience.stepped(step_us * 1e-6, round.size + 1)
        paths = self._paths
        self._worth.judged(*paths.met_beside())
        right, wrong = paths.met()
        patience.judged(right, wrong)
        self._out.met(right, wrong)
        self._out.looked_up(len(round.drafted) - drafted, outcome.accepted - accepted)
        rows = round.size + 1
        patience.told(_now(), len(generation.history))
        await self._out.send(
            frames.Written(
                base,
                ids,
                accepted,
                outcome.ended,
                outcome.queue_us,
                step_us,
                outcome.eighths,
                None if rows == len(ids) else rows,
                b"".join(outcome.told),
            )
        )


def _speaks(session: Session, feature: str) -> bool:
    return session.welcome is not None and feature in session.welcome.features


def _now() -> float:
    return asyncio.get_running_loop().time()
