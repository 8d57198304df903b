"""What outlives a connection: the conversations, held for a while after their link is lost."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from bs_runtime.engine.generation import Generation
from bs_runtime.model.kv import Slot
from bs_runtime.serving.tickets import Sealer, Ticket
from bs_runtime.verify.job import Outcome
from draftlink.protocol.frames import Draft
from draftlink.protocol.session import Session

GRACE_S = 120.0  # how long a device may be away
MOST_PARKED = 4096  # conversations without a connection; their caches are bounded by the slots


class Owner(Protocol):
    """The connection that a conversation belongs to."""

    async def fence(self) -> None:
        """Give the conversation up, once what is under way has been dealt with."""


@dataclass
class Told:
    """What was said of each token, as frames have it; empty where it was not asked for.

    ``proposed``: 1 for one that was written because the device had proposed it, else 0.
    Kept where both ends write, to be said again over another connection: there frames are not kept.
    """

    proposed: bytearray = field(default_factory=bytearray)
    surprisals: bytearray = field(default_factory=bytearray)
    logprobs: list[bytes] = field(default_factory=list)

    def add(self, outcome: Outcome, proposed: int) -> None:
        """Tokens were written; so many of them, the first, because the device had proposed them."""
        others = outcome.accepted - proposed + (outcome.next is not None)
        self.proposed += b"\1" * proposed + b"\0" * others
        self.surprisals += outcome.eighths
        self.logprobs += outcome.told

    def step(self, behind: int, most: int) -> tuple[int, int]:
        """Of at most so many of the last ``behind`` tokens, how many one frame can tell of, and
        how many of those had been proposed: they come first in a frame."""
        proposed = bytes(self.proposed[-behind:]).rjust(behind, b"\0")[:most]
        accepted = len(proposed) - len(proposed.lstrip(b"\1"))
        again = proposed.find(1, accepted)
        return (len(proposed) if again < 0 else again), accepted

    def of(self, behind: int, count: int) -> tuple[bytes, bytes]:
        """Surprisals and log-probabilities of the first ``count`` of the last ``behind`` tokens."""
        said = self.logprobs[-behind:][:count]
        return bytes(self.surprisals[-behind:][:count]), b"".join(said)

    def clear(self) -> None:
        """Another generation begins."""
        self.proposed.clear()
        self.surprisals.clear()
        self.logprobs.clear()


@dataclass
class Conversation:
    """A device's history and cache.

    When it was parked, ``session`` was the protocol's view of it, and ``drafts`` were to be judged.
    ``told``: what was said of the tokens that its generation wrote, where both ends write.
    """

    ticket: Ticket
    slot: Slot
    history: list[int] = field(default_factory=list)
    generation: Generation | None = None
    session: Session | None = None
    drafts: list[Draft] = field(default_factory=list)
    told: Told = field(default_factory=Told)
    owner: Owner | None = None
    parked_s: float = 0.0


class Conversations:
    """All conversations of a base station. Time is an argument."""

    def __init__(
        self,
        open_slot: Callable[[], Slot],
        close_slot: Callable[[Slot], None],
        sealer: Sealer,
        *,
        grace_s: float = GRACE_S,
    ) -> None:
        self.grace_s = grace_s
        self._open_slot, self._close_slot = open_slot, close_slot
        self._sealer = sealer
        self._known: OrderedDict[bytes, Conversation] = OrderedDict()  # parked ones in their order

    def __len__(self) -> int:
        return len(self._known)

    async def enter(self, sealed: bytes, owner: Owner, tenant: str, now: float) -> Conversation:
        """The conversation that a ticket stands for, taken from whoever has it; else a new one.

        A ticket of this station that is no longer known gives a new conversation with the same key.
        One of another tenant, or of another station, is worth nothing.
        """
        self.expire(now)
        ticket = self._sealer.open(sealed) if sealed else None
        if ticket is None or ticket.tenant != tenant:
            ticket = Ticket.fresh(tenant)
        while (known := self._known.get(ticket.id)) and known.owner is not None:
            await known.owner.fence()
        if known is None:
            known = self._known[ticket.id] = Conversation(ticket, self._open_slot())
        known.owner = owner
        return known

    def sealed(self, conversation: Conversation) -> bytes:
        """A ticket for the device."""
        return self._sealer.seal(conversation.ticket)

    def park(self, conversation: Conversation, now: float) -> None:
        """The connection of a conversation is over; it is kept for a while."""
        conversation.owner, conversation.parked_s = None, now
        self._known.move_to_end(conversation.ticket.id)
        self.expire(now)

    def drop(self, conversation: Conversation) -> None:
        """Forget a conversation."""
        conversation.owner = None
        if self._known.pop(conversation.ticket.id, None) is not None:
            self._close_slot(conversation.slot)

    def expire(self, now: float) -> None:
        """Forget those that were away for too long, and the oldest where there are too many."""
        parked = [one for one in self._known.values() if one.owner is None]
        for number, one in enumerate(parked):
            late = now - one.parked_s >= self.grace_s
            if late or len(parked) - number > MOST_PARKED:
                self.drop(one)
