"""What a device does with a prompt while the base station already writes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from device_runtime.drafting.actions import Follow, Switch
from device_runtime.drafting.controller import Controller
from device_runtime.drafting.counts import Counts, Limits
from device_runtime.drafting.drafter import Proposal
from device_runtime.drafting.estimators import Estimates
from device_runtime.drafting.stream import Stream
from device_runtime.writers.streaming import Streaming
from draftlink.distribution.sparse import Drafted

BEGINS = 12


def reading(here: Estimates) -> Stream:
    """A stream that has not begun, over a near link to a base station that said what it takes."""
    here.rtt.add(0.005)
    here.told_step_s = 0.045
    limits = Limits(BEGINS, 112, 2048, 64, 256, foretells=False, corrects=False, told=True)
    return Stream(Controller(here, foretells=True), Counts(limits, BEGINS), 0.0, auto=True)


def test_the_last_token_of_a_prompt_is_fed_alone_where_no_forward_was_timed():
    """So it drafts as soon as it has read the prompt, and not a token of the target's later."""
    here = Estimates()
    stream = reading(here)
    assert stream.due(0.0, 0) == [Follow(BEGINS - 1, BEGINS)]
    assert stream.followed(0.3) is None and not len(here.draft)  # much was fed: no forward's time
    assert stream.due(0.3, BEGINS - 1) == [Follow(BEGINS, BEGINS)]
    assert stream.followed(0.31) == Switch("draft")
    assert here.draft.typical == pytest.approx(0.01)


def test_where_one_was_it_is_fed_at_once():
    here = Estimates()
    here.draft.took(0.01, beside=False)
    stream = reading(here)
    assert stream.due(0.0, 0) == [Follow(BEGINS, BEGINS)]
    assert stream.followed(0.3) == Switch("draft")


@pytest.mark.parametrize(
    ("near", "alpha", "looks"), [(True, 0.7, 9), (True, 0.3, 2), (False, 0.3, 65)]
)
def test_at_an_address_of_this_machine_the_draft_looks_rarely(near, alpha, looks):
    """Each look may slow the stream. At 64 tokens at once where there is hardly any hope."""
    here = Estimates()
    here.rtt.add(0.06)
    here.draft.took(0.01, beside=True)
    for _ in range(16):
        here.acceptance.told(alpha)
    here.target.add(0.045)
    limits = Limits(BEGINS, 112, 2048, 64, 256, foretells=False, corrects=False, told=True)
    controller = Controller(here, foretells=True)
    assert controller.begin(near=near) == "stream"
    counts = Counts(limits, BEGINS)
    stream, cached, seen = Stream(controller, counts, 0.0, auto=True), 0, 0
    for number in range(65):
        now = 0.045 * number
        for action in stream.due(now, cached):
            assert isinstance(action, Follow)
            cached, seen = action.until, seen + 1
            assert stream.followed(now + 0.01) is None
        counts.length += 1
        assert stream.streamed(now + 0.045, 1, ended=False) is None
    assert seen == looks


@pytest.mark.parametrize("foretells", [True, False])
@pytest.mark.parametrize("fed", [BEGINS - 1, BEGINS])
def test_no_token_of_the_prompt_is_taken_for_the_targets(foretells, fed):
    """What the draft says behind all but the last is of the prompt's own last token."""
    told: list[Any] = []

    async def done() -> tuple[Proposal]:
        return (Proposal(Drafted(7), 0.5),)

    window = SimpleNamespace(
        followed=lambda now, waited_s: None,
        foretold=lambda chance, accepted: told.append(accepted),
        told=told.append,
    )
    writing: Any = SimpleNamespace(
        done=done, now=lambda: 0.0, waited_s=0.0, window=window, history=[7] * (BEGINS + 1),
        start=SimpleNamespace(begins=BEGINS, streams_surprisals=True),
        drafter=SimpleNamespace(foretells=foretells, row=lambda: [0.5] * 8),
        device=SimpleNamespace(model=SimpleNamespace(length=fed)),
    )  # fmt: skip
    streaming = Streaming(writing)
    streaming._surprisals = {BEGINS - 1: 8, BEGINS: 8}  # of the first nothing would be said
    asyncio.run(streaming._collect())
    assert len(told) == (fed == BEGINS)
