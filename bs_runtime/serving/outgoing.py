"""What a base station sends to one device, while anybody hears it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from bs_runtime.serving.account import Account
from bs_runtime.serving.life import Life, Lifetime
from draftlink.protocol import frames
from draftlink.protocol.session import Session
from draftlink.protocol.states import TABLE, State

log = logging.getLogger("draftlink.bs")

SEND_S = 30.0  # a device that reads nothing for so long has gone


class Outgoing:
    """Frames of ``session``, counted by ``account``, as bytes for ``send``."""

    def __init__(
        self,
        session: Session,
        account: Account,
        lifetime: Lifetime,
        send: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._session = session
        self._account = account
        self._lifetime = lifetime
        self._send_bytes = send
        self._sending: asyncio.Timeout | None = None

    async def send(self, frame: frames.Frame) -> None:
        """Send a frame that the protocol allows here."""
        data = self._session.send(frame)
        await self.deliver(data)
        await self._account.sent(frame, len(data))

    def met(self, right: int, wrong: int) -> None:
        """The text has reached so many of the device's proposals: see ``Account.met``."""
        self._account.met(right, wrong)

    def looked_up(self, given: int, right: int) -> None:
        """A round was given so many tokens that were looked up: see ``Account.looked_up``."""
        self._account.looked_up(given, right)

    async def deliver(self, data: bytes) -> None:
        """Send, unless nobody reads it; a new connection gets what was not read."""
        if self._lifetime.life is Life.GONE:
            return
        try:
            async with asyncio.timeout(SEND_S) as self._sending:
                await self._send_bytes(data)
        except (ConnectionError, TimeoutError):
            self._lifetime.leave(Life.GONE)
        finally:
            self._sending = None

    def give_up(self) -> None:
        """Nobody will read what is being sent."""
        if self._sending is not None and not self._sending.expired():
            self._sending.reschedule(0.0)

    async def tell(self, fed: int, total: int, ahead: int = 0) -> None:
        """What is due is under way: so many tokens are fed, and so many rounds are before it."""
        if (self._session.state, frames.Progress) in TABLE:
            await self.send(frames.Progress(self._session.generation, fed, total, ahead))

    async def refuse(self, code: Any, reason: str, retry_after_s: int | None = None) -> None:
        """End the session with a reason."""
        log.warning("refused (%s): %s", code, reason)
        if self._session.state is not State.CLOSED:
            await self.send(frames.Refused(code, reason, retry_after_s))
