"""Which histories are cached: a bounded pool of KV slots, and prefixes that are fed once for many.

A session keeps its history whatever becomes of its cache, so a slot can be emptied between two
rounds: the next round feeds the history again. No I/O; a slot that is in flight is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bs_runtime.engine import prefixes
from bs_runtime.engine.generation import Round
from bs_runtime.engine.places import Place
from bs_runtime.engine.prefixes import Entry, Index, Prefix
from bs_runtime.model.kv import Slot
from bs_runtime.operations import memory
from draftlink.planning.units import binary

LEAST_SHARED = prefixes.BLOCK  # tokens; for fewer a copy is not worth the search
ROUND_TOKENS = 4  # a round costs as much as feeding so many, if it has fewer: a step's own cost
IDLE_ROUNDS = 4  # of each of the others, for which a slot is not used: its device is slow, or away


class Slots:
    """The slots that are filled hold at most ``budget`` bytes; for more, others are emptied.

    Never one with a round under way, nor one that a step in flight copies from: whoever finds no
    room waits until such a round has ended. A round is given all that it needs before its first
    step, for what a slot grows by and for the copy that it makes then, so the budget holds at every
    moment, and whoever has begun can end.

    Where there is less memory than the conversations need that are going on, emptying the slot
    that was used longest ago would empty just the one that is needed next, and each round would
    feed its history again. So conversations take turns: a slot that was filled stays until its
    rounds have been worth what filling it cost, or until it is idle, and whoever has none waits,
    first come, first served, and leaves room for what the others grow by. Only where the model has
    nothing else to do a slot is emptied before; then the one that was used last, as it is needed
    again last.

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
        self._places: dict[Slot, Place] = {}
        self._total = 0  # bytes that they hold
        self._uses = 0  # so far
        self._step: list[Round] = []  # those that take part, behind those of steps in flight
        self._earlier = 0  # how many are in flight
        self.dropped: list[Slot] = []  # emptied since the last step was launched
        self._closing: list[Slot] = []  # once they are not in flight any more
        self._shared = Index()
        for number, slot in enumerate(shared):
            self._shared.update(Entry(slot, number))
        self._indexes: dict[str, Index] = {}  # of each tenant that may copy: nobody finds another's
        self._rounds = 0  # that have ended
        # Who is behind somebody that found no room, or whose turn has not come, takes none either.
        self._short = False
        self.queued = 0  # tokens that the first has to feed whose turn has not come

    def __len__(self) -> int:
        return len(self._places)

    @property
    def bytes(self) -> int:
        """Memory held by the slots that count."""
        return sum(slot.bytes for slot in self._places)

    def next_step(self) -> None:
        """Nobody takes part yet."""
        for round in self._step:  # those that have grown, have grown
            slot = round.slot
            place = self._places.get(slot)
            if place is not None and place.under_way and not slot.in_flight:
                self._hold(place, slot.bytes_for(round.length, spare=round.spare))
                self._note(place)
        self._step = [round for round in self._step if round.slot.in_flight]
        self._earlier = len(self._step)
        self._short, self.queued = False, 0

    @property
    def busy(self) -> bool:
        """Whether anybody takes part."""
        return len(self._step) > self._earlier

    def take_dropped(self) -> list[Slot]:
        """Those that were emptied: the next step gives their memory back, first of all."""
        taken, self.dropped = self.dropped, []
        return taken

    def collected(self) -> None:
        """A step has come back: slots may be given back that were in it."""
        closing, self._closing = self._closing, []
        for slot in closing:
            self.forget(slot)

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

    def admit(self, round: Round, *, patient: bool = False) -> bool:
        """Whether a round can take part in the step. It then has room, and a source to copy from.

        Other slots may be emptied; where it is ``patient``, none whose turn is not over.
        """
        slot = round.slot
        if slot.in_flight or not self._find_source(round):
            return False
        known = self._places.get(slot)
        place = known or Place(Entry(slot), round.generation, round.tenant, 0)
        if not self._make_room(round, place, patient=patient):
            return False
        if slot not in self._places:
            place.cost, place.worth, place.last = round.new, 0, self._rounds
            self._places[slot] = place
        place.generation = round.generation
        place.round_tokens = max(ROUND_TOKENS, len(round.drafted) + 1)
        place.under_way = True
        self._use(place.entry)
        if place.tenant:
            self._index(place.tenant).cut(place.entry)
        self._step.append(round)
        return True

    def _make_room(self, round: Round, place: Place, *, patient: bool) -> bool:
        """Take what a round needs of the budget, if it has not been given it."""
        if place.under_way:
            return True
        slot = round.slot
        now, bare = slot.bytes, slot.bytes_for(round.length)
        if bare <= now:
            return self._hold(place, now)
        new = slot not in self._places
        if self._short or (patient and new and self.queued):
            return False
        others = self._total - place.bytes
        budget = self._budget(growth=patient and new)
        roomy = slot.bytes_for(round.length, spare=True)
        round.spare = others + now + roomy <= budget
        if round.spare:
            return self._hold(place, now + roomy)
        while others + now + bare > budget:
            victim = self._victim(place)
            if patient and (victim is None or not self._gives_way(victim)):
                self.queued = self.queued or (round.new if new else 0)
                return False
            if victim is not None:
                others -= victim.bytes
                self._empty(victim)
                budget = self._budget(growth=patient and new)
            elif now and others + bare <= budget:
                # There is no room for a copy: it is fed again.
                self._empty(place)
                now, bare = 0, slot.bytes_for(round.length)
            else:
                self._short = True
                return False
        return self._hold(place, now + bare)

    def _budget(self, *, growth: bool) -> int:
        """The bytes that all may hold; with ``growth`` less what one of them needs to grow."""
        growing = (place.bytes for place in self._places.values() if growth and place.grows)
        return self.budget - max(growing, default=0)

    def _victim(self, but: Place) -> Place | None:
        """The slot that is emptied next for another."""
        idle = [one for one in self._places.values() if one.idle and one is not but]
        if giving := [one for one in idle if self._gives_way(one)]:
            # Who has ended may not come back at all; else the one that was used longest ago.
            return min(giving, key=lambda one: (not one.generation.ended, one.entry.used))
        return max(idle, key=lambda one: one.entry.used, default=None)

    def _gives_way(self, place: Place) -> bool:
        """Whether a slot may be emptied though others can be served."""
        unused = self._rounds - place.last
        return place.generation.ended or place.turn_over or unused > IDLE_ROUNDS * len(self._places)

    def _hold(self, place: Place, count: int) -> bool:
        """A slot holds so many bytes."""
        self._total += count - place.bytes
        place.bytes = count
        return True

    def _use(self, entry: Entry) -> None:
        self._uses += 1
        entry.used = self._uses

    def _drop(self, place: Place) -> None:
        if self._places.pop(place.entry.slot, None) is None:
            return
        self._total -= place.bytes
        place.bytes = 0
        if place.tenant:
            index = self._index(place.tenant)
            index.remove(place.entry)
            if not index:
                del self._indexes[place.tenant]

    def _empty(self, place: Place) -> None:
        """Another needs the room."""
        self._drop(place)
        self._give_up(place.entry.slot)
        self.evicted += 1

    def _give_up(self, slot: Slot) -> None:
        slot.drop()
        self.dropped.append(slot)

    def release(self, slot: Slot) -> None:
        """A slot's round has ended."""
        if (place := self._places.get(slot)) is not None:
            place.under_way = False
            self._rounds += 1
            place.worth += place.round_tokens
            place.last = self._rounds
            self._hold(place, slot.bytes)
            self._note(place)

    def forget(self, slot: Slot) -> None:
        """A slot is given back, as soon as it is not in flight."""
        if slot.in_flight:
            self._closing.append(slot)
            return
        if (place := self._places.get(slot)) is not None:
            self._drop(place)
        self._give_up(slot)

    def _index(self, tenant: str) -> Index:
        return self._indexes.setdefault(tenant, Index())

    def _note(self, place: Place) -> None:
        """A slot may have been fed."""
        if place.tenant:
            self._index(place.tenant).update(place.entry)

    def _find_source(self, round: Round) -> bool:
        """Note where to copy from; False if it is better to wait for what is fed, or in flight."""
        round.copy = None
        if round.left < LEAST_SHARED:
            return True
        text, tenant = round.prefix, round.tenant
        known, least = round.slot.length, round.slot.length + LEAST_SHARED
        found = self._shared.find(text, least)
        if (index := self._indexes.get(tenant)) is not None:
            found = index.find(text, found[1] if found else least) or found
        if found is not None:
            known = found[1]
        for other in self._step:
            behind = other.tenant == tenant and other.slot.length < other.base - 1
            if tenant and behind and text.shares(other.prefix, known + LEAST_SHARED):
                return False
        if found is not None:
            entry, known = found
            if entry.slot.in_flight:
                return False
            round.copy = Prefix(entry.slot, known)
            if entry.slot in self._places:
                self._use(entry)  # so to say
        return True
