"""Frames as a hostile or broken peer might send them."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from draftlink.coding.ids import IdModel
from draftlink.distribution.sparse import Drafted, SparseRow
from draftlink.protocol import frames
from draftlink.protocol.varints import varints
from draftlink.schemes import AnyScheme
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.dense import Dense
from draftlink.schemes.split import Split, pack_draws, pack_row, pack_support
from draftlink.schemes.topk import TopK

KINDS = (frames.Draft, frames.Verdict, frames.Tokens, frames.Propose, frames.Written)
SCHEMES: list[AnyScheme] = [
    TopK(6, 16, tiers=1), TopK(2, 16), TopK(6, coding="fp16"), TopK(9, 64, mass=0.8), Dense(),
    Split(6, 16), Coupled(),
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 63, 64, 65, 127, 128, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**35,
    2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63),
]  # fmt: skip
FLOATS = [0.0, -0.0, 1e-308, 5e-324, 1e-30, 0.5, 1.0, 1.5, 99.0, 1e30, 1e300, -1.0]
FLOATS += [float("nan"), float("inf"), float("-inf")]
# Declared sizes with nothing behind them: arrays, maps, strings, binaries, extensions; and depth.
BOMBS = [
    *(bytes((kind,)) + b"\xff" * size for kind, size in ((0xDD, 4), (0xDF, 4), (0xDB, 4))),
    *(bytes((kind,)) + b"\xff" * size for kind, size in ((0xC6, 4), (0xC9, 4), (0xDC, 2))),
    b"\xdd\x00\x01\x00\x00" + b"\x00" * 0x10000,
    b"\x91" * 3000 + b"\xc0",
    b"\x81\xa0" * 3000 + b"\xc0",
    b"\x91" * 100_000,
]


class Mutator:
    """Makes mutated frames, all from one seed. ``corpus``: true frames of both directions."""

    def __init__(self, seed: int, corpus: Sequence[bytes], vocab_size: int) -> None:
        self._random = random.Random(seed)
        self._corpus = corpus
        self._vocab_size = vocab_size
        self._ways: list[tuple[Callable[[bytes], bytes], int]] = [
            (self._flipped, 8),
            (self._cut, 3),
            (self._extended, 3),
            (self._spliced, 4),
            (self._swapped, 6),
            (self._renumbered, 12),
            (self._crafted, 8),
            (self._leaf, 8),
            (self._varints, 2),
            (self._noise, 1),
            (self._bomb, 1),
        ]

    def mutate(self, data: bytes) -> bytes:
        """A mutation of ``data``, the frame that would truly come next."""
        ways, weights = zip(*self._ways, strict=True)
        return self._random.choices(ways, weights)[0](data)

    def _flipped(self, data: bytes) -> bytes:
        out = bytearray(data)
        for _ in range(self._random.choice((1, 1, 1, 2, 4, 9))):
            out[self._random.randrange(len(out))] ^= 1 << self._random.randrange(8)
        return bytes(out)

    def _cut(self, data: bytes) -> bytes:
        return data[: self._random.randrange(len(data))]

    def _extended(self, data: bytes) -> bytes:
        count = self._random.choice((1, 1, 2, 8, 300))
        return data + self._random.choice((bytes(count), self._random.randbytes(count)))

    def _spliced(self, data: bytes) -> bytes:
        """A slice taken out, doubled, overwritten, or put in from another frame."""
        begin = self._random.randrange(len(data))
        end = self._random.randrange(begin, len(data)) + 1
        other = self._random.choice(self._corpus)
        at = self._random.randrange(len(other))
        middle = self._random.choice(
            (
                b"",
                data[begin:end] * 2,
                self._random.randbytes(end - begin),
                other[at : at + end - begin],
            )
        )
        return data[:begin] + middle + data[end:]

    def _swapped(self, data: bytes) -> bytes:
        """A true frame out of its place: resent, early, of another session, of the other role."""
        return self._random.choice(self._corpus)

    def _renumbered(self, data: bytes) -> bytes:
        """A true head or payload with other numbers beside it."""
        frame = frames.decode(data)
        if not isinstance(frame, KINDS):
            frame = frames.decode(self._random.choice(self._corpus))
        if not isinstance(frame, KINDS):
            return self._leaf(data)
        fields: dict[str, Any] = {}
        for name in self._random.sample(frame.__match_args__, self._random.choice((1, 1, 2))):
            fields[name] = self._field(name, getattr(frame, name))
        if isinstance(frame, frames.Propose):  # which says how much more is known than its base
            base = fields.get("base", frame.base)
            fields["first"] = fields.get("first", frame.first) or 0
            fields["known"] = min(max(fields.get("known", frame.known), base), base + 2**32 - 1)
        return frames.encode(replace(frame, **fields))

    def _field(self, name: str, value: Any) -> Any:
        pick = self._random.choice
        if name in ("ended", "waits", "goes_on"):
            return not value
        if name == "payload":
            other = frames.decode(pick(self._corpus))
            return other.payload if isinstance(other, frames.Draft | frames.Propose) else b""
        if name == "logprobs":
            return pick((b"", value[:-1], value * 2, self._told(), self._told()))
        if name in ("row", "surprisals"):
            return pick((b"", value[:-1], value * 2, self._row(), self._random.randbytes(3)))
        if name == "beside":
            return pick(((), tuple(pick((0, 0, 1, 3)) for _ in value or (1,))))
        if name == "ids":
            return pick(((), value * 2, value * 40, (*value, self._small()), (self._small(),)))
        if name in ("first", "next") and value is not None:
            return pick((None, self._small(), value + 1))
        near = 0 if value is None else value + pick((-1, 1))
        return max(0, pick((near, near, self._small(), pick(NUMBERS))))

    def _told(self) -> bytes:
        """Log-probabilities: of ids out of range or twice, of too many, beyond all numbers."""
        count = self._random.choice((0, 1, 2, 3, 21))
        fields = [self._random.choice((0, 5, 1 << 20, 2**32 - 1))]
        for _ in range(count):
            fields += self._small(), self._random.choice((0, 1, 70_000, 2**32 - 1))
        return varints(*fields) * self._random.choice((1, 1, 2, 4))

    def _small(self) -> int:
        return self._random.choice((self._random.randrange(self._vocab_size + 2), 2**32 - 1))

    def _crafted(self, data: bytes) -> bytes:
        """A draft, proposal or verdict in its place, whose payload is well formed, and wrong."""
        frame = frames.decode(data)
        if isinstance(frame, frames.Verdict):
            return frames.encode(replace(frame, row=self._row(), next=None, ended=False))
        if not isinstance(frame, frames.Draft | frames.Propose):
            return self._flipped(data)
        length = self._random.choice((frame.length, 0, 1, 2, 64, 65))
        scheme = self._random.choice(SCHEMES)
        ids = IdModel(self._vocab_size)
        if isinstance(scheme, Dense) or (isinstance(scheme, TopK) and scheme.coding == "fp16"):
            drafted = [self._impossible() for _ in range(length)]
        else:
            # An entropy coder has no words for an impossible row. What is possible elsewhere, with
            # another sum or more entries, reads as anything here.
            rng = np.random.default_rng(self._random.getrandbits(32))
            rows = rng.dirichlet(np.full(self._vocab_size, 0.3), length)
            drafted = [scheme.propose(q, bytes(32), i) for i, q in enumerate(rows)]
        try:
            payload, _ = scheme.encode(drafted, ids)
        except (ValueError, IndexError, OverflowError):
            payload = self._random.randbytes(length * 5)
        return frames.encode(replace(frame, length=length, payload=payload))

    def _impossible(self) -> Drafted:
        """Counts that do not sum, or of 0; ids that repeat, or are out of range or order."""
        size = self._random.randrange(1, 8)
        ids = np.array([self._random.randrange(self._vocab_size + 1) for _ in range(size)])
        counts = np.array([self._random.choice((0, 1, 1, 3, 1 << 24)) for _ in range(size)])
        if self._random.random() < 0.7:
            ids.sort()
        total = self._random.choice((int(counts.sum()), 16, 64))
        return Drafted.of(SparseRow(ids, counts, total), self._random.randrange(size))

    def _row(self) -> bytes:
        """A target's row of logits: true, or of the wrong length, not a number, or a zlib bomb."""
        rng = np.random.default_rng(self._random.getrandbits(32))
        kind = self._random.choice((np.float32, np.float64))
        row = rng.normal(0, 3, self._vocab_size).astype(kind)
        place = self._random.randrange(self._vocab_size)
        extreme = [np.nan, np.inf, -np.inf, np.finfo(kind).max, np.finfo(kind).min, 1e30, -1e30]
        ways: list[Callable[[], bytes]] = [
            lambda: pack_row(row),
            lambda: pack_row(row[:-1]),
            lambda: pack_row(np.full(self._vocab_size, self._random.choice(extreme), kind)),
            lambda: pack_row(np.where(np.arange(len(row)) == place, extreme[place % 7], row)),
            lambda: pack_row(row)[:-3],
            lambda: pack_row(row) + b"\x00",
            lambda: bytes((4,)) + zlib.compress(bytes(1 << 20), 9),
            lambda: bytes((self._random.randrange(256),)) + pack_row(row)[1:],
            self._pairs,
            self._pairs,
        ]
        with np.errstate(all="ignore"):
            return self._random.choice(ways)()

    def _pairs(self) -> bytes:
        """Pairs, or all of a small p: true, or with what is no probability, or too much of it."""
        size, pick = self._vocab_size, self._random.choice
        share = pick([1 / 64, 1 / 64, 0.0, 1.0, *FLOATS])
        ids = [self._random.randrange(size) for _ in range(self._random.randrange(1, 40))]
        shares = {token: share if pick((0, 0, 1)) else 1 / 64 for token in ids}
        if pick((True, False)):
            return pack_draws([(token, shares[token]) for token in ids], pick((0, 9)), 256, size)
        return pack_support(sorted(shares.items())[: min(32, size)], size)

    def _leaf(self, data: bytes) -> bytes:
        """A control message with one value of it, anywhere, replaced, taken out or added."""
        controls = [d for d in (data, *self._random.choices(self._corpus, k=9)) if d[0] == 1]
        if not controls:
            return self._flipped(data)
        tree = msgspec.msgpack.decode(controls[0][1:])
        node = tree
        while True:
            key = self._random.choice(list(node))
            if not isinstance(node[key], dict) or self._random.random() < 0.2:
                break
            node = node[key]
        way = self._random.random()
        if way < 0.05:
            del node[key]
        elif way < 0.1:
            node["unknown"] = self._value(None)
        else:
            node[key] = self._value(node[key])
        return bytes((1,)) + msgspec.msgpack.encode(tree)

    def _value(self, value: Any) -> Any:
        pick = self._random.choice
        if isinstance(value, list) and self._random.random() < 0.8:
            size = pick((0, 1, 5, 60, 300, 5000))
            return [pick((self._small(), pick(NUMBERS), 1)) for _ in range(size)]
        if isinstance(value, float) and self._random.random() < 0.8:
            return pick(FLOATS)
        if isinstance(value, bool) and self._random.random() < 0.8:
            return not value
        if isinstance(value, bytes) and value and self._random.random() < 0.8:  # tickets, digests
            return pick((self._flipped(value), self._cut(value), self._extended(value), b""))
        if isinstance(value, int) and self._random.random() < 0.8:
            return pick((value + 1, value - 1, pick(NUMBERS), pick(NUMBERS)))
        return pick(
            (None, True, "", "topk", "draft", "x" * 3000, b"\xff\xfe", [], {}, [[]],
             {"type": "topk"}, pick(NUMBERS), pick(FLOATS), msgspec.Raw(pick(BOMBS)))
        )  # fmt: skip

    def _varints(self, data: bytes) -> bytes:
        """A hot frame's kind and flags, and integers that are huge, padded, or do not end."""
        forms = [b"\xff" * 4 + b"\x0f", b"\xff" * 4 + b"\x7f", b"\xff" * 40, b"\x80\x00", b"\x01"]
        head = bytes(
            (self._random.randrange(8), self._random.choice((0, 1, 2, 4, 8, 15, 16, 31, 255)))
        )
        return head + b"".join(self._random.choices(forms, k=self._random.randrange(9)))

    def _noise(self, data: bytes) -> bytes:
        return self._random.randbytes(self._random.choice((0, 1, 5, 40, 2000)))

    def _bomb(self, data: bytes) -> bytes:
        return bytes((self._random.choice((1, 1, 1, 2, 3, 4, 5, 6)),)) + self._random.choice(BOMBS)
