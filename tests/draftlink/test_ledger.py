"""The ledger: nothing in it is below zero, whatever a kernel has counted."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from draftlink.link.ledger import OTHER, PACKET_BYTES, Ledger, packet_bytes, total, websocket_bytes
from tests.fake_models import fake_device, random_logits
from tests.fakes import FakeTarget, served

FRAMES = st.lists(st.tuples(st.sampled_from(["up", "down"]), st.integers(0, 40_000)))
TABLE = random_logits(1, 20)
COUNTED = st.integers(0, 1 << 20)


def ledger(frames) -> Ledger:
    made = Ledger()
    for direction, size in frames:
        made.record(direction, "Draft", size)
    return made


def other(found: Ledger, direction: str) -> int:
    return total(found.entries(), direction, OTHER).packet_bytes


@given(FRAMES, COUNTED, COUNTED, st.booleans())
def test_no_entry_is_below_zero(frames, up, down, tls):
    found = ledger(frames)
    found.crossed("up", up, tls=tls)
    found.crossed("down", down, tls=tls)
    for entry in found.entries():
        counts = (entry.frames, entry.payload_bits, entry.frame_bytes, entry.websocket_bytes)
        assert min(*counts, entry.packet_bytes) >= 0


@given(FRAMES, st.integers(0, 10), st.booleans())
def test_the_rest_is_what_the_frames_are_not(frames, acknowledged, tls):
    """Packets that only acknowledge are counted exactly, with TLS and without."""
    found = ledger(frames)
    for direction in ("up", "down"):
        sizes = [websocket_bytes(s, masked=direction == "up") for d, s in frames if d == direction]
        counted = sum(packet_bytes(size, tls=tls) for size in sizes)
        found.crossed(direction, counted + PACKET_BYTES * acknowledged, tls=tls)
        assert other(found, direction) == PACKET_BYTES * acknowledged


def test_messages_that_shared_a_packet():
    found = ledger([("up", 10)] * 7)
    found.crossed("up", 7 * websocket_bytes(10, masked=True) + PACKET_BYTES, tls=False)
    assert other(found, "up") == 0


@pytest.mark.parametrize("mode", ["stop-and-wait", "run-ahead", "stream"])
def test_over_a_real_connection_without_tls(mode):
    async def run(url: str):
        async with fake_device(url, TABLE) as device:
            generation = device.generate([1, 2, 3], max_tokens=200, mode=mode, seed=1)
            async for _ in generation:
                pass
            return generation.result.ledger

    with served(FakeTarget(TABLE)) as url:
        for entry in asyncio.run(run(url)):
            assert entry.packet_bytes >= 0, entry
