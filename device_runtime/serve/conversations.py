"""A device's conversations, lent to one request after another by what they have in their caches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from device_runtime.conversation import Conversation
from device_runtime.device import Device
from device_runtime.serve.errors import ApiError
from draftlink.protocol.history import common

MOST_WAITING = 64  # requests behind those that are written


class Conversations:
    """At most ``most`` conversations, made when they are needed; each is one request's at a time.

    A request gets the idle one with the longest common prefix, so that the next turn of a chat, or
    the same system prompt, is in both KV caches.
    """

    def __init__(self, device: Device, most: int) -> None:
        self._device = device
        self._idle: list[Conversation] = []  # that was used last at the end
        self._made = 0
        self._most = most
        self._free = asyncio.Semaphore(most)
        self.waiting = 0

    async def take(self, ids: Sequence[int]) -> Conversation:
        """An open conversation for a prompt of ``ids``. Raises ApiError, LinkError."""
        if self.waiting >= MOST_WAITING:
            raise ApiError(
                429,
                f"{self.waiting} requests wait already; try again",
                code="overloaded",
                retry_after_s=5,
            )
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        try:
            return await self._chosen(ids)
        except BaseException:
            self._free.release()
            raise

    async def _chosen(self, ids: Sequence[int]) -> Conversation:
        kept = [common(conversation.history, ids) for conversation in self._idle]
        best = max(range(len(kept)), key=kept.__getitem__, default=None)
        # Another chat's is not cut short for a few words in common while there may be one more.
        if best is None or (
            2 * kept[best] < len(self._idle[best].history) and self._made < self._most
        ):
            self._made += 1
            try:
                return await self._device.conversation().open()
            except BaseException:
                self._made -= 1
                raise
        return self._idle.pop(best)

    def give(self, conversation: Conversation) -> None:
        """A request needs its conversation no more."""
        self._idle.append(conversation)
        self._free.release()

    async def drop(self, conversation: Conversation) -> None:
        """Likewise, where its connection is lost for good: the next is made anew."""
        try:
            with contextlib.suppress(Exception):  # it is lost, whatever else fails
                await conversation.close()
        finally:
            self._made -= 1
            self._free.release()
