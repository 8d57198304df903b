import json
import math
import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draftlink.coding import lattice
from draftlink.coding.bits import BitReader, BitWriter, width_for
from draftlink.distribution.prior import MAX_VOCAB, IdPrior
from draftlink.distribution.sparse import Drafted, SparseRow, remainder

# Recorded with bench.coder.collect: rows of the embedded draft at K = 32, ℓ = 256, T = 0.7 and 1.
SAMPLE = json.loads((Path(__file__).parent / "pair_sample.json").read_text())
K, TOTAL, VOCAB = 32, 256, 8192
BLOCK = 3  # rows of a recorded block


def row_of(ids, counts):
    return SparseRow(np.array(ids, dtype=np.int64), np.array(counts, dtype=np.int64), sum(counts))


def encode(rows, k, total, vocab_size):
    """Tokens of one row each."""
    drafted = [Drafted.of(row, index) for row, index in rows]
    return lattice.encode(drafted, lattice.shapes(k, total, 1), vocab_size)


def decode(payload, length, k, total, vocab_size):
    drafted = lattice.decode(payload, length, lattice.shapes(k, total, 1), vocab_size)
    return [(d.row, d.index) for d in drafted]


RECORDED = [(row_of(r["ids"], r["counts"]), r["index"]) for r in SAMPLE["rows"]]


def plain(rows):
    return [(row.ids.tolist(), row.counts.tolist(), row.total, index) for row, index in rows]


def random_row(rng, vocab_size, entries, total):
    """A row whose ids and counts are uniform over all that there are."""
    ids = sorted(rng.sample(range(vocab_size), entries))
    cuts = [0, *sorted(rng.sample(range(1, total), entries - 1)), total]
    counts = [b - a for a, b in pairwise(cuts)]
    return row_of(ids, counts), rng.randrange(entries)


@st.composite
def frames(draw):
    vocab_size = draw(st.sampled_from((1, 2, 3, 63, 64, 65, 300, 8192, 152_064)))
    total = draw(st.sampled_from((1, 2, 100, 256, 4096, 1 << 24)))
    largest = min(vocab_size, total, 400)
    k = draw(st.sampled_from(sorted({1, largest, min(vocab_size, 32)})))
    entries = st.one_of(st.just(1), st.just(min(k, largest)), st.integers(1, min(k, largest)))
    rng = random.Random(draw(st.integers(0, 2**32)))
    rows = [
        random_row(rng, vocab_size, draw(entries), total) for _ in range(draw(st.integers(0, 4)))
    ]
    return rows, k, total, vocab_size


@settings(deadline=None)
@given(frames())
def test_round_trip(frame):
    rows, k, total, vocab_size = frame
    payload, bits = encode(rows, k, total, vocab_size)
    assert len(payload) == (bits + 7) // 8
    assert plain(decode(payload, len(rows), k, total, vocab_size)) == plain(rows)


@pytest.mark.parametrize("vocab_size", (2, 64, 8192, 152_064))
def test_extremes(vocab_size):
    largest = min(vocab_size, 2048)
    last = list(range(vocab_size - largest, vocab_size))
    rows = [
        (row_of([vocab_size - 1], [4096]), 0),
        (row_of([0], [4096]), 0),
        (row_of([0, vocab_size - 1], [1, 4095]), 0),
        (row_of(last, [4096 - largest + 1] + [1] * (largest - 1)), largest - 1),
        (row_of(last, [4096 // largest] * largest), largest // 2),
    ]
    payload, _ = encode(rows, largest, 4096, vocab_size)
    assert plain(decode(payload, len(rows), largest, 4096, vocab_size)) == plain(rows)
    ones = [(row_of(last, [1] * largest), 0)]  # ℓ = K_j = K
    payload, _ = encode(ones, largest, largest, vocab_size)
    assert plain(decode(payload, 1, largest, largest, vocab_size)) == plain(ones)


def test_decodes_to_what_the_fixed_width_form_decodes_to():
    reference = BitWriter()
    for row, index in RECORDED:
        reference.write(len(row.ids) - 1, width_for(K))
        reference.write(row.ids, width_for(VOCAB))
        reference.write(row.counts - 1, width_for(TOTAL))
        reference.write(index, width_for(K))
    source = BitReader(reference.bytes())
    expected = []
    for _ in RECORDED:
        count = int(source.read(1, width_for(K))[0]) + 1
        ids, counts = source.read(count, width_for(VOCAB)), source.read(count, width_for(TOTAL)) + 1
        row = SparseRow(ids, counts, int(counts.sum()))
        expected.append((row, int(source.read(1, width_for(K))[0])))
    payload, bits = encode(RECORDED, K, TOTAL, VOCAB)
    found = decode(payload, len(RECORDED), K, TOTAL, VOCAB)
    assert plain(found) == plain(expected)
    assert bits < 0.66 * reference.bits


def log2_choose(n, k):
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2)


def bound(rows, vocab_size):
    """log2 C(V, K_j) + log2 C(ℓ-1, K_j-1) - log2 q̂(x), without K_j's own cost."""
    bits = 0.0
    for row, index in rows:
        bits += log2_choose(vocab_size, len(row.ids)) - math.log2(row.counts[index] / row.total)
        bits += log2_choose(row.total - 1, len(row.ids) - 1)
    return bits


def coded(rows, vocab_size):
    """Bits of the recorded rows in blocks as a device would send them."""
    blocks = [rows[i : i + BLOCK] for i in range(0, len(rows), BLOCK)]
    return sum(encode(block, K, TOTAL, vocab_size)[1] for block in blocks)


@pytest.mark.parametrize("vocab_size", (VOCAB, 32_000, 151_936))
@pytest.mark.parametrize("order", ("kept", "shuffled"))
def test_real_rows_stay_within_3_percent_of_the_bound(vocab_size, order):
    places = random.Random(0).sample(range(vocab_size), VOCAB)
    if order == "kept":
        places.sort()
    rows = []
    for row, index in RECORDED:
        ids = np.array(places)[row.ids]
        by_id = np.argsort(ids)
        moved = row_of(ids[by_id], row.counts[by_id].tolist())
        rows.append((moved, int(np.flatnonzero(by_id == index)[0])))
    ratio = coded(rows, vocab_size) / bound(rows, vocab_size)
    assert ratio < 1.03
    if order == "kept":
        assert ratio < 0.96  # what is known of ids and counts is put to use


def test_uniform_sets_cost_what_a_set_costs():
    # Counts of all 1 are known from ℓ = K: only the set is coded, and which entry was drawn.
    rng = random.Random(1)
    for entries in (2, 8, 32, 300):
        rows = [
            (row_of(sorted(rng.sample(range(60), min(entries, 60))), [1] * min(entries, 60)), 0)
        ]
        bits = encode(rows, 60, min(entries, 60), 60)[1]
        assert bits <= bound(rows, 60) + 1 + 6  # in one octave every id has the same weight


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=60),
    st.sampled_from(((1, 1, 1), (1, 256, 300), (16, 256, 300), (2, 4096, 2), (300, 1 << 24, 300))),
    st.integers(0, 3),
)
def test_any_bytes_are_their_own_rows_or_raise(payload, parameters, length):
    check_hostile(payload, length, *parameters)


def check_hostile(payload, length, k, total, vocab_size):
    try:
        rows = decode(payload, length, k, total, vocab_size)
    except ValueError:
        return False
    for row, index in rows:
        assert 1 <= len(row.ids) <= k and 0 <= index < len(row.ids)
        assert row.ids[0] >= 0 and row.ids[-1] < vocab_size and (np.diff(row.ids) > 0).all()
        assert (row.counts >= 1).all() and row.counts.sum() == total
    assert encode(rows, k, total, vocab_size)[0] == payload
    return True


def test_damaged_payloads_are_their_own_rows_or_raise():
    rows = RECORDED[:BLOCK]
    payload, _ = encode(rows, K, TOTAL, VOCAB)
    assert check_hostile(payload, BLOCK, K, TOTAL, VOCAB)
    for bit in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        check_hostile(bytes(damaged), BLOCK, K, TOTAL, VOCAB)
    for size in range(len(payload)):
        check_hostile(payload[:size], BLOCK, K, TOTAL, VOCAB)
    for tail in (b"\0", b"\1", b"\0" * 100, payload):
        assert not check_hostile(payload + tail, BLOCK, K, TOTAL, VOCAB)
    for length in (0, BLOCK - 1, 64):
        assert not check_hostile(payload, length, K, TOTAL, VOCAB)


def test_a_repeated_id_is_refused():
    row = SparseRow(np.array([5, 5]), np.array([1, 3]), 4)
    payload, _ = encode([(row, 0)], 2, 4, 10)
    with pytest.raises(ValueError, match="repeated"):
        decode(payload, 1, 2, 4, 10)


def test_golden_bytes():
    payload, bits = encode(RECORDED[:2], K, TOTAL, VOCAB)
    assert (payload.hex(), bits) == (
        "77e9f282a71d58da376c571eb742f57c5c74b9ee16db71aea1bdfe48ffe9a4",
        246,
    )


def test_a_row_that_the_parameters_do_not_allow_is_refused():
    row = row_of([3, 5], [1, 3])
    for k, total in ((1, 4), (2, 5)):
        with pytest.raises(ValueError, match="row"):
            encode([(row, 0)], k, total, 10)


@pytest.mark.parametrize("vocab_size", (1, 2, 63, 64, 65, 191, 192, 193, 8192, 152_064))
def test_prior_covers_every_id_once(vocab_size):
    law = IdPrior(vocab_size)
    at = 0
    for token in range(vocab_size):
        below, weight = law.share(token)
        assert below == at and weight >= 1
        at += weight
    assert at == law.total
    for token in random.Random(0).sample(range(vocab_size), min(vocab_size, 200)):
        below, weight = law.share(token)
        assert law.find(below) == law.find(below + weight - 1) == token
        # Less than a bit, and what rounding the weights costs, above uniform.
        assert weight * vocab_size > 0.47 * law.total


def test_prior_refuses_a_vocabulary_that_breaks_its_totals():
    assert IdPrior(MAX_VOCAB).total < 1 << 28
    with pytest.raises(ValueError, match="vocabulary"):
        IdPrior(MAX_VOCAB + 1)


# --- Nested rows ---


def nested(rng, k, total, tiers, vocab_size):
    """A token that may lie behind rests, down to the prior: rows and draws of any kind."""
    left = list(range(vocab_size))
    above = []
    for shape in lattice.shapes(k, total, tiers):
        sum_, fits = shape.total, min(shape.k, len(left))
        rest = rng.choice((0, 1, rng.randrange(sum_ + 1), sum_)) if fits < len(left) else 0
        entries = rng.randrange(min(1, sum_ - rest), min(fits, sum_ - rest) + 1)
        rest = rest if entries else sum_
        ids = sorted(rng.sample(left, entries))
        cuts = sorted(rng.sample(range(1, sum_ - rest), entries - 1)) if entries else []
        counts = np.diff([0, *cuts, sum_ - rest]) if entries else []
        row = SparseRow(np.array(ids, np.int64), np.array(counts, np.int64), sum_, rest)
        if entries and (not rest or rng.random() < 0.4):
            return Drafted.of(row, rng.randrange(entries), above)
        if len(left) == entries:
            raise AssertionError
        above.append(row)
        left = [i for i in left if i not in ids]
    row = remainder(above, vocab_size)
    i = rng.randrange(len(row.ids))
    return Drafted(int(row.ids[i]), int(row.counts[i]), row.total, None, tuple(above))


def all_of(drafted):
    rows = [[*d.above] if d.row is None else [*d.above, d.row] for d in drafted]
    return [
        (d.token, d.count, d.total, [(list(r.ids), list(r.counts), r.total, r.rest) for r in rs])
        for d, rs in zip(drafted, rows, strict=True)
    ]


@pytest.mark.parametrize("tiers", (2, 3, 5))
@pytest.mark.parametrize("vocab_size", (2, 7, 300, 8192))
@pytest.mark.parametrize(("k", "total"), ((1, 1), (1, 256), (2, 16), (8, 64)))
def test_nested_rows_round_trip(vocab_size, k, total, tiers):
    rng = random.Random(1000 * vocab_size + 10 * k + tiers)
    shapes = lattice.shapes(k, total, tiers)
    depths = set()
    for _ in range(20):
        drafted = [nested(rng, k, total, tiers, vocab_size) for _ in range(4)]
        payload, bits = lattice.encode(drafted, shapes, vocab_size)
        assert len(payload) == (bits + 7) // 8
        assert all_of(lattice.decode(payload, 4, shapes, vocab_size)) == all_of(drafted)
        depths |= {(len(d.above), d.row is None) for d in drafted}
    assert vocab_size < 300 or depths == {*((j, False) for j in range(tiers)), (tiers, True)}


def check_hostile_nested(payload, length, shapes, vocab_size):
    """Whether they decode; and then the rows are distributions, and the bytes their only form."""
    try:
        drafted = lattice.decode(payload, length, shapes, vocab_size)
    except ValueError:
        return False
    for token in drafted:
        path = token.path(vocab_size)
        for row, shape in zip(path, shapes, strict=False):
            assert row.total == shape.total and len(row.ids) <= shape.k
        for row in path:
            assert row.counts.sum() + row.rest == row.total and (row.counts > 0).all()
        ids = np.concatenate([row.ids for row in path])
        assert len(set(ids.tolist())) == len(ids) and ids.min() >= 0 and ids.max() < vocab_size
        at = np.searchsorted(path[-1].ids, token.token)
        assert path[-1].ids[at] == token.token and path[-1].counts[at] == token.count
        assert path[-1].total == token.total and all(row.rest for row in path[:-1])
    assert lattice.encode(drafted, shapes, vocab_size)[0] == payload
    return True


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=60),
    st.sampled_from(((1, 1, 3, 1), (1, 4, 3, 9), (2, 16, 2, 5), (8, 64, 4, 300))),
    st.integers(0, 3),
)
def test_any_bytes_are_their_own_nested_rows_or_raise(payload, parameters, length):
    k, total, tiers, vocab_size = parameters
    check_hostile_nested(payload, length, lattice.shapes(k, total, tiers), vocab_size)


def test_damaged_nested_payloads_are_their_own_rows_or_raise():
    rng, shapes = random.Random(3), lattice.shapes(2, 16, 3)
    drafted = [nested(rng, 2, 16, 3, 300) for _ in range(12)]
    assert {len(d.above) for d in drafted} == {0, 1, 2, 3}
    payload, _ = lattice.encode(drafted, shapes, 300)
    assert check_hostile_nested(payload, 12, shapes, 300)
    for bit in range(8 * len(payload)):
        damaged = bytearray(payload)
        damaged[bit // 8] ^= 1 << bit % 8
        check_hostile_nested(bytes(damaged), 12, shapes, 300)
    for size in range(len(payload)):
        check_hostile_nested(payload[:size], 12, shapes, 300)


def test_a_nested_row_that_cannot_be_is_refused():
    """Ids that an outer row lists; a rest with no ids left."""
    shapes = lattice.shapes(1, 4, 2)
    outer = SparseRow(np.array([1]), np.array([1]), 4, 3)
    inner = row_of([1], [8])
    payload, _ = lattice.encode([Drafted.of(inner, 0, [outer])], shapes, 3)
    with pytest.raises(ValueError, match="repeated"):
        lattice.decode(payload, 1, shapes, 3)
    payload, _ = lattice.encode([Drafted.of(SparseRow(np.array([0]), np.array([1]), 4, 3), 0)],
                                shapes, 1)  # fmt: skip
    with pytest.raises(ValueError, match="no ids are left"):
        lattice.decode(payload, 1, shapes, 1)


def test_what_nested_rows_do_not_allow_is_not_written():
    shapes = lattice.shapes(1, 4, 2)
    outer, inner = SparseRow(np.array([1]), np.array([1]), 4, 3), row_of([2], [8])
    rest_of_a_single_row = [Drafted.of(outer, 0)], lattice.shapes(1, 4, 1)
    a_row_too_many = [Drafted.of(inner, 0, [outer, outer])], shapes
    the_prior_too_soon = [Drafted(2, 1, 9, None, (outer,))], shapes
    for drafted, coded in (rest_of_a_single_row, a_row_too_many, the_prior_too_soon):
        with pytest.raises(ValueError, match="row"):
            lattice.encode(drafted, coded, 9)
