"""The embedded pair over real sockets: greedy text is the target's own, token for token."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import tinypair
from bs_runtime.model.target import Target
from device_runtime.device import Coupled, Device, Sampling, TopK
from device_runtime.model.bundle import Bundle
from draftlink.distribution import noise
from draftlink.distribution.gumbel import Race
from export.bundle import export_bundle
from tests.fakes import served

GREEDY = Sampling(temperature=0.0)
NEAR_TIE = 1e-4  # two leading scores this close may swap with the shape of a forward


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """The embedded draft in each precision, exported as it is asked for."""
    made: dict[str, Bundle] = {}

    def make(precision):
        if precision not in made:
            made[precision] = export_bundle(
                tinypair.DRAFT, tmp_path_factory.mktemp("pair") / precision, precision
            )
        return made[precision]

    return make


@pytest.fixture(scope="module")
def pair_bundle(bundles):
    return bundles("int8")


@pytest.fixture(scope="module")
def plain():
    """The target as transformers runs it, and its tokenizer."""
    model = AutoModelForCausalLM.from_pretrained(tinypair.TARGET, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(tinypair.TARGET)


def test_the_pair_is_what_the_card_says(pair_bundle):
    size = sum(f.stat().st_size for d in (tinypair.TARGET, tinypair.DRAFT) for f in d.iterdir())
    assert size <= 48e6
    target = AutoModelForCausalLM.from_pretrained(tinypair.TARGET)
    draft = AutoModelForCausalLM.from_pretrained(tinypair.DRAFT)
    bodies = [
        sum(p.numel() for n, p in m.named_parameters() if "embed" not in n) for m in (target, draft)
    ]
    assert bodies[0] >= 8 * bodies[1]
    assert pair_bundle.manifest.check.overlap > 0.99


@pytest.mark.parametrize(
    "prompts, tokens",
    [(6, 48), pytest.param(50, 128, marks=pytest.mark.full)],
    ids=["6 prompts", "50 prompts"],
)
def test_greedy_text_equals_the_target_alone(pair_bundle, plain, prompts, tokens):
    model, tokenizer = plain
    compared = ties = 0

    def expected(ids: list[int]) -> list[int]:
        out = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            do_sample=False,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
        return out[0, len(ids) :].tolist()

    def near_tie(ids: list[int]) -> bool:
        with torch.inference_mode():
            first, second = model(torch.tensor([ids])).logits[0, -1].topk(2).values.tolist()
        return first - second < NEAR_TIE

    async def run(url: str) -> None:
        nonlocal compared, ties
        async with Device(pair_bundle, url) as device:
            for prompt in tinypair.prompts(prompts):
                ids = tokenizer(prompt)["input_ids"]
                wanted = expected(ids)
                for gamma in (1, 4, 8):
                    generation = device.generate(
                        prompt,
                        max_tokens=tokens,
                        sampling=GREEDY,
                        mode="stop-and-wait",
                        gamma=gamma,
                    )
                    found = [token.id async for token in generation]
                    compared += len(found)
                    if found != wanted:
                        at = next(i for i in range(tokens) if found[i : i + 1] != wanted[i : i + 1])
                        assert near_tie([*ids, *wanted[:at]]), (prompt, gamma, at)
                        ties += 1

    with served(Target.load(tinypair.TARGET)) as url:
        asyncio.run(run(url))
    print(f"{compared} tokens, {ties} near-ties")
    assert ties <= compared / 10_000 + 1


@pytest.mark.parametrize(
    "prompts, tokens",
    [(4, 40), pytest.param(50, 128, marks=pytest.mark.full)],
    ids=["4 prompts", "50 prompts"],
)
def test_coupled_text_is_the_same_whatever_drafts(bundles, plain, prompts, tokens):
    """γ, K and mass of other schemes aside: int4, int8 and fp32 drafts, any γ, no draft at all."""
    model, tokenizer = plain
    compared = ties = 0
    drafts = [("int8", 1), ("int8", 4), ("int8", None), ("int4", 6), ("fp32", 8)]

    def near_tie(ids: list[int], seed: int) -> bool:
        race = Race(noise.key_from_seed(seed, "coupled"))
        with torch.inference_mode():
            log_p = model(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1).numpy()
        scores = log_p - np.log(race.entries(len(ids), np.arange(len(log_p))))
        second, first = np.sort(scores)[-2:]
        return first - second < NEAR_TIE

    async def run(url: str) -> None:
        nonlocal compared, ties
        for precision, gamma in drafts:
            async with Device(bundles(precision), url) as device:
                for seed, prompt in enumerate(tinypair.prompts(prompts)):
                    options = {"max_tokens": tokens, "seed": seed, "scheme": Coupled()}
                    if seed not in alone:
                        generation = device.generate(prompt, mode="stream", **options)
                        alone[seed] = [token.id async for token in generation]
                    generation = device.generate(
                        prompt, mode="stop-and-wait", gamma=gamma, **options
                    )
                    found = [token.id async for token in generation]
                    compared += len(found)
                    wanted = alone[seed]
                    if found != wanted:
                        at = next(i for i in range(tokens) if found[i : i + 1] != wanted[i : i + 1])
                        ids = [*tokenizer(prompt)["input_ids"], *wanted[:at]]
                        assert near_tie(ids, seed), (prompt, precision, gamma, at)
                        ties += 1
                    else:
                        accepted.append(generation.result.alpha)

    alone: dict[int, list[int]] = {}
    accepted: list[float] = []
    with served(Target.load(tinypair.TARGET)) as url:
        asyncio.run(run(url))
    print(f"{compared} tokens, {ties} near-ties, acceptance {np.mean(accepted):.3f}")
    assert ties <= compared / 10_000 + 1
    assert np.mean(accepted) > 0.5  # it is drafts that were accepted, not corrections


def test_a_seed_gives_the_same_text_again(pair_bundle):
    async def run(url: str) -> None:
        async with Device(pair_bundle, url) as device:
            texts = []
            for _ in range(2):
                generation = device.generate(
                    "Once upon a time",
                    max_tokens=40,
                    seed=11,
                    mode="stop-and-wait",
                    gamma=4,
                    scheme=TopK(8, 64),
                )
                texts.append([token.id async for token in generation])
            assert texts[0] == texts[1]
            assert generation.result.accepted > 10

    with served(Target.load(tinypair.TARGET)) as url:
        asyncio.run(run(url))
