"""A bias and penalties cross only where both ends know of them, and only where they can be."""

from __future__ import annotations

import msgspec
import pytest

from draftlink.distribution.sampling import MOST_BIASED, Sampling
from draftlink.protocol import frames
from draftlink.protocol.session import LocalProtocolError, RemoteProtocolError, Session
from tests.draftlink.test_session import HELLO, VOCAB, WELCOME, Pair, start

FEATURES = [frames.PENALTIES]
STATED = [
    Sampling(presence_penalty=0.5),
    Sampling(frequency_penalty=0.0),  # stated, though it changes nothing
    Sampling(logit_bias=((3, -1.0), (VOCAB - 1, 2.0))),
]


@pytest.mark.parametrize("sampling", STATED)
def test_they_are_told_only_where_both_ends_know_of_them(sampling):
    """Who does not would leave them out in silence."""
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=FEATURES))
    pair.down(WELCOME)
    with pytest.raises(LocalProtocolError, match="the feature penalties was not agreed"):
        pair.device.send(start(sampling=sampling))
    with pytest.raises(RemoteProtocolError, match="the feature penalties was not agreed"):
        pair.bs.receive(frames.encode(start(sampling=sampling)))
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=FEATURES))
    pair.down(msgspec.structs.replace(WELCOME, features=FEATURES))
    pair.up(start(sampling=sampling))
    assert pair.bs.progress.start.sampling == sampling
    pair.bs.receive(pair.device.send(frames.Draft(1, 3, 4, b"")))
    pair.device.reopen()  # a resumed generation has those that it had
    again, bs = pair.device, Session("bs", VOCAB)
    bs.receive(again.send(msgspec.structs.replace(HELLO, features=FEATURES)))
    again.receive(bs.send(msgspec.structs.replace(WELCOME, features=FEATURES)))
    bs.receive(again.send(again.resume([1, 2, 3])))
    assert bs.resuming.start.sampling == sampling


@pytest.mark.parametrize(
    "pairs",
    [
        ((VOCAB, 1.0),),
        ((-1, 1.0),),
        ((2**63, 1.0),),
        tuple((i % VOCAB, 1.0) for i in range(MOST_BIASED + 1)),
    ],
)
def test_a_bias_that_cannot_be(pairs):
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=FEATURES))
    pair.down(msgspec.structs.replace(WELCOME, features=FEATURES))
    with pytest.raises(RemoteProtocolError, match="a bias of"):
        pair.bs.receive(frames.encode(start(sampling=Sampling(logit_bias=pairs))))


def test_a_frame_without_them_has_the_bytes_that_it_had():
    """Golden bytes of a sampling, from before there were any."""
    plain = msgspec.msgpack.encode(Sampling(0.7))
    assert plain == (
        b"\x85\xabtemperature\xcb?\xe6ffffff\xa5top_k\x00\xa5top_p\xcb?\xf0\x00\x00\x00\x00\x00\x00"
        b"\xa5min_p\xcb\x00\x00\x00\x00\x00\x00\x00\x00"
        b"\xb2repetition_penalty\xcb?\xf0\x00\x00\x00\x00\x00\x00"
    )
