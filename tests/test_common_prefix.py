"""A turn feeds what is new, at both ends, though its prompt is the whole conversation as text."""

from __future__ import annotations

import asyncio
from functools import partial

import numpy as np
import pytest

import tinypair
from bench.virtual.loop import run
from bench.virtual.world import World
from bs_runtime.model.target import Target
from device_runtime import facts, request
from device_runtime.device import Coupled, Device, Sampling, Split, TopK
from device_runtime.model.bundle import Bundle
from draftlink.distribution import sampling
from draftlink.link.shaping import LinkProfile, make_link
from export.bundle import export_bundle
from tests import test_law
from tests.fake_models import FakeModel, fake_device, letters, random_logits
from tests.fakes import FakeTarget, served
from tests.fragile import connector
from tests.oracle import Oracle, install

SCHEMES = {"topk": TopK(16, 100), "split": Split(16, 100), "coupled": Coupled()}
TURNS, WORDS = 10, 32


class Fed:
    """Which positions were fed, of a draft model or an engine."""

    def __init__(self) -> None:
        self.spans: list[tuple[int, int]] = []

    def draft(self, model) -> None:
        forward = model.forward

        def counted(ids):
            self.spans.append((model.length, model.length + len(ids)))
            return forward(ids)

        model.forward = counted

    def engine(self, target) -> None:
        forward = target.forward

        def counted(feeds):
            self.spans += [(f.slot.length, f.slot.length + len(f.ids)) for f in feeds]
            return forward(feeds)

        target.forward = counted

    def before(self, end: int) -> int:
        """Tokens fed at positions before ``end`` since this was asked last."""
        spans, self.spans = self.spans, []
        return sum(max(0, min(end, stop) - begin) for begin, stop in spans)


def encodes_afresh(patch: pytest.MonkeyPatch) -> None:
    """The control: a prompt's text says nothing of the ids that were written."""

    def afresh(text, history, tokenizer, detokenizer, welcome):
        return facts.prompt_ids(text, tokenizer, welcome, first=True)

    patch.setattr(request, "prompt_ids", afresh)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    return export_bundle(tinypair.DRAFT, tmp_path_factory.mktemp("pair") / "fp32", "fp32")


@pytest.fixture(scope="module")
def target() -> Target:
    return Target.load(tinypair.TARGET)


async def converse(device: Device, ends: dict[str, Fed], edit=None, before_turn=None, **options):
    """Ten turns by text: at each end, the tokens fed beyond the new turn's; and the last texts.

    Before turn ``edit`` a word in the middle of the conversation is another; ``before_turn`` is
    told the device and the turn.
    """
    text, beyond = "", []
    for turn in range(TURNS):
        text += f" Turn {turn}. And then" if turn else "Once upon a time"
        if turn == edit:
            text = text.replace("Turn 3", "Turn 7")
        if before_turn is not None:
            before_turn(device, turn)
        before = list(device.history)
        special = device.client.welcome.bos_ids  # which has no text to be found again
        generation = device.generate(
            text, max_tokens=2 * WORDS, eos_ids=(), suppressed_ids=special, **options
        )
        async for _ in generation:
            if len(generation.tokens) == WORDS:
                generation.cancel()
        prompt = device.history[: len(device.history) - len(generation.tokens)]
        begin = device.client.welcome.bos_ids
        assert prompt[: len(begin)] == begin
        assert device.detokenizer.decode(prompt[len(begin) :], special=True) == text
        new = len(prompt) - len(before)
        fed = {name: one.before(len(prompt)) for name, one in ends.items()}
        beyond.append({name: count - new for name, count in fed.items()})
        result = generation.result
        assert result.prompt_tokens == len(prompt)
        assert result.cached_tokens == len(prompt) - fed["draft"]
        if before_turn is None:
            assert result.target_cached_tokens - (len(prompt) - fed["engine"]) in (0, 1)
        text += generation.text
    return beyond


class Where:
    """Connects to the first base station, or to the one that has come in its place."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self._connect = connector(lambda *_: False)

    async def __call__(self, _: str):
        return await self._connect(self.urls[0])


@pytest.fixture
def over_sockets(bundle, target, monkeypatch):
    """Runs ``converse`` with the embedded pair. ``loses``: see there."""

    def play(loses=None, **options):
        engine, draft = Fed(), Fed()
        with monkeypatch.context() as patch, served(target) as one, served(target) as other:
            patch.setattr(target, "forward", target.forward)  # put back afterwards
            engine.engine(target)
            where = Where([one, other])

            async def main():
                device = Device(bundle, one, threads=1)
                device._connect = where
                draft.draft(device.model)
                before_turn = None if loses is None else partial(loses, where)
                async with device:
                    ends = {"engine": engine, "draft": draft}
                    return await converse(device, ends, before_turn=before_turn, **options)

            return asyncio.run(main())

    return play


@pytest.mark.parametrize(
    ("scheme", "mode"),
    [
        ("topk", "stop-and-wait"),
        ("split", "stop-and-wait"),
        ("coupled", "stop-and-wait"),
        ("split", "run-ahead"),
    ],
)
def test_ten_turns_by_text_feed_what_is_new(over_sockets, monkeypatch, scheme, mode):
    options = {"scheme": SCHEMES[scheme], "mode": mode, "gamma": 4, "seed": 5}
    beyond = over_sockets(**options)
    assert all(count <= 2 for turn in beyond for count in turn.values()), beyond
    encodes_afresh(monkeypatch)  # control: encoded again, the text parts from what both ends hold
    beyond = over_sockets(**options)
    assert max(turn["engine"] for turn in beyond) > 2
    assert max(turn["draft"] for turn in beyond) > 2


def test_after_an_edit_in_the_middle_what_stands_before_it_is_kept(over_sockets):
    beyond = over_sockets(edit=6, scheme=SCHEMES["topk"], mode="stop-and-wait", seed=5)
    edited = beyond.pop(6)
    assert all(count <= 2 for turn in beyond for count in turn.values()), beyond
    # Of turns 0 to 5, those from the middle of the fourth on are fed again, and no more.
    assert all(2 * WORDS <= count <= 3.5 * (WORDS + 12) for count in edited.values()), edited


@pytest.mark.parametrize("scheme", SCHEMES)
def test_over_a_new_connection_nothing_is_fed_again(over_sockets, scheme):
    """The base station has to be sent the whole prompt, and finds what it has by the ticket."""

    def loses(where: Where, device: Device, turn: int) -> None:
        if turn in (3, 4, 7):
            device.client.socket._abort()

    beyond = over_sockets(loses, scheme=SCHEMES[scheme], mode="stop-and-wait", gamma=4, seed=5)
    assert all(count <= 2 for turn in beyond for count in turn.values()), beyond


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_base_station_that_knows_nothing_is_fed_everything_once(over_sockets, scheme):
    """The draft, which has lost nothing, is not."""

    def loses(where: Where, device: Device, turn: int) -> None:
        if turn == 5:
            where.urls.pop(0)
            device.client.socket._abort()

    beyond = over_sockets(loses, scheme=SCHEMES[scheme], mode="stop-and-wait", gamma=4, seed=5)
    lost = beyond.pop(5)
    assert all(count <= 2 for turn in beyond for count in turn.values()), beyond
    assert lost["engine"] > 5 * WORDS and lost["draft"] <= 2


@pytest.mark.parametrize("lost", [False, True], ids=["", "lost"])
def test_a_token_that_was_owed_is_sent_with_the_next_prompt(lost):
    """The last one of a turn, an EOS that the device corrected and has not sent."""
    table = random_logits(7, 20, 1.5)
    draft = table + np.random.default_rng(8).normal(0.0, 2.0, table.shape)
    where, engine, fed = Where([]), Fed(), Fed()

    async def main(url: str) -> int:
        device, owed = fake_device(url, draft), 0
        where.urls.append(url)
        device._connect = where
        fed.draft(device.model)
        prompt = [1, 2, 3]
        async with device:
            for turn in range(20):
                before = len(device.history)
                generation = device.generate(
                    prompt, max_tokens=40, scheme=Split(8, 64), seed=turn, mode="stop-and-wait",
                    gamma=2, eos_ids=range(0, 20, 4),
                )  # fmt: skip
                async for _ in generation:
                    pass
                assert device.history == [*prompt, *generation.tokens]
                new = len(prompt) - before
                assert engine.before(len(prompt)) <= new + 2
                # Two drafted tokens and the last one may not have been fed yet.
                assert fed.before(len(prompt)) <= new + 3
                for cache in (device.model.cache, target.slots[-1].cache):
                    assert cache == device.history[: len(cache)]
                if len(device.history) > device.client.session.length:
                    owed += 1
                    if lost:
                        device.client.socket._abort()
                prompt = [*device.history, 4, 5]
        return owed

    target = FakeTarget(table)
    engine.engine(target)
    with served(target) as url:
        assert asyncio.run(main(url)) > 3


# --- The law of a turn behind others ---

KINDS = ("topk-lattice", "split", "coupled", "dense")
LINK = LinkProfile(5e6, 5e6, 0.03)


class Waits(Oracle):
    """Draws the likeliest until it is told to go through all there is."""

    scripted = False

    def choose(self, weights) -> int:
        return super().choose(weights) if self.scripted else int(np.argmax(weights))


def law_of_the_second_turn(oracle: Waits, kind: str, seed: int):
    """The law that was found of three tokens, and the target's, behind a prompt that keeps a part
    of the first turn."""
    target, draft, scheme, params, gamma = test_law.case(kind, seed)
    size, prompts = len(target), set()

    async def main() -> tuple[int, ...]:
        model, station = FakeModel(draft, rows=False), FakeTarget(target)
        world = World(model, station, letters(size), model.context, 0.01, 0.03)
        oracle.scripted = False
        options = {
            "scheme": scheme, "sampling": params, "mode": "stop-and-wait", "gamma": gamma,
            "seed": seed,
        }  # fmt: skip
        async with world.device(make_link(LINK, seed=1)) as device:
            first = device.generate([0, 1, 0], max_tokens=5, **options)
            async for _ in first:
                pass
            prompt = [*device.history[:5], 1, 0][: 6 if seed % 2 else 7]
            prompts.add(tuple(prompt))
            oracle.scripted = True
            second = device.generate(prompt, max_tokens=test_law.LENGTH, **options)
            async for _ in second:
                pass
            assert second.result.cached_tokens >= 4 and second.result.target_cached_tokens >= 4
            for cache in (model.cache, station.slots[-1].cache):
                assert cache == device.history[: len(cache)]
            return tuple(second.tokens)

    found = oracle.law(lambda: run(main()))
    (prompt,) = prompts
    wanted = {(): 1.0}
    for _ in range(test_law.LENGTH):
        longer = {}
        for text, probability in wanted.items():
            past = [*prompt, *text]
            p = sampling.distribution(target[past[-1]], params, past)
            longer |= {(*text, i): probability * float(p[i]) for i in range(size)}
        wanted = longer
    return found, wanted


@pytest.mark.parametrize("kind", KINDS)
def test_the_law_of_a_turn_behind_a_kept_prefix_is_the_targets(monkeypatch, kind):
    oracle = Waits()
    install(monkeypatch, oracle)
    for seed in (1, 2, 5):
        found, wanted = law_of_the_second_turn(oracle, kind, seed)
        assert sum(found.values()) == pytest.approx(1.0, abs=1e-12)
        assert test_law.worst_difference(found, wanted) < 1e-9, seed


def test_a_history_that_was_edited_in_place_is_compared_with_what_both_ends_hold():
    async def main(url: str) -> None:
        table = random_logits(7, 8, 1.5)
        device = fake_device(url, table)
        async with device:
            options = {"max_tokens": 6, "sampling": Sampling(0.0), "mode": "stop-and-wait"}
            async for _ in device.generate([1, 2, 3], **options):
                pass
            device.history[1] = 5
            whole = [*device.history, 4]
            later = device.generate([4], append=True, **options)
            async for _ in later:
                pass
            assert later.result.cached_tokens == later.result.target_cached_tokens == 1
            assert device.history == [*whole, *later.tokens]
            assert target.slots[-1].cache == device.history[: target.slots[-1].length]
            assert device.model.cache == device.history[: device.model.length]

    target = FakeTarget(random_logits(7, 8, 1.5))
    with served(target) as url:
        asyncio.run(main(url))
