"""Whether the base station behind a new connection is the one of before."""

from __future__ import annotations

from msgspec.structs import replace

from device_runtime.transport.greeting import differs
from draftlink.protocol.frames import Welcome

BEFORE = Welcome(6, "hash", 100, 1000, ["coupled"], "model", "float32", b"ticket")


def test_a_ticket_and_the_last_steps_times_may_change_and_nothing_else():
    assert not differs(BEFORE, replace(BEFORE, ticket=b"another", step_us=20_000, row_us=300))
    for change in (
        {"model": "other"},
        {"dtype": "bfloat16"},
        {"context": 500},
        {"features": ["x"]},
    ):
        assert differs(BEFORE, replace(BEFORE, **change))
