"""Every way a generation can stop, over real sockets: no token after it, and equal caches."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from device_runtime.device import Coupled, Device, LinkError, Sampling, Split, TopK
from tests.fake_models import fake_device
from tests.fakes import FakeTarget, served

SIZE = 8
GREEDY = Sampling(temperature=0.0)


def cycle(*missing: int) -> np.ndarray:
    """After token i comes i + 1: 'abcdefgh'. The draft is wrong after the ``missing`` ones."""
    table = np.full((SIZE, SIZE), -30.0)
    for i in range(SIZE):
        table[i, (i + (2 if i in missing else 1)) % SIZE] = 30.0
    return table


# The tables are so steep that at temperature 1, too, the text is certain: every scheme is compared.
AT_ONE = Sampling(temperature=1.0)
MODES = pytest.mark.parametrize(
    "options",
    [
        {"mode": "stop-and-wait", "sampling": GREEDY},
        {"mode": "stop-and-wait", "sampling": AT_ONE, "scheme": TopK(4, 16)},
        {"mode": "stop-and-wait", "sampling": AT_ONE, "scheme": Split(4, 16)},
        {"mode": "stop-and-wait", "sampling": AT_ONE, "scheme": Coupled()},
        {"mode": "stream", "sampling": AT_ONE, "scheme": Coupled()},
        {"mode": "stream", "sampling": GREEDY},
    ],
    ids=["greedy", "topk", "split", "coupled", "stream-coupled", "stream-greedy"],
)
DRAFTS = pytest.mark.parametrize("missing", [(), (2,), tuple(range(SIZE))])


def agree(device: Device, target: FakeTarget) -> None:
    """Both caches hold a prefix of the device's history and nothing else, and no hole."""
    for cache in (device.model.cache, target.slots[-1].cache):  # type: ignore[attr-defined]
        assert cache == device.history[: len(cache)]
        assert len(cache) <= len(device.history)
    # What the device corrected itself is sent with what comes next.
    owed = len(device.history) - device.client.session.length
    assert owed == 0 or (
        owed == 1 and device.client.session.progress.start.scheme.corrects == "device"
    )


async def collect(generation, count: int | None = None) -> list[str]:
    texts = []
    async for token in generation:
        texts.append(token.text)
        if count is not None and len(texts) == count:
            generation.cancel()
    return texts


def play(target: FakeTarget, missing: tuple[int, ...], scenario, **device_options) -> None:
    async def run(url: str) -> None:
        async with fake_device(url, cycle(*missing), **device_options) as device:
            await scenario(device)

    with served(target) as url:
        asyncio.run(run(url))


@MODES
@DRAFTS
@pytest.mark.parametrize("limit", range(1, 9))
@pytest.mark.parametrize("gamma", [3])
def test_max_tokens(options, missing, limit, gamma):
    target = FakeTarget(cycle())

    async def scenario(device):
        generation = device.generate("a", max_tokens=limit, **options, gamma=gamma)
        texts = await collect(generation)
        assert "".join(texts) == "bcdefgha"[:limit] == generation.result.text
        assert generation.result.stop_reason == "length"
        assert len(generation.result.tokens) == limit
        agree(device, target)

    play(target, missing, scenario)


@MODES
@DRAFTS
@pytest.mark.parametrize("eos", [2, 3, 4, 5])  # gamma 3: first, inside, last of a block, bonus
def test_eos(options, missing, eos):
    target = FakeTarget(cycle())

    async def scenario(device):
        generation = device.generate("a", max_tokens=50, **options, gamma=3)
        await collect(generation)
        assert generation.result.tokens == list(range(1, eos + 1))
        assert generation.result.text == "bcdefgh"[: eos - 1]  # an EOS has no text
        assert generation.result.stop_reason == "eos"
        agree(device, target)
        # The next turn goes on on the same slot.
        generation = device.generate("a", max_tokens=1, **options, append=True)
        assert await collect(generation) == ["b"]
        assert len(target.slots) == 1
        agree(device, target)

    play(target, missing, scenario, eos_ids=(eos,))


@MODES
@DRAFTS
def test_stop_string(options, missing):
    target = FakeTarget(cycle())

    async def scenario(device):
        generation = device.generate("a", max_tokens=50, **options, gamma=5, stop=("de",))
        assert "".join(await collect(generation)) == "bc"
        assert generation.result.text == "bc"
        assert generation.result.tokens == [1, 2, 3, 4]
        assert generation.result.stop_reason == "stop"
        agree(device, target)
        generation = device.generate("a", max_tokens=3, **options, append=True)
        assert "".join(await collect(generation)) == "bcd"
        agree(device, target)

    play(target, missing, scenario)


@pytest.mark.parametrize("ends", ["stop", "cancel"])
@pytest.mark.parametrize("missing", [(), (2,), (3,), tuple(range(SIZE))])
@pytest.mark.parametrize("mode", ["stop-and-wait", "run-ahead", "auto"])
@pytest.mark.parametrize("scheme", [TopK(4, 16), Split(4, 16)], ids=["topk", "split"])
def test_tokens_behind_the_end_are_not_counted(scheme, mode, missing, ends):
    """Neither as accepted nor as rejected, though they had been judged."""

    async def scenario(device):
        generation = device.generate(
            "a",
            max_tokens=50,
            mode=mode,
            gamma=6,
            scheme=scheme,
            stop=("de",) if ends == "stop" else (),
        )
        kinds = []
        async for token in generation:
            kinds.append(token.kind)
            if ends == "cancel" and len(kinds) == 3:
                generation.cancel()
        result = generation.result
        assert result.stop_reason == ends and len(kinds) == len(result.tokens)
        assert result.accepted == kinds.count("draft") == sum(result.accept_histogram)
        judged = kinds.count("draft") + kinds.count("correction")
        assert result.alpha == (kinds.count("draft") / judged if judged else 0.0)
        assert result.discarded == result.drafted - judged
        assert not result.accept_histogram or result.accept_histogram[-1]

    play(FakeTarget(cycle()), missing, scenario)


@MODES
@DRAFTS
def test_cancel(options, missing):
    target = FakeTarget(cycle())

    async def scenario(device):
        generation = device.generate("a", max_tokens=50, **options, gamma=4)
        assert await collect(generation, 2) == ["b", "c"]
        assert generation.result.tokens == [1, 2]
        assert generation.result.stop_reason == "cancel"
        agree(device, target)

    play(target, missing, scenario)


@MODES
def test_what_might_have_begun_a_stop_is_text_where_it_ends(options):
    """The last token brings it; where none is the last, because of a cancel, the text has it."""

    async def scenario(device):
        for limit, count, pieces in ((3, None, ["b", "", "cd"]), (50, 2, ["b", ""])):
            generation = device.generate("a", max_tokens=limit, **options, gamma=4, stop="cdf")
            assert await collect(generation, count) == pieces
            assert generation.text == generation.result.text == "bcd"[: count or limit]
            assert generation.result.stop_reason == ("cancel" if count else "length")

    play(FakeTarget(cycle()), (), scenario)


@MODES
def test_an_eos_brings_what_was_held_back(options):
    async def scenario(device):
        generation = device.generate("a", max_tokens=50, **options, gamma=4, stop=["cdf"])
        assert await collect(generation) == ["b", "", "", "cd"]
        assert generation.result.text == "bcd" and generation.result.stop_reason == "eos"

    play(FakeTarget(cycle()), (), scenario, eos_ids=(4,))


@MODES
def test_a_stop_given_as_a_text_is_one_stop(options):
    async def scenario(device):
        for stop, text in (("ed", "bcdefg"), ("de", "bc"), (("e", "cd"), "b")):
            generation = device.generate("a", max_tokens=6, **options, gamma=4, stop=stop)
            assert "".join(await collect(generation)) == text == generation.result.text

    play(FakeTarget(cycle()), (), scenario)


@MODES
def test_an_abandoned_iterator_does_not_spoil_the_next_generation(options):
    target = FakeTarget(cycle())

    async def scenario(device):
        iterator = aiter(device.generate("a", max_tokens=500, **options))
        assert (await anext(iterator)).text == "b"
        await iterator.aclose()
        generation = device.generate("c", max_tokens=3, **options)
        assert "".join(await collect(generation)) == "def"
        agree(device, target)

    play(target, (), scenario)


def test_a_full_draft_context_falls_back_to_stream_and_says_so():
    target = FakeTarget(cycle())

    async def scenario(device):
        generation = device.generate(
            "a", max_tokens=30, sampling=GREEDY, mode="stop-and-wait", gamma=4
        )
        text = "".join(await collect(generation))
        assert text == ("bcdefgha" * 4)[:30]
        assert generation.result.mode == "stop-and-wait, then stream"
        agree(device, target)

    play(target, (), scenario, context=10)


def test_the_target_context_ends_a_generation():
    target = FakeTarget(cycle(), context=6)

    async def scenario(device):
        for mode in ("stop-and-wait", "stream"):
            generation = device.generate("a", max_tokens=50, sampling=GREEDY, mode=mode, gamma=4)
            assert "".join(await collect(generation)) == "bcdef"
        with pytest.raises(ValueError, match="the target's context is 6"):
            device.generate("abcdef")

    play(target, (), scenario)


def test_bad_requests_are_refused_before_anything_is_sent():
    async def scenario(device):
        for options, words in [
            ({"prompt": ""}, "prompt is empty"),
            ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
            ({"prompt": "a", "gamma": 0}, "gamma"),
            ({"prompt": "a", "stop": ""}, "stop string must be a text of at least one character"),
            ({"prompt": "a", "stop": ("b", "")}, "stop string"),
            ({"prompt": "a", "sampling": Sampling(temperature=float("nan"))}, "temperature"),
        ]:
            with pytest.raises(ValueError, match=words):
                device.generate(**options)

    play(FakeTarget(cycle()), (), scenario)


def test_a_different_tokenizer_is_refused_with_what_differs():
    target = FakeTarget(cycle())
    target.tokenizer_hash = "another"

    async def run(url: str) -> None:
        with pytest.raises(LinkError, match=r"tokenizer \(fake, 8 logits\) is not that of fake"):
            async with fake_device(url, cycle()):
                pass

    with served(target) as url:
        asyncio.run(run(url))


def test_a_base_station_that_dies_in_mid_text_leaves_the_text_so_far():
    async def run() -> None:
        with served(FakeTarget(cycle())) as url:
            device = fake_device(url, cycle())
            device.patience_s = 0.2
            await device.open()
            generation = device.generate(
                "a", max_tokens=1000, sampling=GREEDY, mode="stop-and-wait", gamma=1, stop="bx"
            )
            iterator = aiter(generation)
            await anext(iterator)
            assert generation.text == ""  # it may begin a stop
        with pytest.raises(LinkError, match="has gone"):
            async for _ in iterator:
                pass
        assert generation.text.startswith("b")
        assert device.history[1:] == generation.tokens

    asyncio.run(run())


def test_nobody_at_the_address():
    async def run() -> None:
        with pytest.raises(LinkError, match=r"no base station at ws://127\.0\.0\.1:9"):
            await fake_device("ws://127.0.0.1:9", cycle()).open()

    asyncio.run(run())
