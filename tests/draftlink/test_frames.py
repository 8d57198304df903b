"""Frames survive the round trip, and nothing else parses as one."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftlink.coding.bits import BitReader, BitWriter, width_for
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import half, lattice
from draftlink.protocol import frames
from draftlink.schemes.topk import TopK

START = frames.Start(3, 0, [1, 2], Sampling(), TopK(), "draft", 9, [0], 7)
EXAMPLES = [
    frames.Hello(1, "abc", 8192, ["topk"], "draftlink"),
    frames.Welcome(1, "abc", 8192, 512, ["topk"], "target", "float32"),
    frames.Refused("tokenizer", "differs"),
    START,
    frames.Finish(3, 20),
    frames.Done(3, 20, 6),
    frames.Switch(3, "stream"),
    frames.Switched(3, 5, 20),
    frames.Resume(msgspec.structs.replace(START, base=2, ids=[]), 4, 9, b"d" * 16, False, 5),
    frames.Resumed(3, 2, True),
    frames.Replay(3, [1, 2, 5]),
    frames.Draft(300, 70_000, 5, b"\x01\x02"),
    frames.Verdict(300, 70_000, 4, 8191, False, 12, 3400),
    frames.Draft(300, 70_000, 5, b"\x01\x02", 8000),
    frames.Draft(300, 70_000, 5, b"\x01\x02", waits=False),
    frames.Verdict(1, 2, 4, None, True, 0, 0),
    frames.Verdict(1, 2, 3, None, False, 0, 0, b"row"),
    frames.Verdict(1, 2, 3, 8, False, 0, 0, b"", b"\x00\xff\x03\x04"),
    frames.Tokens(1, 2, (5, 6, 7), True),
    frames.Propose(300, 70_000, 70_100, 90, 5, b"\x01\x02"),
    frames.Propose(1, 2, 2, 0, 5, b"\x01\x02", goes_on=False),
    frames.Written(300, (5, 70_000, 7), 2, False, 12, 3400),
    frames.Written(1, (5, 6), 2, True, 0, 0, b"\x00\xff"),
]


@pytest.mark.parametrize("frame", EXAMPLES, ids=lambda f: type(f).__name__)
def test_round_trip(frame):
    data = frames.encode(frame)
    assert frames.decode(data) == frame
    # A payload is the scheme's to measure.
    if not isinstance(frame, frames.Draft | frames.Propose):
        for end in range(len(data)):
            with pytest.raises(ValueError):
                frames.decode(data[:end])
        with pytest.raises(ValueError):
            frames.decode(data + b"\x00")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_value_error(data):
    try:
        frame = frames.decode(data)
    except ValueError:
        return
    assert isinstance(frame, frames.Frame)


@given(st.lists(st.integers(0, 2**20 - 1), max_size=20), st.integers(1, 2**20))
def test_fixed_width_fields(values, count):
    values = [v % count for v in values]
    out = BitWriter()
    out.write(values, width_for(count))
    source = BitReader(out.bytes())
    assert source.read(len(values), width_for(count)).tolist() == values
    source.finish()


@given(st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 5000))
def test_lattice_rounding(seed, k, total):
    q = np.random.default_rng(seed).dirichlet(np.full(60, 0.1))
    row = lattice(q, k, total)
    assert row.counts.sum() == total and row.counts.min() >= 1
    assert len(row.ids) <= min(k, total)
    best = np.sort(q)[-min(k, 60) :].sum()
    assert np.abs(row.counts / total - q[row.ids] / best).max() <= 1 / total + 1e-12


def test_fp16_values_are_integers_of_their_unit():
    row = half(np.random.default_rng(0).dirichlet(np.full(5000, 0.01)), 3200)
    assert row.counts.min() >= 1 and row.counts.sum() == row.total


def test_values_nested_without_end_are_no_frame():
    """In a field that no type knows, and that is skipped, depth is a RecursionError."""
    deep = msgspec.Raw(b"\x91" * 100_000)
    data = b"\x01" + msgspec.msgpack.encode({"type": "finish", "unknown": deep})
    with pytest.raises(ValueError, match="not a control message"):
        frames.decode(data)


def test_a_reason_repeats_little_of_what_the_peer_sent():
    data = b"\x01" + msgspec.msgpack.encode({"type": "x" * 100_000})
    with pytest.raises(ValueError) as caught:
        frames.decode(data)
    assert len(str(caught.value)) < 300
