"""One connection's account: what it has done, what it may do, how its lines in the log are named.

The connection tells it of every frame; the account counts it, holds it against the limits, and
makes those wait who come too fast.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Any

from bs_runtime.operations import logs
from bs_runtime.operations.limits import Bucket, Refusal, Tenant
from bs_runtime.operations.stats import Stats
from bs_runtime.serving.auth import anyone
from draftlink.protocol import frames

log = logging.getLogger("draftlink.bs")


class Account:
    """A connection of ``tenant``; time is the event loop's."""

    def __init__(self, tenant: Tenant | None = None, stats: Stats | None = None) -> None:
        now = time.monotonic()
        self.tenant = tenant or anyone()
        self.heard_s = self.opened_s = now  # heard of either end
        self.greeted = False
        self._unasked = 0  # rows of the next Written's step, of tokens looked up that were wrong
        self.owes = False  # something of the base station is due: nobody is idle
        self.request_id = logs.new_id()
        self._connection_id = self.request_id
        self._stats = stats or Stats(now)
        self.device = self._stats.enter(self.tenant.name, now)
        self._frames = Bucket(self.tenant.limits.frames_per_s, now)

    async def message(self, size: int) -> None:
        """A message of ``size`` bytes came. Waits until its turn has come; raises Refusal."""
        now = self.heard_s = time.monotonic()
        wait = max(self._frames.take(1, now), self.tenant.bytes.take(size, now))
        if wait:
            await asyncio.sleep(wait)

    async def admit(self, frame: frames.Frame, tokens: int) -> None:
        """A frame asks for ``tokens`` to be fed. Waits until they may be; raises Refusal.

        Whoever is cancelled meanwhile has taken none.
        """
        if isinstance(frame, frames.Start):
            self._check(frame.base + len(frame.ids), frame.max_tokens)
        elif isinstance(frame, frames.Resume):
            self._check(frame.length, frame.start.max_tokens)
        if tokens:
            try:
                await self._charge(tokens)
            except asyncio.CancelledError:
                self.give_back(tokens)
                raise

    def give_back(self, tokens: int) -> None:
        """Tokens that a frame was charged for are not fed, or were read for less than foretold."""
        self.tenant.tokens.give(tokens)

    def received(self, frame: frames.Frame, size: int) -> None:
        """A frame was taken that came in ``size`` bytes."""
        self._stats.count(self.device, frame, size, time.monotonic())
        if isinstance(frame, frames.Hello):
            self.greeted = True
        elif isinstance(frame, frames.Start):
            self.request_id = f"{self._connection_id}-{frame.generation}"
            self._log(
                "generation begins",
                prompt_tokens=len(frame.ids),
                history_tokens=frame.base,
                max_tokens=frame.max_tokens,
                scheme=self.device.scheme,
                mode=frame.mode,
            )
        elif isinstance(frame, frames.Resume):
            self.request_id = f"{self._connection_id}-{frame.start.generation}"
            self._log("generation goes on", history_tokens=frame.length)

    async def sent(self, frame: frames.Frame, size: int) -> None:
        """A frame was sent. Waits for the tokens that it cost; raises Refusal."""
        self.heard_s = time.monotonic()
        running = self.device.running
        self._stats.count(self.device, frame, size, self.heard_s)
        if running and not self.device.running:
            counts = self.device.meter.counts
            self._log(
                "generation ends",
                connection_tokens=counts.tokens,
                connection_drafted=counts.drafted,
                connection_accepted=counts.accepted,
                connection_bytes_up=counts.bytes_up,
                connection_bytes_down=counts.bytes_down,
            )
        if isinstance(frame, frames.Tokens):
            await self._charge(len(frame.ids))
        elif isinstance(frame, frames.Written):
            # Which delays the next step, and never the reader. What was looked up and was wrong
            # the device has not asked for.
            await self._charge(max(0, frame.fed - self._unasked))

    def met(self, right: int, wrong: int) -> None:
        """The text has reached so many proposals that are right, and so many wrong ones."""
        self._stats.met(self.device, right, wrong)

    def looked_up(self, given: int, right: int) -> None:
        """The next frame's round was given so many tokens that this end had looked up."""
        self._unasked = given - right
        self._stats.looked_up(self.device, given, right)

    def close(self) -> None:
        """The connection is over."""
        self._stats.leave(self.device)

    def _check(self, history: int, max_tokens: int) -> None:
        limits = self.tenant.limits
        if history > limits.prompt_tokens:
            raise Refusal(
                "request",
                f"a prompt of {history} tokens, where {limits.prompt_tokens:.0f} are allowed;"
                " shorten it",
            )
        if max_tokens > limits.max_tokens:
            raise Refusal(
                "request", f"max_tokens of {max_tokens}, where {limits.max_tokens:.0f} are allowed"
            )

    async def _charge(self, tokens: int) -> None:
        if not math.isinf(self.tenant.limits.tokens_per_s):
            wait = self.tenant.tokens.take(tokens, time.monotonic())
            if wait:
                await asyncio.sleep(wait)

    def _log(self, event: str, **values: Any) -> None:
        log.info(event, extra={"values": {"tenant": self.tenant.name, **values}})
