"""What each scheme's payload carries arrives as it was, and nothing else passes as one."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftlink import schemes
from draftlink.coding.ids import IdModel
from draftlink.distribution import noise
from draftlink.distribution.sparse import SparseRow, draw_remainder, lattice, remainder
from draftlink.protocol.control import FLIGHT_ENTRIES, FRAME_ENTRIES
from draftlink.schemes import split, topk
from draftlink.schemes.base import MAX_DRAFT, MAX_IN_FLIGHT
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.dense import Dense
from draftlink.schemes.greedy import GREEDY
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK

SIZE = 300
KEY = noise.key_from_seed(1, "device")
SCHEMES = [
    *(TopK(k, 100, coding) for k in (1, 2, 16, SIZE) for coding in ("lattice", "fp16")),
    TopK(16, 1),
    TopK(16, 1 << 16),
    TopK(1, 4, tiers=2),
    TopK(1, 1, tiers=3),
    TopK(16, 100, tiers=1),
    TopK(64, 256, mass=0.9),
    Dense(),
    Split(),
    Split(1, 1),
    Coupled(),
    GREEDY,
]
ALL = pytest.mark.parametrize("scheme", SCHEMES, ids=str)


def model() -> IdModel:
    ids = IdModel(SIZE)
    ids.extend([5, 6, 7, 5, 6])
    return ids


def drafts(scheme, count, seed=0):
    rng = np.random.default_rng(seed)
    rows = rng.dirichlet(np.full(SIZE, 0.05), count)
    return [scheme.propose(q, KEY, 5 + j) for j, q in enumerate(rows)]


@ALL
@pytest.mark.parametrize("count", [0, 1, 7])
def test_what_the_base_station_reads_is_what_was_drawn_from(scheme, count):
    sent = drafts(scheme, count)
    payload, bits = scheme.encode(sent, model())
    assert len(payload) == (bits + 7) // 8
    assert bits <= count * scheme.most_bits(SIZE)
    read = scheme.decode(payload, count, model())
    for a, b in zip(sent, read, strict=True):
        assert a.token == b.token
        if scheme.rule == "sample":
            assert (a.count, a.total) == (b.count, b.total) and a.count >= 1
        if scheme.rule == "sample" and scheme.corrects == "bs":
            for ours, theirs in zip(a.path(SIZE), b.path(SIZE), strict=True):
                assert (ours.ids == theirs.ids).all() and (ours.counts == theirs.counts).all()
                assert (ours.total, ours.rest) == (theirs.total, theirs.rest)


@ALL
@given(data=st.binary(max_size=150), length=st.integers(1, 3))
def test_any_bytes_are_true_drafts_or_a_value_error(scheme, data, length):
    """A hostile device gets nothing past the decoder that is not a distribution it drew from."""
    try:
        drafted = scheme.decode(data, length, model())
    except ValueError:
        return
    assert len(drafted) == length
    for token in drafted:
        assert 0 <= token.token < SIZE
        if scheme.rule == "sample":
            assert 1 <= token.count <= token.total
        if token.row is not None:
            row = token.row
            for one in token.path(SIZE):
                assert (one.counts >= 1).all() and one.counts.sum() + one.rest == one.total
                assert (np.diff(one.ids) > 0).all() and set(one.ids) <= set(range(SIZE))
            assert row.counts[token.index] == token.count and row.ids[token.index] == token.token


@ALL
def test_a_payload_has_one_form(scheme):
    """Nothing can be appended, and what is cut off does not decode to the same."""
    sent = drafts(scheme, 3)
    payload, _ = scheme.encode(sent, model())
    for tail in (b"\x00", b"\x01"):
        with pytest.raises(ValueError):
            scheme.decode(payload + tail, 3, model())
    for end in range(len(payload)):
        try:
            found = scheme.decode(payload[:end], 3, model())
        except ValueError:
            continue
        assert scheme.encode(found, model())[0] == payload[:end] != payload


MIB = 1 << 20  # a message


def test_a_draft_of_whole_rows_is_as_long_as_a_message_allows():
    assert TopK().longest(151_936, MIB, FRAME_ENTRIES) == MAX_DRAFT
    assert Dense().longest(32_000, MIB, FRAME_ENTRIES) == 16
    assert Dense().longest(151_936, MIB, FRAME_ENTRIES) == 3
    assert Dense().longest(262_144, MIB, FRAME_ENTRIES) == 1
    assert Dense().longest(600_000, MIB, FRAME_ENTRIES) == 0


def test_a_draft_holds_no_more_entries_than_a_base_station_takes():
    """Tokens times entries are bounded, neither of them alone: the paper's K has its few tokens."""
    size = 151_936
    assert TopK().entries(size) == 8 + 16 + 32
    assert TopK(64, 1024).longest(size, MIB, FRAME_ENTRIES) == MAX_DRAFT
    assert TopK(64, 1024).deepest(size, FLIGHT_ENTRIES) == MAX_IN_FLIGHT
    paper = TopK(3200, 1 << 14, tiers=1)
    assert paper.entries(size) == 3200 and paper.longest(size, MIB, FRAME_ENTRIES) == 10
    assert paper.deepest(size, FLIGHT_ENTRIES) == 40
    assert TopK(3200, coding="fp16").longest(size, MIB, FRAME_ENTRIES) == MAX_DRAFT
    largest = TopK(585, 1 << 20)
    assert largest.entries(size) == 4095 and largest.longest(size, MIB, FRAME_ENTRIES) == 8
    assert largest.longest(size, MIB, 4094) == largest.deepest(size, 4094) == 0


@ALL
def test_no_payload_makes_its_reader_decode_more_than_the_entries_that_were_foretold(scheme):
    """Of lattice rows; a row of fixed width, and an id, count as what they cost."""
    most = scheme.entries(SIZE)
    assert most >= 1
    if scheme.name == "topk-lattice":
        for d in drafts(scheme, 20):
            assert sum(len(row.ids) for row in (*d.above, *([d.row] if d.row else ()))) <= most


def test_a_draft_is_charged_for_the_work_that_it_makes():
    size = 151_936
    for scheme in (TopK(), GREEDY, Split(), schemes.Coupled(), Dense()):
        assert scheme.work(8192, 4) == 4  # what they cost a target that is fed them
    assert TopK(64, 1024).work(size, 64) == 64 * 14
    assert TopK(585, 1 << 20).work(size, 8) == 8 * 127
    assert Dense().work(size, 3) == 3 * 9
    assert TopK().work(size, 0) == 0


def test_what_was_charged_beforehand_and_not_used_is_given_back():
    """A token is charged for all rows that it may have, before it is read; it has one, mostly."""
    size = 2_000
    peaked = np.full(size, 0.01 / (size - 1))
    peaked[5] = 0.99
    flat = np.full(size, 1 / size)
    scheme = TopK(8, 64, tiers=6)
    assert scheme.work(size, 1) == 15
    short = scheme.propose(peaked, KEY, 3)
    assert not short.above and scheme.unspent(size, [short]) == 14
    drafted = [scheme.propose(flat, KEY, position) for position in range(20)]
    used = [sum(len(row.ids) for row in d.path(size)[:6]) for d in drafted]
    assert scheme.unspent(size, drafted) == 20 * 15 - sum(max(1, n // 32) for n in used)
    assert max(used) > 8 + 16
    for other, q in ((TopK(8, coding="fp16"), flat), (Split(), flat), (Coupled(), flat)):
        assert other.unspent(size, [other.propose(q, KEY, 0)]) == 0


def test_ids_of_probability_0_are_never_drawn():
    """Behind the last row stands the prior only where q is above 0 throughout."""
    q = np.full(SIZE, 1 / SIZE)
    scheme = TopK(1, 4, tiers=2)
    assert [len(row.ids) for row in scheme.rows(q)][-1] > SIZE - 4
    q[7] = 0.0
    *_, last = scheme.rows(q)
    assert len(last.ids) <= 2 and not last.rest


def test_top_p_keeps_the_fewest_entries_that_hold_the_mass():
    q = np.array([0.02, 0.5, 0.2, 0.25, 0.03])
    assert TopK(5, 100, mass=0.7).row(q).ids.tolist() == [1, 3]
    assert TopK(5, 100, mass=0.76).row(q).ids.tolist() == [1, 2, 3]
    assert TopK(1, 100, mass=0.9).row(q).ids.tolist() == [1]
    assert TopK(5, 100).row(q).ids.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "scheme", [TopK(tiers=0), TopK(tiers=9), TopK(20, tiers=8), TopK(2, 1 << 22, tiers=4),
               TopK(0), TopK(SIZE + 1), TopK(total=0), TopK(mass=0.0), TopK(mass=float("nan")),
               Split(k=0), Split(total=0)], ids=str
)  # fmt: skip
def test_impossible_parameters(scheme):
    with pytest.raises(ValueError, match="must be"):
        scheme.check(SIZE)


def test_at_temperature_0_ids_alone_travel():
    for kind in schemes.BY_NAME.values():
        assert schemes.in_effect(kind(), greedy=True) is GREEDY
        assert schemes.in_effect(kind(), greedy=False) == kind()


# --- split: the row that comes down ---


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_target_row_arrives_bit_for_bit(dtype):
    logits = np.random.default_rng(0).normal(size=SIZE).astype(dtype)
    logits[3] = -np.inf
    found = split.unpack_row(split.pack_row(logits), SIZE)
    assert found.dtype == logits.dtype and (found == logits).all()


def test_a_row_of_a_target_in_half_precision_costs_half():
    logits = np.random.default_rng(0).normal(size=8192).astype(np.float32)
    rough = (logits.view(np.uint32) & 0xFFFF0000).view(np.float32)  # bfloat16
    assert len(split.pack_row(rough)) < 0.6 * len(split.pack_row(logits))


def bad_rows():
    good = split.pack_row(np.zeros(SIZE, np.float32))
    yield b""
    yield b"\x05" + good[1:]
    yield good[:-3]
    yield good + b"x"
    yield split.pack_row(np.zeros(SIZE - 1, np.float32))
    yield split.pack_row(np.zeros(1 << 24, np.float32))  # a bomb: 16 KB for 64 MB
    yield split.pack_row(np.full(SIZE, np.nan, np.float32))
    yield split.pack_row(np.full(SIZE, -np.inf, np.float32))
    yield split.pack_row(np.full(SIZE, np.inf, np.float32))


@pytest.mark.parametrize("data", list(bad_rows()))
def test_a_bad_target_row_is_refused(data):
    with pytest.raises(ValueError):
        split.unpack_row(data, SIZE)


def test_the_residual_is_what_the_target_has_more_of():
    p = np.array([0.1, 0.5, 0.4])
    row = lattice(np.array([0.6, 0.4, 0.0]), 3, 10)
    assert np.allclose(split.residual(p, row), [0.0, 0.1, 0.4])
    same = lattice(p, 3, 10)
    assert split.residual(same.probabilities(), same).sum() > 0  # p itself is the limit


@pytest.mark.parametrize("largest", [1e39, 1e300])
def test_a_target_row_beyond_float32_is_refused(largest):
    """A penalty or a low temperature would make infinities of it, and then NaN."""
    with pytest.raises(ValueError, match="no largest logit"):
        split.unpack_row(split.pack_row(np.array([0.0, largest, 1.0])), 3)


def test_a_draw_from_the_prior_is_the_one_from_its_row():
    """The short way and the row, for every number there is; listed ids at both ends and between."""
    size = 90
    listed = [[0, 1, 5, 64, 89], [2, 63], [40]]
    above = [SparseRow(np.array(ids), np.ones(len(ids), int), 2 * len(ids), 1) for ids in listed]
    row = remainder(above, size)
    for number in range(row.total):
        asked = []
        drafted = draw_remainder(
            above, size, lambda total, n=number, asked=asked: asked.append(total) or n
        )
        index = row.draw(number)
        assert (drafted.token, drafted.count) == (row.ids[index], row.counts[index])
        assert (drafted.total, drafted.row, asked) == (row.total, None, [row.total])
        assert drafted.above == tuple(above)


def test_the_usual_rows_fit_whatever_is_stated_of_them():
    """Of what is not stated there is as much as a token's rows may have."""
    assert topk.usual() == TopK(topk.K, topk.TOTAL, tiers=topk.TIERS)
    assert topk.usual(tiers=2) == TopK(topk.K, topk.TOTAL, tiers=2)
    for k in (1, 8, 32, 33, 64, 320, 585, 586, 4096):
        for total in (1, 64, 1 << 18, 1 << 20, 1 << 24):
            rows = topk.usual(k, total)
            rows.check(151_936)
            more = TopK(k, total, tiers=rows.tiers + 1)
            if rows.tiers < topk.TIERS:
                with pytest.raises(ValueError):
                    more.check(151_936)
    with pytest.raises(ValueError, match="k must be"):
        topk.usual(0).check(151_936)
    with pytest.raises(ValueError, match="k must be"):
        topk.usual(4097).check(151_936)
    with pytest.raises(ValueError, match="lattice total"):
        topk.usual(8, 0).check(151_936)


def test_a_start_that_leaves_rows_out_means_those_of_the_wire():
    """What a device asks for has changed and may again; what a missing key means may not."""
    told = msgspec.msgpack.encode({"type": "topk"})
    meant = msgspec.msgpack.decode(told, type=schemes.AnyScheme)
    assert meant == TopK(8, 64, "lattice", 1.0, 3) != topk.usual()
    said = msgspec.msgpack.decode(msgspec.msgpack.encode(topk.usual()))
    assert set(said) == {"type", "k", "total", "coding", "mass", "tiers"}
