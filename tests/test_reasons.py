"""Where the base station wrote all of a text the result says why, by what the device knew."""

from __future__ import annotations

import pytest

from bench.virtual.loop import run
from bench.virtual.world import World
from device_runtime.device import Coupled, TopK
from draftlink.link.shaping import LinkProfile, make_link
from tests.fake_models import FakeModel, letters, random_logits
from tests.fakes import FakeTarget

SIZE = 12
TABLE = random_logits(7, SIZE, 1.5)


def reasons(draft_s: float = 0.002, *, context: int = 2048, before: str = "", **options):
    """Of a text, ``before`` which there was another, in that mode, over the same connection."""

    async def main():
        model = FakeModel(TABLE, rows=False, context=context)
        world = World(model, FakeTarget(TABLE), letters(SIZE), context, draft_s, 0.03)
        async with world.device(make_link(LinkProfile(1e8, 1e8, 0.01), seed=1)) as device:
            given = {"scheme": Coupled(), "seed": 1, "max_tokens": 40} | options
            for more in [{"mode": before, "max_tokens": 40}] * bool(before) + [{}]:
                generation = device.generate([1, 2, 3], **given | more)
                async for _ in generation:
                    pass
            return generation.result.alone, generation.result.drafted

    return run(main())


def test_nothing_is_said_where_the_device_drafted():
    for options in ({}, {"mode": "run-ahead"}, {"scheme": TopK(4, 16), "mode": "stop-and-wait"}):
        alone, drafted = reasons(**options)
        assert alone is None and drafted > 0


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "stream"}, "the mode is stream"),
        ({"context": 3}, "the prompt of 3 tokens fills the draft's context of 3"),
        (
            {"draft_s": 9.0},
            "the text ended before the draft, behind a prompt of 3 tokens, had begun",
        ),
    ],
)
def test_why_the_base_station_wrote_alone(options, says):
    for scheme in (Coupled(), TopK(4, 16)):
        assert reasons(**options, scheme=scheme) == (says, 0)


def test_what_would_not_have_paid_is_said_in_numbers():
    """A draft that takes longer than the target's own step: once that is known it only follows."""
    alone, drafted = reasons(0.1, before="stop-and-wait", max_tokens=2)
    says = "a token of the draft takes 100.0 ms, a step of the base station 30.0 ms"
    assert drafted == 0 and alone.startswith(f"drafting would not have paid: {says}")
