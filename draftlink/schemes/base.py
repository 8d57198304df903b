"""What every scheme offers; each is whole in its own file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from draftlink.coding.ids import IdModel
from draftlink.coding.lattice import MAX_TOTAL
from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.coding.slices import Slices, whole
from draftlink.distribution import noise
from draftlink.distribution.noise import Purpose
from draftlink.distribution.sparse import Drafted, SparseRow

MAX_DRAFT = 64  # drafted tokens in one frame: what a peer can make this end feed
MAX_IN_FLIGHT = 256  # and without a verdict
ID_BITS = 64  # of an id that nothing foretold, at most

# What decoding costs is counted in entries of a lattice row, which are decoded one at a time: 3 µs
# each on a laptop, 10 µs where somebody chooses the bytes. These cost as much or less.
ID_ENTRIES = 32  # for an id that is coded against the history
FIXED_ENTRIES = 512  # of fixed width, which numpy decodes together, for one
TOKEN_ENTRIES = 32  # as long as a token of the target may take, at 4,000 of them a second

Rule = Literal["sample", "coupled", "greedy"]
Candidates = tuple[list[int], list[float]]


class Scheme(msgspec.Struct, frozen=True):
    """A scheme's parameters, fixed for a generation before anything is drawn.

    ``rule`` is how the base station judges. ``shares_seed``: both ends draw from one seed.
    ``codes_ids``: payloads are coded against the history. ``corrects``: who writes the token after
    a rejection.
    """

    rule: ClassVar[Rule] = "sample"
    shares_seed: ClassVar[bool] = False
    codes_ids: ClassVar[bool] = False
    corrects: ClassVar[Literal["bs", "device"]] = "bs"

    @property
    def recovers(self) -> int:
        """The most pairs that a device which corrects is sent before it is sent a whole row."""
        return 0

    @property
    def name(self) -> str:
        """The scheme and its coding, as results report it."""
        raise NotImplementedError

    def check(self, vocab_size: int) -> None:
        """Raise ValueError, with a line that says what to change, for impossible parameters."""

    def most_bits(self, vocab_size: int) -> int:
        """No drafted token's payload is longer."""
        raise NotImplementedError

    def entries(self, vocab_size: int) -> int:
        """The most entries that a drafted token's payload makes its reader decode, at least 1.

        Known before any payload, and weighed: see ``ID_ENTRIES``. Of parameters that are possible.
        """
        raise NotImplementedError

    def longest(self, vocab_size: int, message_bytes: int, frame_entries: int) -> int:
        """Drafted tokens that surely fit a message, at most MAX_DRAFT. May be 0.

        ``frame_entries``: what the base station takes in one.
        """
        head = 64  # the frame's own
        fit = 8 * (message_bytes - head) // self.most_bits(vocab_size)
        return min(MAX_DRAFT, fit, frame_entries // self.entries(vocab_size))

    def deepest(self, vocab_size: int, flight_entries: int) -> int:
        """Drafted tokens that may be without a verdict, where so many entries may be."""
        return min(MAX_IN_FLIGHT, flight_entries // self.entries(vocab_size))

    def work(self, vocab_size: int, length: int) -> int:
        """What ``length`` drafted tokens cost their base station, in tokens of the target."""
        return length * max(1, self.entries(vocab_size) // TOKEN_ENTRIES)

    def unspent(self, vocab_size: int, drafted: Sequence[Drafted]) -> int:
        """What of their ``work`` these tokens turned out not to cost, once they were read."""
        return 0

    def propose(
        self, q: NDArray[np.floating], key: bytes, position: int, weight: float = 1.0
    ) -> Drafted:
        """The token drafted at ``position``, where the draft's distribution is q (V,) / ``weight``.

        ``weight`` is the sum of q; under the greedy rule q are scores.
        """
        raise NotImplementedError

    def encode(self, drafted: Sequence[Drafted], ids: IdModel) -> tuple[bytes, int]:
        """Drafted tokens to a payload: its bytes, and its length in bits before padding.

        ``ids`` models the history before the first of them, as it does at the base station.
        """
        raise NotImplementedError

    def decode(self, payload: bytes, length: int, ids: IdModel) -> list[Drafted]:
        """The payload of ``length`` drafted tokens. Raises ValueError for any other bytes."""
        return whole(self.decoding(payload, length, ids))

    def decoding(self, payload: bytes, length: int, ids: IdModel) -> Slices[list[Drafted]]:
        """``decode`` in slices. ``ids`` is as it was, however far it comes."""
        raise NotImplementedError


class IdScheme(Scheme, frozen=True):
    """A scheme whose drafted tokens are ids and nothing else."""

    codes_ids: ClassVar[bool] = True

    def most_bits(self, vocab_size: int) -> int:
        """An id that nothing foretold."""
        return ID_BITS

    def entries(self, vocab_size: int) -> int:
        """One id."""
        return ID_ENTRIES

    def encode(self, drafted: Sequence[Drafted], ids: IdModel) -> tuple[bytes, int]:
        """Ids."""
        out = RangeEncoder()
        ids.encode(out, [d.token for d in drafted], [d.beside for d in drafted])
        return out.finish()

    def decoding(
        self, payload: bytes, length: int, ids: IdModel, beside: Sequence[int] = ()
    ) -> Slices[list[Drafted]]:
        """Ids back; ``beside``: how many candidates each has beside it, if any has one.

        Raises ValueError for any other bytes.
        """
        source = RangeDecoder(payload)
        found = yield from ids.reading(source, beside or [0] * length)
        source.finish()
        return [Drafted(token, beside=tuple(others)) for token, *others in found]

    def candidates(
        self, q: NDArray[np.floating], key: bytes, positions: Sequence[int], count: int
    ) -> list[Candidates]:
        """By each row of q (N, V) the ``count`` tokens to propose at its position, or fewer.

        The drafted one is the first. Beside each is how much later it arrives than that: the
        quotient of the two times of arrival in the race of the noise, or what stands for it. Raises
        what ``propose`` raises.
        """
        raise NotImplementedError


def check_row(k: int, total: int, vocab_size: int) -> None:
    """Raise ValueError unless a row can have up to ``k`` entries with sum ``total``."""
    if not 1 <= k <= vocab_size:
        raise ValueError(f"k must be between 1 and the vocabulary size {vocab_size}, not {k}")
    if not 1 <= total <= MAX_TOTAL:
        raise ValueError(f"the lattice total must be between 1 and {MAX_TOTAL}, not {total}")


def draw(row: SparseRow, key: bytes, position: int) -> Drafted:
    """A token drawn from exactly the row: truncated and rounded first, and only then drawn."""
    return Drafted.of(row, row.draw(noise.below(key, position, Purpose.DRAFT, row.total)))
