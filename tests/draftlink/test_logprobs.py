"""Log-probabilities cross only where they were agreed on and asked for, and only as they can be."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from draftlink.protocol import frames, logprobs, varints
from draftlink.protocol.frames import Draft, Propose, Tokens, Verdict, Written
from draftlink.protocol.logprobs import LEAST, MOST, UNIT, Logprobs
from draftlink.protocol.session import LocalProtocolError, RemoteProtocolError, Session
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.split import Split, pack_row
from tests.draftlink.test_session import HELLO, VOCAB, WELCOME, Pair, start

FEATURES = [frames.LOGPROBS, frames.BOTH]


def greeted() -> Pair:
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=FEATURES, schemes=["topk", "split", "coupled"]))
    pair.down(
        msgspec.structs.replace(WELCOME, features=FEATURES, schemes=["topk", "split", "coupled"])
    )
    return pair


def block(tokens: int, count: int = 2) -> bytes:
    """What may be said of so many tokens."""
    top = tuple((7 + i, -0.5 - i) for i in range(count))
    return b"".join(logprobs.encode([Logprobs(-1.25, top)] * tokens))


def begun(mode: frames.Phase, **changes: object) -> Pair:
    """A pair in mid-text, where one token may be told of next."""
    pair = greeted()
    pair.up(start(mode, logprobs=2, **changes))
    if mode == "draft":
        pair.up(Draft(1, 3, 4, b""))
    elif mode == "both":
        pair.up(Propose(1, 3, 3, 0, 2, b""))
    return pair


def told(mode: frames.Phase, data: bytes) -> frames.Frame:
    """A frame with two tokens, and what it says of them."""
    if mode == "draft":
        return Verdict(1, 3, 1, 50, False, 0, 0, logprobs=data)
    if mode == "stream":
        return Tokens(1, 3, (5, 6), False, data)
    return Written(3, (5, 6), 1, False, 0, 0, logprobs=data)


MODES = [("draft", {}), ("stream", {}), ("both", {"scheme": Coupled(), "seed": 1})]


def numbers(*values: int) -> bytes:
    return varints.varints(*values)


GOOD = [20_480, 7, 8192, 8, 16_384] * 2
WRONG = {
    "nothing": b"",
    "of one token": block(1),
    "of three": block(3),
    "of fewer ids": block(2, 1),
    "of more ids": block(2, 3),
    "an id out of range": numbers(*GOOD[:6], VOCAB, *GOOD[7:]),
    "an id twice": numbers(*GOOD[:3], 7, *GOOD[4:]),
    "less than can be": numbers(0, 7, LEAST, 8, 1, *GOOD[5:]),
    "a number that is none": b"\xff" * 5 + block(2)[3:],
    "a padded number": b"\x80\x00" + block(2)[3:],
    "no end": block(2)[:-1] + b"\x80",
    "float32, not a number": np.full(10, np.nan, "<f4").tobytes(),
}


@pytest.mark.parametrize(("mode", "changes"), MODES)
@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_neither_sent_nor_taken(mode, changes, data):
    pair = begun(mode, **changes)
    with pytest.raises(RemoteProtocolError, match="log-probabilities of 2 tokens that cannot be"):
        pair.device.receive(frames.encode(told(mode, data)))
    with pytest.raises(LocalProtocolError, match="log-probabilities of 2 tokens that cannot be"):
        pair.bs.send(told(mode, data))
    assert numbers(*GOOD) == block(2)
    pair.down(told(mode, block(2)))


@pytest.mark.parametrize(("mode", "changes"), MODES)
def test_nobody_is_told_who_did_not_ask(mode, changes):
    pair = begun(mode, **changes)
    for end in (pair.device, pair.bs):
        plain = msgspec.structs.replace(end.progress.start, logprobs=msgspec.UNSET)
        end.progress.start = plain
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        pair.device.receive(frames.encode(told(mode, block(2))))
    pair.down(told(mode, b""))


def test_they_are_asked_for_only_where_both_ends_know_of_them():
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=FEATURES))
    pair.down(WELCOME)
    with pytest.raises(LocalProtocolError, match="the feature logprobs was not agreed"):
        pair.device.send(start(logprobs=0))
    with pytest.raises(RemoteProtocolError, match="the feature logprobs was not agreed"):
        pair.bs.receive(frames.encode(start(logprobs=0)))
    for count in (-1, MOST + 1, 2**63):
        with pytest.raises(RemoteProtocolError, match=f"of {count} ids, where {MOST} are"):
            greeted().bs.receive(frames.encode(start(logprobs=count)))


def test_a_row_that_the_device_corrects_by_has_none_beside_it():
    pair = begun("draft", scheme=Split(6, 16))
    row = pack_row(np.zeros(VOCAB, np.float32))
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        pair.device.receive(
            frames.encode(Verdict(1, 3, 0, None, False, 0, 0, row, logprobs=block(1)))
        )
    pair.down(Verdict(1, 3, 0, None, False, 0, 0, row))
    assert pair.device.progress.owed


def test_a_resumed_generation_has_those_that_it_had():
    pair = begun("draft")
    pair.device.reopen()
    bs = Session("bs", VOCAB)
    bs.receive(pair.device.send(msgspec.structs.replace(HELLO, features=FEATURES)))
    pair.device.receive(bs.send(msgspec.structs.replace(WELCOME, features=FEATURES)))
    bs.receive(pair.device.send(pair.device.resume([1, 2, 3])))
    assert bs.resuming.start.logprobs == 2


def test_a_start_without_them_has_the_bytes_that_it_had():
    assert b"logprobs" not in frames.encode(start())
    assert frames.decode(frames.encode(start())).tells is None


@pytest.mark.parametrize("seed", range(20))
def test_there_and_back(seed):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(1, 40))
    logits = rng.normal(0.0, 10.0 ** rng.integers(-2, 4), size).astype(rng.choice(["f4", "f8"]))
    logits[rng.random(size) < 0.2] = -np.inf
    logits[rng.integers(size)] = 0.0
    count, token = int(rng.integers(0, MOST + 1)), int(np.flatnonzero(np.isfinite(logits))[0])
    own = logprobs.of(logits, token, count)
    law = logits.astype(np.float64) - np.logaddexp.reduce(logits.astype(np.float64))
    assert own.own == pytest.approx(law[token], abs=1e-9)
    assert [i for i, _ in own.top] == np.argsort(-law, kind="stable")[:count].tolist()
    (back,) = logprobs.decode(b"".join(logprobs.encode([own])), 1, count, size)
    assert [i for i, _ in back.top] == [i for i, _ in own.top]
    for value, true in [(back.own, own.own), *zip(values(back), values(own), strict=True)]:
        assert value == -LEAST * UNIT if true == -math.inf else abs(value - true) <= UNIT / 2


def values(told: Logprobs) -> list[float]:
    return [value for _, value in told.top]


@pytest.mark.parametrize("seed", range(50))
def test_integers_at_once_are_those_one_by_one(seed):
    """True ones, and bytes by chance, which both readings refuse or take for the same."""
    rng = np.random.default_rng(seed)
    ints = (2.0 ** rng.uniform(0, 32, 30)).astype(np.int64).tolist()
    assert varints.read(varints.varints(*ints)).tolist() == ints
    data = bytearray(varints.varints(*ints[:4]))
    for _ in range(int(rng.integers(3))):
        data[rng.integers(len(data))] = rng.choice([0, 0x80, 0xFF, 0x0F, 0x1F])
    source, found = varints.Reader(bytes(data)), []
    try:
        while True:
            try:
                source.finish()
                break
            except ValueError:
                found.append(source.varint())
    except ValueError:
        with pytest.raises(ValueError):
            varints.read(bytes(data))
    else:
        assert varints.read(bytes(data)).tolist() == found
    assert varints.read(b"").tolist() == []
