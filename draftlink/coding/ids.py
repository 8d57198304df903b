"""Token ids to a range coder and back, by what the session has said so far.

Both ends hold the same history, so both can hold the same model of it: prediction by partial
matching (J. Cleary and I. Witten, 1984). An id is looked for among those that followed the last two
tokens before, then the last token, then among all ids of the history; where it is in none, the
static prior codes it. Each step down is an escape, whose frequency grows with the number of
different ids that the step has seen. Shares are absolutely discounted counts, and a shorter context
learns an id only when the longer ones did not know it: the interpolation of Kneser and Ney (1995),
in integers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.coding.seen import Seen
from draftlink.coding.slices import Slices
from draftlink.distribution.prior import prior

# Sixteenths of a count, tuned on text of the embedded pair; the optimum is flat.
_ONE = 16
_DISCOUNT = (6, 10, 8)  # off each id's count, by the length of the context
_ESCAPE = (60 * _ONE, 4, 0)  # added to the escape's frequency
_FOLLOWERS = 32  # a context learns at most as many ids, so that its cost is bounded
SLICE = 512  # tokens that are appended, or cut off, in one go,
READ_SLICE = 16  # and that are decoded
MAX_HISTORY = 1 << 20  # tokens; keeps totals in the range coder's limit

Counts = dict[int, int]
Contexts = tuple[tuple[int, ...], ...]


class IdModel:
    """The history of a session, and what it says of the next id.

    The model is a function of the history alone, however it came about: rolling back leaves no
    trace. ``extend`` and ``rollback`` cost O(log history) per token, an id under 2**7 steps.
    """

    def __init__(self, vocab_size: int) -> None:
        self._prior = prior(vocab_size)
        self._history: list[int] = []
        self._learned: list[int] = []  # per token: the shortest context that learned it
        self._followers: dict[tuple[int, ...], Counts] = {}
        self._seen = Seen(_ONE, _DISCOUNT[0])

    @property
    def vocab_size(self) -> int:
        """Ids are below it."""
        return self._prior.vocab_size

    @property
    def length(self) -> int:
        """Tokens in the history."""
        return len(self._history)

    def extend(self, ids: Sequence[int]) -> None:
        """Append tokens to the history. Raises ValueError for an id out of range, or too many."""
        for token in ids:
            self._check(token)
            self._append(token, self._contexts())

    def extending(self, ids: Sequence[int]) -> Slices[None]:
        """``extend`` in slices; what has been appended by then stays."""
        for begin in range(0, len(ids), SLICE):
            self.extend(ids[begin : begin + SLICE])
            yield

    def rollback(self, length: int) -> None:
        """Cut the history back to ``length`` tokens. Raises ValueError for more than there are."""
        if not 0 <= length <= len(self._history):
            raise ValueError(f"cannot roll {len(self._history)} tokens back to {length}")
        while len(self._history) > length:
            self._pop()

    def shrinking(self, length: int) -> Slices[None]:
        """``rollback`` in slices; what has been cut off by then is gone."""
        while len(self._history) - length > SLICE:
            self.rollback(len(self._history) - SLICE)
            yield
        self.rollback(length)

    def encode(
        self, out: RangeEncoder, ids: Sequence[int], beside: Sequence[Sequence[int]] = ()
    ) -> None:
        """Append ``ids``, the next tokens, each in the context of those before it.

        ``beside``: of each token, if it is given, those that may stand in its place; they follow
        it, and it goes on from the token alone. The history stays as it is. Raises ValueError as
        ``extend`` does, and for tokens in one place that are the same.
        """
        length = len(self._history)
        try:
            for place, token in enumerate(ids):
                contexts = self._contexts()
                here: list[int] = []
                for each in (token, *(beside[place] if beside else ())):
                    self._check(each, here)  # before it is written: others have no frequency
                    self._write(out, each, contexts, here)
                    here.append(each)
                self._append(token, contexts)
        finally:
            self.rollback(length)

    def decoding(self, source: RangeDecoder, count: int) -> Slices[list[int]]:
        """The next ``count`` ids, in slices. The history is as it was, however far that comes.

        Raises ValueError for bytes that ``encode`` never writes.
        """
        found = yield from self.reading(source, [0] * count)
        return [token for token, *_ in found]

    def reading(self, source: RangeDecoder, beside: Sequence[int]) -> Slices[list[list[int]]]:
        """The next ids, each with so many that may stand in its place behind it: ``decoding``."""
        length, done = len(self._history), 0
        found: list[list[int]] = []
        try:
            for others in beside:
                contexts = self._contexts()
                here: list[int] = []
                for _ in range(1 + others):
                    token = self._read(source, contexts, here)
                    self._check(token, here)
                    here.append(token)
                    done += 1
                    if not done % READ_SLICE:
                        yield
                self._append(here[0], contexts)
                found.append(here)
            return found
        finally:
            self.rollback(length)

    def _check(self, token: int, here: Sequence[int] = ()) -> None:
        """Whether a token can come next, beside those ``here``. Raises ValueError."""
        if token in here:
            raise ValueError(f"id {token} stands twice in one place")
        if not 0 <= token < self._prior.vocab_size:
            raise ValueError(f"id {token}, where the vocabulary is {self._prior.vocab_size}")
        if len(self._history) >= MAX_HISTORY:
            raise ValueError(f"a history of more than {MAX_HISTORY} tokens")

    def _contexts(self) -> Contexts:
        """The last two tokens and the last one, as far as the history goes."""
        history = self._history
        if len(history) < 2:
            return ((history[-1],),) if history else ()
        last = history[-1]
        return (history[-2], last), (last,)

    def _write(
        self, out: RangeEncoder, token: int, contexts: Contexts, here: Sequence[int]
    ) -> None:
        tried: Counts = dict.fromkeys(here, 0)  # what stands in this place it is not
        for context in contexts:
            followers = self._followers.get(context)
            if not followers:
                continue
            ids, edges = _law(followers, len(context), tried)
            if not ids:
                continue
            if token in followers:
                i = ids.index(token)
                out.push(edges[i], edges[i + 1] - edges[i], edges[-1])
                return
            out.push(edges[-2], edges[-1] - edges[-2], edges[-1])
            tried.update(followers)
        shares = self._tried_shares(tried)
        known, total = self._totals(shares)
        seen = self._seen
        if token in seen.frequency:
            slot = seen.slot_of[token]
            below = seen.below(slot) - sum(f for other, f in shares if other < slot)
            out.push(below, seen.frequency[token], total)
            return
        out.push(known, total - known, total)
        out.push(*self._prior.share(token), self._prior.total)

    def _read(self, source: RangeDecoder, contexts: Contexts, here: Sequence[int]) -> int:
        tried: Counts = dict.fromkeys(here, 0)
        for context in contexts:
            followers = self._followers.get(context)
            if not followers:
                continue
            ids, edges = _law(followers, len(context), tried)
            if not ids:
                continue
            i = bisect_right(edges, source.peek(edges[-1])) - 1
            source.take(edges[i], edges[i + 1] - edges[i])
            if i < len(ids):
                return ids[i]
            tried.update(followers)
        shares = self._tried_shares(tried)
        known, total = self._totals(shares)
        value = source.peek(total)
        if value < known:
            removed = 0
            for slot, frequency in shares:
                if self._seen.below(slot) - removed > value:
                    break
                removed += frequency
            slot, below = self._seen.find(value + removed)
            token = self._seen.ids[slot]
            source.take(below - removed, self._seen.frequency[token])
            return token
        source.take(known, total - known)
        token, below, weight = self._prior.owner(source.peek(self._prior.total))
        if token in self._seen.frequency:
            raise ValueError("an id of the history is coded as if it were new")
        source.take(below, weight)
        return token

    def _tried_shares(self, tried: Counts) -> list[tuple[int, int]]:
        """Slots and frequencies, ascending, of ids that are ruled out.

        What a context has learned, the history's own counts have too; of what stands in the same
        place that need not be so.
        """
        frequency, slot_of = self._seen.frequency, self._seen.slot_of
        return sorted([(slot_of[i], frequency[i]) for i in tried if i in slot_of])

    def _totals(self, shares: list[tuple[int, int]]) -> tuple[int, int]:
        """The frequencies of all untried ids of the history, and the same with the escape's."""
        known = self._seen.total - sum([frequency for _, frequency in shares])
        return known, known + _ESCAPE[0] + _DISCOUNT[0] * (len(self._seen.ids) - len(shares))

    def _append(self, token: int, contexts: Contexts) -> None:
        """The next token; ``contexts`` are those of the history before it."""
        learned = 0
        for context in contexts:
            followers = self._followers.get(context)
            if followers is None:
                self._followers[context] = {token: 1}
            elif token in followers:
                followers[token] += 1
                learned = len(context)
                break
            elif len(followers) < _FOLLOWERS:
                followers[token] = 1
        if not learned:
            self._seen.add(token)
        self._history.append(token)
        self._learned.append(learned)

    def _pop(self) -> None:
        """Undo the last ``_append``: what it added last is taken off first."""
        token, learned = self._history.pop(), self._learned.pop()
        if not learned:
            self._seen.remove(token)
        for context in self._contexts():
            if len(context) < learned:
                break
            followers = self._followers[context]
            if token in followers:
                followers[token] -= 1
                if not followers[token]:
                    del followers[token]
            if not followers:
                del self._followers[context]


def _law(followers: Counts, context: int, tried: Counts) -> tuple[list[int], list[int]]:
    """Untried ids that followed a context of so many tokens, and the edges of their frequencies.

    The last frequency is the escape's.
    """
    ids = [i for i in followers if i not in tried] if tried else list(followers)
    discount = _DISCOUNT[context]
    frequencies = [_ONE * followers[i] - discount for i in ids]
    frequencies.append(_ESCAPE[context] + discount * len(ids))
    return ids, [0, *accumulate(frequencies)]
