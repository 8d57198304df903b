"""Which histories are cached: a bounded pool of KV slots, and prefixes that are fed once for many.

A session keeps its history whatever becomes of its cache, so a slot can be emptied between two
rounds: the next round feeds the history again. No I/O; everything happens between steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bs_runtime.engine.generation import Round
from bs_runtime.model.kv import Slot
from bs_runtime.operations import memory
from draftlink.planning.units import binary

BLOCK = 512  # tokens that are compared at once
LEAST_SHARED = 16  # tokens; for fewer a copy is not worth the search


class Slots:
    """The slots that are filled hold at most ``budget`` bytes; for more, the one that was used
    longest ago is emptied.

    Never one with a round under way: whoever finds no room waits until such a round has ended. A
    round is given all that it needs before its first step, for what a slot grows by and for the
    copy that it makes then, so the budget holds at every moment, and whoever has begun can end.

    A round that has much to feed copies what it can from another slot of the same tenant, and waits
    while another round of the step feeds what it could copy. Between tenants nothing is copied, as
    the time to the first token would tell one what another has said; a tenant "" is nobody, and
    shares with nobody. ``shared``: slots filled with prefixes that the operator has listed, for all
    to copy from; they do not count, and stay.
    """

    def __init__(self, budget: int | None = None, shared: Sequence[Slot] = ()) -> None:
        """``budget`` None: a share of the memory that is free here, for a model on the CPU."""
        self.budget = memory.for_caches(torch.device("cpu")) if budget is None else budget
        if self.budget < 1:
            raise ValueError(f"KV caches need at least 1 byte, not {budget}")
        self.evicted = 0  # so far
        self._shared = shared
        self._filled: dict[Slot, str] = {}  # and their tenants; the one used longest ago first
        self._held: dict[Slot, int] = {}  # bytes of each; of the step's, the most that they need
        self._total = 0
        self._under_way: set[Slot] = set()
        self._step: list[Round] = []
        self._short = False  # somebody found no room: who is behind takes none either

    def __len__(self) -> int:
        return len(self._filled)

    @property
    def bytes(self) -> int:
        """Memory held by the slots that count."""
        return sum(slot.bytes for slot in self._filled)

    def next_step(self) -> None:
        """Nobody takes part yet."""
        for round in self._step:  # those that have grown, have grown
            slot = round.slot
            if slot in self._under_way:
                self._hold(slot, slot.bytes_for(round.length, spare=round.spare))
        self._step.clear()
        self._short = False

    def unfit(self, round: Round) -> str | None:
        """Why a round's conversation can never be served, or None."""
        need = round.slot.bytes_for(round.longest)
        if need <= self.budget:
            return None
        return (
            f"a conversation of up to {round.longest} tokens needs {binary(need)} of KV cache, and"
            f" this base station has {binary(self.budget)} for all (--kv-bytes); shorten the prompt"
            " or ask for fewer tokens"
        )

    def admit(self, round: Round) -> bool:
        """Whether a round can take part in the step. It then has room, and a source to copy from.

        Other slots may be emptied.
        """
        if not self._find_source(round) or not self._make_room(round):
            return False
        slot = round.slot
        self._filled.pop(slot, None)
        self._filled[slot] = round.tenant
        self._under_way.add(slot)
        self._step.append(round)
        return True

    def _make_room(self, round: Round) -> bool:
        """Take what a round needs of the budget, if it has not been given it."""
        slot = round.slot
        if slot in self._under_way:
            return True
        now, bare = slot.bytes, slot.bytes_for(round.length)
        if bare <= now:
            return self._hold(slot, now)
        if self._short:
            return False
        others = self._total - self._held.get(slot, 0)
        roomy = slot.bytes_for(round.length, spare=True)
        round.spare = others + now + roomy <= self.budget
        if round.spare:
            return self._hold(slot, now + roomy)
        while others + now + bare > self.budget:
            idle = (one for one in self._filled if one not in self._under_way and one is not slot)
            if (oldest := next(idle, None)) is not None:
                others -= self._held[oldest]
                self._empty(oldest)
            elif now and others + bare <= self.budget:
                # There is no room for a copy: it is fed again.
                self._empty(slot)
                now, bare = 0, slot.bytes_for(round.length)
            else:
                self._short = True
                return False
        return self._hold(slot, now + bare)

    def _hold(self, slot: Slot, count: int) -> bool:
        """A slot holds so many bytes."""
        self._total += count - self._held.get(slot, 0)
        self._held[slot] = count
        return True

    def _drop(self, slot: Slot) -> None:
        self._filled.pop(slot, None)
        self._total -= self._held.pop(slot, 0)

    def _empty(self, slot: Slot) -> None:
        """Another needs the room."""
        self._drop(slot)
        slot.close()
        self.evicted += 1

    def release(self, slot: Slot) -> None:
        """A slot's round has ended."""
        self._under_way.discard(slot)
        if slot in self._filled:
            self._hold(slot, slot.bytes)

    def forget(self, slot: Slot) -> None:
        """A slot is given back."""
        self._under_way.discard(slot)
        self._drop(slot)

    def _find_source(self, round: Round) -> bool:
        """Note where to copy from; False if it is better to wait for what this step feeds."""
        here, ids = round.slot, round.prefix
        round.source = None
        if round.left < LEAST_SHARED:
            return True
        known = here.length
        sources = [*self._shared]
        if round.tenant:
            sources += [s for s, tenant in self._filled.items() if tenant == round.tenant]
        for source in sources:
            same = common(source.ids, ids) if source is not here else 0
            if same >= max(known, here.length + LEAST_SHARED):
                known, round.source = same, source
        for other in self._step:
            mine = round.tenant and other.tenant == round.tenant
            if mine and common(other.prefix, ids) >= known + LEAST_SHARED:
                return False
        if round.source in self._filled:  # in use, so to say
            self._filled[round.source] = self._filled.pop(round.source)
        return True


def common(a: Sequence[int], b: Sequence[int]) -> int:
    """The length of the longest common prefix. Either is read once, as far as they are the same."""
    longest = min(len(a), len(b))
    for begin in range(0, longest, BLOCK):
        end = min(begin + BLOCK, longest)
        if a[begin:end] != b[begin:end]:
            return next(i for i in range(begin, end) if a[i] != b[i])
    return longest
