"""Pairs that a device corrects by: their bytes, their numbers, and who may send or ask what."""

from __future__ import annotations

import math
import struct

import msgspec
import numpy as np
import pytest

from draftlink.coding import pairs as coding
from draftlink.coding.pairs import read_draws, read_support, write_draws
from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.distribution.prior import prior
from draftlink.protocol import frames
from draftlink.protocol.session import LocalProtocolError, RemoteProtocolError
from draftlink.schemes import split
from draftlink.schemes.split import Split
from tests.draftlink.test_session import HELLO, WELCOME, Pair, start

SIZE = 500
FEATURES = [frames.RECOVERY]


def drawn(seed: int, count: int, size: int = SIZE) -> list[tuple[int, float]]:
    """Draws from a peaked p: ids come again."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(size, 0.02))
    return [(int(y), float(p[y])) for y in rng.choice(size, count, p=p)]


@pytest.mark.parametrize("count", [1, 2, 16, 200])
def test_draws_arrive_in_their_order_and_to_the_last_bit(count):
    for seed in range(5):
        pairs = drawn(seed, count)
        data = split.pack_draws(pairs, 7, 256, SIZE)
        assert split.brings_draws(data) and not split.brings_support(data)
        assert split.unpack_draws(data, 7, 256, SIZE) == pairs


def test_all_of_a_small_p_arrives():
    p = np.zeros(SIZE)
    p[[3, 77, 499]] = 0.25, 0.5, 0.25
    pairs = [(int(y), float(p[y])) for y in np.flatnonzero(p)]
    data = split.pack_support(pairs, SIZE)
    assert split.brings_support(data) and not split.brings_draws(data)
    assert (split.unpack_support(data, SIZE) == p).all()
    single = split.pack_support([(0, 1.0)], 1)
    assert split.unpack_support(single, 1).tolist() == [1.0]


def test_what_repeats_costs_little():
    """16 different ids, each 16 times: 64 bits and an id for each, and the order."""
    pairs = [(17 * (i % 16), 2.0**-8) for i in range(256)]
    bits = 8 * len(split.pack_draws(pairs, 0, 256, SIZE))
    assert bits < 16 * (64 + math.log2(SIZE) + 1) + 256 * (math.log2(16) + 0.6)


def packed(shares: list[float], size: int = SIZE) -> bytes:
    """Draws of ids 0, 1, ... with what shares a peer likes."""
    return split.pack_draws(list(enumerate(shares)), 0, 256, size)


@pytest.mark.parametrize(
    "share", [0.0, -0.0, -0.1, 1.0 + 1e-9, 2.0, math.inf, -math.inf, math.nan, -math.nan]
)
def test_what_is_no_probability_is_refused(share):
    for data in (packed([share]), packed([0.25, share])):
        with pytest.raises(ValueError, match=r"no probability|of sum"):
            split.unpack_draws(data, 0, 256, SIZE)
    with pytest.raises(ValueError, match=r"no probability|of sum"):
        split.unpack_support(split.pack_support([(0, 0.5), (1, share)], SIZE), SIZE)


def test_what_no_distribution_has_is_refused():
    with pytest.raises(ValueError, match="of sum"):
        split.unpack_draws(packed([0.6, 0.6]), 0, 256, SIZE)
    assert split.unpack_draws(packed([0.6, 0.4]), 0, 256, SIZE)  # the control
    for shares in ((0.5, 0.4), (0.5, 0.6)):
        with pytest.raises(ValueError, match="of sum"):
            split.unpack_support(split.pack_support(list(enumerate(shares)), SIZE), SIZE)


def test_other_bytes_are_refused():
    """Too few, too many, of another count, of another vocabulary; and an id that is new twice."""
    pairs = drawn(1, 16)
    good = split.pack_draws(pairs, 0, 256, SIZE)
    for data in (good[:-1], good + b"\1", good[:4], good[:1], good[:1] + good):
        try:
            assert split.unpack_draws(data, 0, 256, SIZE) != pairs
        except ValueError:
            continue
    with pytest.raises(ValueError):
        split.unpack_draws(good + b"\0", 0, 256, SIZE)
    out, law = RangeEncoder(), prior(SIZE)
    write_draws(out, [(5, 0.5), (6, 0.25)], law)
    twice = RangeEncoder()
    twice.push(*law.share(5), law.total)
    for half in struct.unpack(">4H", struct.pack(">d", 0.5)):
        twice.uniform(half, 1 << 16)
    twice.push(1, 1, 2)
    twice.push(*law.share(5), law.total)
    with pytest.raises(ValueError, match="for the first time twice"):
        read_draws(RangeDecoder(twice.finish()[0] + bytes(40)), 2, law)


@pytest.mark.parametrize("read", [read_draws, read_support])
def test_any_bytes_give_ids_in_range_or_are_refused(read):
    rng = np.random.default_rng(3)
    for size in (1, 33, SIZE):
        for _ in range(300):
            source = RangeDecoder(rng.bytes(int(rng.integers(0, 60))))
            number = int(rng.integers(1, min(size, 16) + 1))
            try:
                pairs = read(source, number, prior(size))
            except ValueError:
                continue
            assert len(pairs) == number
            assert all(0 <= token < size and 0.0 < share <= 1.0 for token, share in pairs)


def test_fewer_pairs_come_at_once_where_more_of_them_stand():
    counts = [split.pairs_at_first(1000, rate) for rate in (0.0, 0.01, 0.03, 0.2, 0.5, 0.9, 1.0)]
    assert counts == sorted(counts, reverse=True) and counts[-1] == 2 and counts[0] > 100
    assert split.pairs_at_first(1 << 20, 0.2) < split.pairs_at_first(64, 0.2)


@pytest.mark.parametrize("pairs", [-1, 257])
def test_more_pairs_than_there_are_numbers_for_cannot_be(pairs):
    with pytest.raises(ValueError, match="pairs must be between 0 and 256"):
        Split(pairs=pairs).check(SIZE)
    Split(pairs=256).check(SIZE)


# --- The session ---


def test_they_are_told_only_where_both_ends_know_of_them():
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=FEATURES))
    pair.down(WELCOME)
    for pairs in (0, 8):
        begins = start(scheme=Split(pairs=pairs))
        with pytest.raises(LocalProtocolError, match="the feature recovery was not agreed"):
            pair.device.send(begins)
        with pytest.raises(RemoteProtocolError, match="the feature recovery was not agreed"):
            pair.bs.receive(frames.encode(begins))
    pair.up(start(scheme=Split()))


def test_log_probabilities_come_of_rows():
    """A device takes those of its own corrections from the row; pairs do not have them."""
    pair = Pair()
    both = [*FEATURES, frames.LOGPROBS]
    pair.up(msgspec.structs.replace(HELLO, features=both))
    pair.down(msgspec.structs.replace(WELCOME, features=both))
    asked = start(scheme=Split(pairs=8), logprobs=2)
    with pytest.raises(LocalProtocolError, match="no log-probabilities"):
        pair.device.send(asked)
    with pytest.raises(RemoteProtocolError, match="no log-probabilities"):
        pair.bs.receive(frames.encode(asked))
    pair.up(start(scheme=Split(pairs=0), logprobs=2))


def test_a_scheme_without_them_has_the_bytes_that_it_had():
    assert msgspec.msgpack.encode(Split()) == b"\x83\xa4type\xa5split\xa1k\x40\xa5total\xcd\x04\x00"


def owing(pairs: int = 8) -> Pair:
    """A device that owes a token, and cannot draw it by what has come."""
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=FEATURES))
    pair.down(msgspec.structs.replace(WELCOME, features=FEATURES))
    pair.up(start(scheme=Split(pairs=pairs)))
    pair.up(frames.Draft(1, 3, 3, b""))
    pair.down(frames.Verdict(1, 3, 1, None, False, 0, 0, b"pairs"))
    return pair


def test_more_is_asked_for_until_the_token_comes():
    pair = owing()
    for epoch, had in ((2, 4), (3, 8)):
        pair.up(frames.Draft(epoch, 4, 0, b"", had=had))
        assert pair.device.progress.owed and pair.bs.progress.asks
        assert pair.device.resume([1, 2, 3, 4]).owes
        pair.down(frames.Verdict(epoch, 4, 0, None, False, 0, 0, b"more"))
    pair.up(frames.Draft(4, 4, 2, b"", 50))
    assert pair.device.length == pair.bs.length == 5 and not pair.bs.progress.owed


ASKED = frames.Draft(2, 4, 0, b"", had=4)


@pytest.mark.parametrize(
    "frame",
    [
        frames.Draft(2, 4, 0, b"", had=9),
        frames.Draft(2, 4, 1, b"", had=4),
        frames.Draft(2, 4, 0, b"x", had=4),
        frames.Draft(2, 4, 0, b"", 50, had=4),
        frames.Draft(2, 4, 0, b"", waits=False, had=4),
        frames.Draft(2, 5, 0, b"", had=4),
        frames.Draft(2, 4, 0, b""),
    ],
)
def test_wrong_ways_to_ask(frame):
    pair = owing()
    with pytest.raises(RemoteProtocolError):
        pair.bs.receive(frames.encode(frame))
    with pytest.raises(LocalProtocolError):
        pair.device.send(frame)
    pair.up(ASKED)


def test_who_owes_nothing_or_is_sent_rows_asks_for_nothing():
    with pytest.raises(RemoteProtocolError, match="of at most 0"):
        owing(0).bs.receive(frames.encode(ASKED))
    pair = owing()
    pair.up(frames.Draft(2, 4, 2, b"", 50, waits=False))
    pair.down(frames.Verdict(2, 5, 2, None, False, 0, 0))
    with pytest.raises(RemoteProtocolError, match="no token is owed"):
        pair.bs.receive(frames.encode(frames.Draft(2, 7, 0, b"", had=4)))
    none = bytes.fromhex("02060204000000")  # which asks for what comes behind 0
    with pytest.raises(RemoteProtocolError, match="is 0, and would be left out"):
        owing().bs.receive(none)


@pytest.mark.parametrize(
    "answer",
    [
        frames.Verdict(2, 4, 0, None, False, 0, 0),
        frames.Verdict(2, 4, 0, 5, False, 0, 0),
        frames.Verdict(2, 4, 0, 5, False, 0, 0, b"row"),
        frames.Verdict(2, 4, 0, None, True, 0, 0, b"row"),
        frames.Verdict(2, 4, 1, None, False, 0, 0, b"row"),
        frames.Verdict(2, 4, 0, None, False, 0, 0, b"row", b"1"),
        frames.Verdict(2, 5, 0, None, False, 0, 0, b"row"),
    ],
)
def test_what_does_not_answer(answer):
    pair = owing()
    pair.up(ASKED)
    with pytest.raises(RemoteProtocolError):
        pair.device.receive(frames.encode(answer))
    with pytest.raises(LocalProtocolError):
        pair.bs.send(answer)
    pair.down(frames.Verdict(2, 4, 0, None, False, 0, 0, b"row"))


def test_the_end_may_cross_what_was_asked_for():
    pair = owing()
    pair.up(ASKED)
    answer = pair.bs.send(frames.Verdict(2, 4, 0, None, False, 0, 0, b"row"))
    finish = pair.device.send(frames.Finish(1, 4))
    assert pair.device.receive(answer) is None
    pair.bs.receive(finish)
    pair.done(4)


def test_shares_are_words_of_a_float64():
    """The reader's half of the golden bytes: most significant first."""
    out = RangeEncoder()
    coding._write_share(out, 0.1)
    source = RangeDecoder(out.finish()[0])
    words = [source.uniform(1 << 16) for _ in range(4)]
    assert struct.pack(">4H", *words) == struct.pack(">d", 0.1)
