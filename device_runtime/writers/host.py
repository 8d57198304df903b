"""A conversation and a generation, as they see one another."""

from __future__ import annotations

import asyncio
from typing import Protocol

from device_runtime.drafting.drafter import Model
from device_runtime.text import Detokenizer
from device_runtime.transport.client import Client
from device_runtime.worker import Worker


class Host(Protocol):
    """A conversation, as one of its generations sees it. ``draft_context``: tokens, as history's.

    ``held``: the ids of which draft model and base station hold the beginning, between generations.
    """

    model: Model
    held: list[int]
    generation: Writer | None
    beginning: asyncio.Lock  # held by a generation while it begins

    @property
    def history(self) -> list[int]:
        """The tokens that stand; between generations, all turns so far."""

    @property
    def detokenizer(self) -> Detokenizer:
        """The way from ids to text."""

    @property
    def draft_context(self) -> int:
        """Tokens that the draft model can hold."""

    @property
    def worker(self) -> Worker:
        """What drafts, for other conversations too."""

    @property
    def client(self) -> Client:
        """The open connection. Raises LinkError where there is none."""

    async def take_over(self, generation: Writer) -> None:
        """A generation begins; nothing is left under way of the one before."""

    def rest(self) -> None:
        """A generation has ended, and another has not begun."""


class Writer(Protocol):
    """A generation, as its device sees it."""

    @property
    def returned(self) -> int:
        """Tokens of the history up to the last one that it has returned."""

    @property
    def over(self) -> bool:
        """Whether it has ended, and the history is what stands."""

    async def leave(self) -> None:
        """Wait for what is under way, and end it."""
