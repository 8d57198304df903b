import contextlib
import math
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftlink.coding.rangecoder import MAX_TOTAL, RangeDecoder, RangeEncoder


@st.composite
def symbols(draw):
    """(start, frequency, total), frequencies from 1 to all of it."""
    total = draw(st.sampled_from((1, 2, 3, 256, 8192, 151_936, MAX_TOTAL - 3, MAX_TOTAL)))
    frequency = draw(st.integers(1, total))
    return draw(st.integers(0, total - frequency)), frequency, total


def write(message):
    out = RangeEncoder()
    for symbol in message:
        out.push(*symbol)
    return out.finish()


def read(payload, message):
    """Read as if each symbol were as in ``message``; False where another one stands."""
    source = RangeDecoder(payload)
    for start, frequency, total in message:
        if not start <= source.peek(total) < start + frequency:
            return False
        source.take(start, frequency)
    source.finish()
    return True


@given(st.lists(symbols(), max_size=60))
def test_round_trip_within_a_bit_of_the_information(message):
    payload, bits = write(message)
    assert read(payload, message)
    assert len(payload) == (bits + 7) // 8
    information = sum(math.log2(total / frequency) for _, frequency, total in message)
    # Dividing the width loses at most 2**-12 of it for each symbol.
    assert bits < information + 1 + len(message) * 2**-11


@given(st.lists(symbols(), max_size=20), st.binary(min_size=1, max_size=3))
def test_a_message_has_one_byte_form(message, tail):
    payload, _ = write(message)
    others = {payload + tail, payload[:-1], payload[:-1] + tail} - {payload}
    for other in others:
        with contextlib.suppress(ValueError):
            assert not read(other, message)


def test_carries_run_through_settled_words():
    # Just below a half, then over it: all words of the prefix turn.
    message = [(MAX_TOTAL // 2 - 1, 2, MAX_TOTAL)] + [(MAX_TOTAL // 2 - 1, 2, MAX_TOTAL)] * 8
    assert read(write(message)[0], message)
    message[-1] = (MAX_TOTAL - 1, 1, MAX_TOTAL)
    assert read(write(message)[0], message)


@given(st.binary(max_size=12))
def test_any_bytes_decode_to_their_own_message_or_raise(payload):
    frequencies = (1, 5, 2, 900, 92)
    edges = (0, *accumulate(frequencies))
    source = RangeDecoder(payload)
    message = []
    try:
        for _ in range(20):
            value = source.peek(edges[-1])
            i = max(i for i in range(len(frequencies)) if edges[i] <= value)
            source.take(edges[i], frequencies[i])
            message.append((edges[i], frequencies[i], edges[-1]))
        source.finish()
    except ValueError:
        return
    assert write(message)[0] == payload


def test_golden_bytes():
    payload, bits = write([(5, 3, 10), (0, 1, 3), (8191, 1, 8192), (77, 1, 151_936)])
    assert (payload.hex(), bits) == ("9998cce780", 33)


def test_nothing_costs_nothing():
    assert write([]) == (b"", 0)
    assert write([(0, 7, 7)] * 50) == (b"", 0)
    with pytest.raises(ValueError, match="shortest"):
        read(b"\0", [])
    with pytest.raises(ValueError, match="left over"):
        read(bytes(8), [])
