"""Which histories are cached: a bounded pool of KV slots, and prefixes that are fed once for many.

A session keeps its history whatever becomes of its cache, so a slot can be emptied between two
rounds: the next round feeds the history again. No I/O; everything happens between steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from bs_runtime.generation import Round
from bs_runtime.kv import Slot

MOST = 256  # slots that are filled at a time
BLOCK = 512  # tokens that are compared at once
LEAST_SHARED = 16  # tokens; for fewer a copy is not worth the search


class Slots:
    """At most ``limit`` slots are filled; to fill another, the one that was used longest ago goes.

    Never one with a round under way: whoever finds no room waits until such a round has ended.

    A round that has much to feed copies what it can from another slot of the same tenant, and waits
    while another round of the step feeds what it could copy. Between tenants nothing is copied, as
    the time to the first token would tell one what another has said; a tenant "" is nobody, and
    shares with nobody. ``shared``: slots filled with prefixes that the operator has listed, for all
    to copy from; they do not count, and stay.
    """

    def __init__(self, limit: int = MOST, shared: Sequence[Slot] = ()) -> None:
        if limit < 1:
            raise ValueError(f"at least 1 slot is needed, not {limit}")
        self.limit = limit
        self.evicted = 0  # so far
        self._shared = shared
        self._filled: dict[Slot, str] = {}  # and their tenants; the one used longest ago first
        self._under_way: set[Slot] = set()
        self._step: list[Round] = []

    def __len__(self) -> int:
        return len(self._filled)

    @property
    def bytes(self) -> int:
        """Memory held by the slots that count."""
        return sum(slot.bytes for slot in self._filled)

    def next_step(self) -> None:
        """Nobody takes part yet."""
        self._step.clear()

    def admit(self, round: Round) -> bool:
        """Whether a round can take part in the step. It then has room, and a source to copy from.

        Other slots may be emptied.
        """
        if not self._find_source(round):
            return False
        slot = round.slot
        if slot not in self._filled and len(self._filled) >= self.limit:
            idle = next((one for one in self._filled if one not in self._under_way), None)
            if idle is None:
                return False
            del self._filled[idle]
            idle.close()
            self.evicted += 1
        self._filled.pop(slot, None)
        self._filled[slot] = round.tenant
        self._under_way.add(slot)
        self._step.append(round)
        return True

    def release(self, slot: Slot) -> None:
        """A slot's round has ended."""
        self._under_way.discard(slot)

    def forget(self, slot: Slot) -> None:
        """A slot is given back."""
        self._under_way.discard(slot)
        self._filled.pop(slot, None)

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
