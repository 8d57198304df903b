"""What the target's own files say takes effect, unless the request says otherwise."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import numpy as np
import pytest
import torch

from bench.virtual.loop import run
from bench.virtual.world import World
from bs_runtime.checkpoint.facts import Facts
from bs_runtime.model.target import Target
from bs_runtime.serving import greeting
from device_runtime.device import Coupled, Dense, Device, Sampling, Split, TopK
from draftlink.distribution import sampling
from draftlink.distribution.gumbel import Race
from draftlink.distribution.noise import key_from_seed
from draftlink.link.shaping import LinkProfile, make_link
from tests.bs_runtime.tiny import CONFIGS, IDS, VOCAB, build, take
from tests.fake_models import FakeModel, fake_device, letters, random_logits
from tests.fakes import FakeTarget, served
from tests.test_stopping import GREEDY, SIZE, collect, cycle

SUPPRESSED = (1, 4, 7, 11)
TABLE = random_logits(3, 12, 1.0)
TABLE[:, SUPPRESSED] += 3.0  # what each model would write most of the time
LEFT = TABLE.copy()
LEFT[:, SUPPRESSED] = -np.inf


def meets(target: FakeTarget, scenario: Callable, draft: np.ndarray, **device: object) -> None:
    """A scenario on a device that is greeted by the target over a real socket."""

    async def main(url: str) -> None:
        async with fake_device(url, draft, **device) as opened:
            await scenario(opened)

    with served(target) as url:
        asyncio.run(main(url))


def saying(facts: Facts, table: np.ndarray) -> FakeTarget:
    target = FakeTarget(table)
    target.facts = facts
    return target


# --- EOS ---


def test_the_targets_eos_ends_a_text_and_not_the_drafts():
    """An instruct target with a base draft stops where the target says."""

    async def scenario(device: Device) -> None:
        for mode in ("stop-and-wait", "run-ahead", "stream"):
            given = {"sampling": GREEDY, "mode": mode, "max_tokens": 12}
            generation = device.generate("a", **given)
            assert "".join(await collect(generation)) == "bcde"
            assert generation.result.stop_reason == "eos"
            others = [((2,), "b"), ((), "bcdefghabcde")]
            for eos, text in others:  # unless the request says otherwise
                generation = device.generate("a", eos_ids=eos, **given)
                assert "".join(await collect(generation)) == text

    meets(saying(Facts(eos_ids=(5,)), cycle()), scenario, cycle(), eos_ids=(3,))


def test_where_the_target_names_no_eos_the_drafts_own_ends_a_text():
    async def scenario(device: Device) -> None:
        generation = device.generate("a", sampling=GREEDY, max_tokens=9)
        assert "".join(await collect(generation)) == "bc"

    meets(FakeTarget(cycle()), scenario, cycle(), eos_ids=(3,))


# --- Suppressed ids ---

SCHEMES = {
    "greedy": {"sampling": Sampling(temperature=0.0)},
    "coupled": {"scheme": Coupled()},
    "topk": {"scheme": TopK(1, 8)},
    "topk fp16": {"scheme": TopK(4, coding="fp16")},
    "dense": {"scheme": Dense()},
    "split": {"scheme": Split(4, 16)},
}


@pytest.mark.parametrize("mode", ["stop-and-wait", "run-ahead", "stream", "auto"])
@pytest.mark.parametrize("name", SCHEMES)
def test_a_suppressed_id_is_never_written_nor_drafted(name, mode):
    """In no mode, and over lost connections, where each wrote them most of the time."""
    draft = TABLE + np.random.default_rng(8).normal(0.0, 0.5, TABLE.shape)
    target = saying(Facts(suppressed_ids=SUPPRESSED[::-1]), TABLE)
    link = LinkProfile(5e6, 5e6, 0.06)

    async def main() -> tuple[list[int], list[int], list[int]]:
        world = World(FakeModel(draft, rows=False), target, letters(12), 1000, 0.01, 0.045)
        async with world.device(make_link(link, seed=1, outages=[(1.0, 2.5)])) as device:
            options = {"mode": mode, "seed": 1, "max_tokens": 120, **SCHEMES[name]}
            generation = device.generate([0], offline_after_s=0.2, **options)
            shown = [token.id async for token in generation]
            again = device.generate([0], suppressed_ids=(), **options)
            return shown, generation.result.tokens, [token.id async for token in again]

    shown, written, free = run(main())
    assert not set(shown) & set(SUPPRESSED)
    assert len(written) == len(free) == 120
    assert set(free) & set(SUPPRESSED)  # the request says otherwise
    if name == "greedy":
        assert written == following(lambda past, row: int(row.argmax()))
    if name == "coupled":
        race = Race(key_from_seed(1, "coupled"))
        assert written == following(
            lambda past, row: race.pick(len(past), sampling.distribution(row, Sampling(), past))
        )


def following(pick: Callable[[list[int], np.ndarray], int]) -> list[int]:
    """120 tokens of the target's own, without the suppressed ids."""
    past = [0]
    while len(past) < 121:
        past.append(pick(past, LEFT[past[-1]]))
    return past[1:]


def test_suppressing_is_what_transformers_does():
    """Greedy, the same ids as ``generate(suppress_tokens=...)``."""
    config, ids = CONFIGS["qwen2"], []
    plain = build(config)
    for suppressed in ([], [*range(3, VOCAB, 2)]):
        wanted = plain.generate(
            torch.tensor([IDS[:6]]), attention_mask=torch.ones(1, 6, dtype=torch.long),
            do_sample=False, max_new_tokens=20, suppress_tokens=suppressed or None,
            eos_token_id=None, pad_token_id=0,
        )[0, 6:].tolist()  # fmt: skip
        target: Target = take(build(config))
        target.facts = Facts(suppressed_ids=tuple(suppressed))
        target.tokenizer_hash = "fake"

        async def scenario(device: Device, wanted: list[int] = wanted) -> None:
            generation = device.generate(IDS[:6], sampling=GREEDY, max_tokens=20, gamma=3)
            assert [token.id async for token in generation] == wanted

        meets(target, scenario, random_logits(1, VOCAB))  # type: ignore[arg-type]
        ids.append(wanted)
    assert set(ids[0]) & set(suppressed)  # so it makes a difference


def test_a_draft_with_fewer_logits_suppresses_what_it_has():
    async def scenario(device: Device) -> None:
        for scheme in (TopK(4, 16), Split(4, 16), Coupled()):
            generation = device.generate([0], max_tokens=60, seed=1, scheme=scheme, gamma=4)
            tokens = [token.id async for token in generation]
            assert not set(tokens) & set(SUPPRESSED)

    # The target's own logits there are so low that it writes none of what the draft lacks.
    table = TABLE.copy()
    table[:, 9:] = -40.0
    facts = Facts(suppressed_ids=SUPPRESSED)
    meets(saying(facts, table), scenario, TABLE[:9, :9])


def older(monkeypatch: pytest.MonkeyPatch) -> None:
    """A base station of this version that knows nothing of suppressed ids."""
    answer = greeting.answer

    def without_features(*arguments):
        return msgspec.structs.replace(answer(*arguments), features=[])

    monkeypatch.setattr(greeting, "answer", without_features)


def test_a_base_station_that_cannot_suppress_is_not_asked_to_in_vain(monkeypatch):
    older(monkeypatch)

    async def scenario(device: Device) -> None:
        with pytest.raises(
            ValueError, match="the target never writes 4 ids, and this base station"
        ):
            device.generate([0])
        with pytest.raises(ValueError, match="the request suppresses 1 ids"):
            device.generate([0], suppressed_ids=[3])
        generation = device.generate([0], suppressed_ids=(), max_tokens=5)
        assert len([token async for token in generation]) == 5

    meets(saying(Facts(suppressed_ids=SUPPRESSED), TABLE), scenario, TABLE)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"suppressed_ids": range(12)}, "all 12 ids of both models are suppressed"),
        ({"suppressed_ids": [12]}, "suppressed_ids has ids that are not among the target's 12"),
        ({"suppressed_ids": [0] * 65_537}, "suppressed_ids has 65537 ids"),
        ({"eos_ids": [-1]}, "eos_ids has ids that are not among the target's 12"),
        ({"eos_ids": [0] * 257}, "eos_ids has 257 ids; give at most 256"),
    ],
)
def test_ids_of_a_request_that_cannot_be_are_refused(asked, words):
    async def scenario(device: Device) -> None:
        with pytest.raises(ValueError, match=words):
            device.generate([0], **asked)
        assert len(await collect(device.generate([0], max_tokens=2))) == 2

    meets(FakeTarget(TABLE), scenario, TABLE)


def test_a_target_that_suppresses_its_own_eos_writes_to_the_limit():
    """As transformers does: the files are taken at their word."""

    async def scenario(device: Device) -> None:
        generation = device.generate("a", max_tokens=9, sampling=GREEDY)
        await collect(generation)
        assert generation.result.stop_reason == "length"
        assert generation.result.tokens == [1] * 9

    table = np.tile(np.arange(SIZE)[::-1], (SIZE, 1)).astype(float)
    meets(saying(Facts(eos_ids=(0,), suppressed_ids=(0, 3)), table), scenario, table)


# --- Sampling ---


def test_sampling_as_the_target_suggests():
    async def scenario(device: Device) -> None:
        generation = device.generate([0], sampling="target", max_tokens=3)
        await collect(generation)
        assert generation._start.sampling == Sampling(0.6, top_p=0.9)
        generation = device.generate([0], max_tokens=3)  # only where the caller asks
        await collect(generation)
        assert generation._start.sampling == Sampling()

    meets(saying(Facts(sampling=Sampling(0.6, top_p=0.9)), TABLE), scenario, TABLE)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (Facts(), "the target's files suggest no sampling; state one"),
        (
            Facts(sampling=Sampling(0.6), unapplied=("num_beams=4", "typical_p=0.9\x1b[2J")),
            r"ask for num_beams=4, typical_p=0\.9\\x1b\[2J, which Draftlink cannot apply",
        ),
    ],
)
def test_a_suggestion_that_cannot_be_honoured_is_refused_by_name(facts, words):
    async def scenario(device: Device) -> None:
        with pytest.raises(ValueError, match=words):
            device.generate([0], sampling="target")

    meets(saying(facts, TABLE), scenario, TABLE)
