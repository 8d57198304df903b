"""Reads drafts with the standard library and ``docs/protocol.md`` alone: nothing of draftlink.

It is written to be compared with the page, not to be fast: sections are named beside the code. It
takes a range-coded payload for true (8, the decoder's finish, is checked; hostile rows are not).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any


class Reader:
    """Section 8, the decoder."""

    def __init__(self, payload: bytes) -> None:
        self.payload = payload
        self.at = 7
        self.code = int.from_bytes(payload[:7].ljust(7, b"\0"), "big")
        self.width = 1 << 56
        self.unit = 0

    def peek(self, total: int) -> int:
        self.unit = self.width // total
        value = self.code // self.unit
        assert value < total
        return value

    def take(self, start: int, frequency: int) -> None:
        self.code -= self.unit * start
        self.width = self.unit * frequency
        while self.width < 1 << 40:
            following = self.payload[self.at : self.at + 2].ljust(2, b"\0")
            self.code = self.code << 16 | int.from_bytes(following, "big")
            self.width <<= 16
            self.at += 2

    def choose(self, frequencies: list[int]) -> int:
        """The symbol's number, where frequencies follow one another from 0."""
        value, start = self.peek(sum(frequencies)), 0
        for i, frequency in enumerate(frequencies):
            if value < start + frequency:
                self.take(start, frequency)
                return i
            start += frequency
        raise AssertionError

    def uniform(self, n: int) -> int:
        value = self.peek(n)
        self.take(value, 1)
        return value

    def finish(self) -> None:
        assert len(self.payload) <= self.at
        low = int.from_bytes(self.payload.ljust(self.at, b"\0"), "big") - self.code
        assert shortest(low, self.width, 8 * self.at) == self.payload


def shortest(low: int, width: int, scale: int) -> bytes:
    """Section 8."""
    if low == 0:
        return b""
    bits = 1
    while (m := -(-low >> (scale - bits))) << (scale - bits) > low + width - 1:
        bits += 1
    size = -(-bits // 8)
    return (m << (8 * size - bits)).to_bytes(size, "big")


class Prior:
    """Section 9.1; octaves as boundaries of ids."""

    def __init__(self, vocab_size: int) -> None:
        count = 1
        while 64 * ((1 << count) - 1) < vocab_size:
            count += 1
        mass = 64 << (count - 1)
        uniform = max(1, (mass * count + vocab_size // 2) // vocab_size)
        self.bounds = [64 * ((1 << j) - 1) for j in range(count)] + [vocab_size]
        self.weights = [uniform + (1 << (count - 1 - j)) for j in range(count)]
        self.below = [0]  # by octave
        for j, weight in enumerate(self.weights):
            self.below.append(self.below[-1] + weight * (self.bounds[j + 1] - self.bounds[j]))

    def octave(self, token: int) -> int:
        return max(j for j in range(len(self.weights)) if self.bounds[j] <= token)

    def read_one(self, source: Reader, first: int = 0, last: int | None = None) -> int:
        """One id of the octaves [first, last)."""
        last = len(self.weights) if last is None else last
        base = self.below[first]
        value = base + source.peek(self.below[last] - base)
        j = max(j for j in range(first, last) if self.below[j] <= value)
        token = self.bounds[j] + (value - self.below[j]) // self.weights[j]
        start = self.below[j] + self.weights[j] * (token - self.bounds[j])
        source.take(start - base, self.weights[j])
        return token


def law(count: int, left: int, right: int, left_weight: int, right_weight: int):
    """Section 9.2: the fewest, and the frequencies from there on."""
    fewest, most = max(0, count - right), min(count, left)
    up, down = left_weight * right, right_weight * left
    peak = count * left_weight // (left_weight + right_weight)
    peak = min(max(peak, fewest), most)
    f = {peak: 1 << 40}
    for i in range(peak, fewest, -1):
        f[i - 1] = (
            f[i] * (i * (right - count + i) * down) // ((left - i + 1) * (count - i + 1) * up)
        )
    for i in range(peak, most):
        f[i + 1] = (
            f[i] * ((left - i) * (count - i) * up) // ((i + 1) * (right - count + i + 1) * down)
        )
    shift = max(f.values()).bit_length() - min(16, 27 - (most - fewest + 1).bit_length())
    return fewest, [1 + (f[i] >> shift) for i in range(fewest, most + 1)]


def read_set(
    source: Reader, size: int, prior: Prior, a: int = 0, b: int | None = None
) -> list[int]:
    """Section 9.3; the node is the octaves [a, b)."""
    b = len(prior.weights) if b is None else b
    if size == 0:
        return []
    if size == 1:
        return [prior.read_one(source, a, b)]
    if b - a == 1:
        return read_flat(source, size, prior.bounds[a], prior.bounds[b])
    half = prior.below[a] + (prior.below[b] - prior.below[a]) // 2
    c = min(range(a + 1, b), key=lambda j: (abs(prior.below[j] - half), j))
    fewest, frequencies = law(
        size,
        prior.bounds[c] - prior.bounds[a],
        prior.bounds[b] - prior.bounds[c],
        prior.below[c] - prior.below[a],
        prior.below[b] - prior.below[c],
    )
    i = fewest + source.choose(frequencies)
    left = read_set(source, i, prior, a, c)
    return left + read_set(source, size - i, prior, c, b)


def read_flat(source: Reader, size: int, start: int, stop: int) -> list[int]:
    """Section 9.3, write_flat."""
    if size in (0, stop - start):
        return list(range(start, start + size))
    if size == 1:
        return [start + source.uniform(stop - start)]
    half = (start + stop) // 2
    fewest, frequencies = law(size, half - start, stop - half, half - start, stop - half)
    i = fewest + source.choose(frequencies)
    left = read_flat(source, i, start, half)
    return left + read_flat(source, size - i, half, stop)


def read_token(
    source: Reader, k: int, total: int, tiers: int, vocab_size: int, prior: Prior
) -> dict[str, Any]:
    """Section 9.4: a token and its rows."""
    rows: list[dict[str, Any]] = []
    listed: list[int] = []
    for j in range(tiers):
        token, row = read_row(source, min(k << j, vocab_size), total << j, tiers > 1, prior)
        rows.append(row)
        listed += row["ids"]
        assert len(set(listed)) == len(listed)
        assert not row.get("rest") or len(listed) < vocab_size
        if token is not None:
            return {"token": token, **row} if tiers == 1 else {"token": token, "rows": rows}
    left = [v for v in range(vocab_size) if v not in set(listed)]
    chosen = source.choose([prior.weights[prior.octave(v)] for v in left])
    return {"token": left[chosen], "rows": rows}


def read_row(
    source: Reader, k: int, total: int, nested: bool, prior: Prior
) -> tuple[int | None, dict[str, Any]]:
    """Section 9.4: which id was drawn, None for the rest, and the row."""
    counts: list[int] = []
    rest = 0
    if nested:
        rest = source.uniform(total.bit_length() + 1)
        if rest > 1:
            fewest = 1 << (rest - 1)
            rest = fewest + source.uniform(min(2 * fewest, total + 1) - fewest)
    left, most, slots = total - rest, total, k
    while left > 0:
        if most == 1 and counts:
            counts += [1] * left
            break
        fewest, largest = -(-left // slots), min(most, left)
        count = fewest + source.uniform(largest - fewest + 1)
        counts.append(count)
        left, most, slots = left - count, count, slots - 1
    drawn = source.choose([*counts, rest])
    ids: list[int] = []
    for _, group in groupby(counts):
        ids += read_set(source, len(list(group)), prior)
    entries = sorted(zip(ids, counts, strict=True))
    row: dict[str, Any] = {"ids": [i for i, _ in entries], "counts": [c for _, c in entries]}
    if nested:
        row["rest"] = rest
    return ids[drawn] if drawn < len(ids) else None, row


class Model:
    """Section 9.5."""

    def __init__(self, history: list[int], prior: Prior) -> None:
        self.prior = prior
        self.history: list[int] = []
        self.followers: dict[tuple[int, ...], dict[int, int]] = {}
        self.seen: dict[int, int] = {}
        for token in history:
            self.learn(token)

    def contexts(self) -> list[tuple[int, ...]]:
        return [tuple(self.history[-n:]) for n in (2, 1) if len(self.history) >= n]

    def learn(self, x: int) -> None:
        known = False
        for context in self.contexts():
            ids = self.followers.setdefault(context, {})
            if x in ids:
                ids[x] += 1
                known = True
                break
            if len(ids) < 32:
                ids[x] = 1
        if not known:
            self.seen[x] = self.seen.get(x, 0) + 1
        self.history.append(x)

    def read(self, source: Reader) -> int:
        x = self._read(source)
        self.learn(x)
        return x

    def read_beside(self, source: Reader, beside: int) -> list[int]:
        """A token, and so many that may stand in its place; it alone is learned."""
        here: list[int] = []
        for _ in range(1 + beside):
            here.append(self._read(source, here))
            assert len(set(here)) == len(here)
        self.learn(here[0])
        return here

    def _read(self, source: Reader, here: Sequence[int] = ()) -> int:
        tried = set(here)
        for context in self.contexts():
            followers = self.followers.get(context, {})
            ids = [i for i in followers if i not in tried]
            if not ids:
                continue
            d, e = (8, 0) if len(context) == 2 else (10, 4)
            chosen = source.choose([16 * followers[i] - d for i in ids] + [d * len(ids) + e])
            if chosen < len(ids):
                return ids[chosen]
            tried |= set(followers)
        ids = [i for i in self.seen if i not in tried]
        chosen = source.choose([16 * self.seen[i] - 6 for i in ids] + [960 + 6 * len(ids)])
        if chosen < len(ids):
            return ids[chosen]
        x = self.prior.read_one(source)
        assert x not in self.seen
        return x


def varints(data: bytes, count: int) -> tuple[list[int], int]:
    """Section 3: so many numbers behind kind and flags, and where they end."""
    numbers, at = [], 2
    for _ in range(count):
        value, shift = 0, 0
        while True:
            value |= (data[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 0x80:
                break
        numbers.append(value)
    return numbers, at


def read_draft(
    data: bytes, scheme: dict[str, Any], vocab_size: int, history: list[int]
) -> dict[str, Any]:
    """Section 3.3, and the payload of ``topk`` with ``lattice``, ``split``, ``coupled``, greedy."""
    assert data[0] == 2 and data[1] < 4
    numbers, at = varints(data, 3 + data[1] % 2)
    epoch, base, length = numbers[:3]
    first = numbers[3] if data[1] % 2 else None
    source, prior = Reader(data[at:]), Prior(vocab_size)
    drafted: list[dict[str, Any]]
    if scheme["type"] == "topk":
        k, total = scheme["k"], scheme["total"]
        tiers = 1 if scheme["mass"] < 1 else scheme["tiers"]
        drafted = [read_token(source, k, total, tiers, vocab_size, prior) for _ in range(length)]
    else:
        model = Model([*history, *([] if first is None else [first])], prior)
        drafted = [{"token": model.read(source)} for _ in range(length)]
        if scheme["type"] == "split":
            for item in drafted:
                item["count"] = source.uniform(scheme["total"]) + 1
    source.finish()
    return {
        "epoch": epoch,
        "base": base,
        "length": length,
        "first": first,
        "waits": data[1] >= 2,
        "drafted": drafted,
    }
