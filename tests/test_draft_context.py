"""A draft whose context is full, or was never long enough: the target goes on alone."""

from __future__ import annotations

import pytest

from bench.virtual.loop import run
from draftlink.link.shaping import LinkProfile, make_link
from tests.fragile import outages
from tests.test_modes import COUPLED, GREEDY, LTE, MODES, SAMPLED, SIZE, world

CONTEXT = 24
NEAR = LinkProfile(1e9, 1e9, 0.001)
FAR = LinkProfile(1e5, 1e6, 0.3, jitter_s=0.05)
SCHEMES = {"greedy": GREEDY, "coupled": COUPLED, "topk": SAMPLED[0], "split": SAMPLED[1]}


def turns(prompts, link=LTE, context=CONTEXT, spans=(), draft_s=0.01, noise=0.7, **options):
    """The result of each turn, behind those before."""

    async def main():
        here = world(noise, draft_s, context=context)
        async with here.device(make_link(link, seed=1)) as device:
            outages(here, device, spans)
            results = []
            for number, length in enumerate(prompts):
                generation = device.generate(
                    [i % SIZE for i in range(length)], append=number > 0, **options
                )
                async for _ in generation:
                    pass
                results.append(generation.result)
                assert here.draft.cache == device.history[: here.draft.length]
            return results

    return run(main())


@pytest.mark.parametrize("offline", [None, 0.05], ids=["", "offline"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", SCHEMES)
def test_the_target_goes_on_alone(name, mode, offline):
    """Within a turn, from the next turn on, and where the prompt alone is too long."""
    given = {"mode": mode, "max_tokens": 30, **SCHEMES[name]}
    for prompts in ([3], [3, 2], *([length] for length in range(CONTEXT - 2, CONTEXT + 3))):
        results = turns(prompts, spans=[(0.6, 1.4)], offline_after_s=offline, **given)
        assert [len(result.tokens) for result in results] == [30] * len(prompts)
        drafted = sum(result.accepted for result in results)
        assert drafted <= max(CONTEXT - prompts[0], 0)
        if prompts[0] >= CONTEXT or len(prompts) > 1:
            assert results[-1].mode.endswith("stream")
        if name in ("greedy", "coupled"):
            plain = turns(prompts, context=2048, **given | {"mode": "stream"})
            assert [r.tokens for r in results] == [r.tokens for r in plain]


@pytest.mark.parametrize("max_tokens", [64, 400])
def test_auto_drafts_as_long_as_there_is_room(max_tokens):
    """However much the caller allows: a text may end long before."""
    link = LinkProfile(5e6, 5e6, 0.03)
    (stream,) = turns([3], link, mode="stream", max_tokens=max_tokens, **COUPLED)
    (auto,) = turns([3], link, 60, mode="auto", noise=0.2, max_tokens=max_tokens, **COUPLED)
    assert auto.tokens == stream.tokens
    assert auto.mode == "both, then stream" and auto.accepted > 20


def test_auto_of_one_writer_drafts_as_long_as_there_is_room(one_writer):
    link = LinkProfile(5e6, 5e6, 0.03)
    for max_tokens in (64, 400):
        (auto,) = turns([3], link, 60, mode="auto", noise=0.2, max_tokens=max_tokens, **COUPLED)
        assert auto.mode == "stream, then run-ahead" and auto.accepted > 20


@pytest.mark.parametrize("name", ["topk", "split"])
def test_where_it_fills_up_does_not_change_the_text(name):
    """The last token that fits goes with a block that waits, whatever was sent before it."""
    for seed in range(8):
        given = SCHEMES[name] | {"mode": "run-ahead", "max_tokens": 40, "seed": seed}
        texts = [
            turns([3], link, draft_s=draft_s, noise=0.2, **given)[0].tokens
            for link, draft_s in ((NEAR, 0.06), (LTE, 0.01), (FAR, 0.002))
        ]
        assert texts[0] == texts[1] == texts[2]
