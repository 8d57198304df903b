"""The embedded pair over real sockets: greedy text is the target's own, token for token."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import bench
import tinypair
from bs_runtime.target import Target
from device_runtime.device import Device, Sampling, TopK
from export.bundle import export_bundle
from tests.fakes import served

GREEDY = Sampling(temperature=0.0)
NEAR_TIE = 1e-4  # two leading scores this close may swap with the shape of a forward


@pytest.fixture(scope="module")
def pair_bundle(tmp_path_factory):
    return export_bundle(tinypair.DRAFT, tmp_path_factory.mktemp("pair") / "int8", "int8")


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
def test_greedy_text_equals_the_target_alone(pair_bundle, prompts, tokens):
    listed = json.loads((Path(bench.__file__).parent / "prompts.json").read_text())[:prompts]
    model = AutoModelForCausalLM.from_pretrained(tinypair.TARGET, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tinypair.TARGET)
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
            for entry in listed:
                ids = tokenizer(entry["prompt"])["input_ids"]
                wanted = expected(ids)
                for gamma in (1, 4, 8):
                    generation = device.generate(
                        entry["prompt"], max_tokens=tokens, sampling=GREEDY, gamma=gamma
                    )
                    found = [token.id async for token in generation]
                    compared += len(found)
                    if found != wanted:
                        at = next(i for i in range(tokens) if found[i : i + 1] != wanted[i : i + 1])
                        assert near_tie([*ids, *wanted[:at]]), (entry, gamma, at)
                        ties += 1

    with served(Target.load(tinypair.TARGET)) as url:
        asyncio.run(run(url))
    print(f"{compared} tokens, {ties} near-ties")
    assert ties <= compared / 10_000 + 1


def test_a_seed_gives_the_same_text_again(pair_bundle):
    async def run(url: str) -> None:
        async with Device(pair_bundle, url) as device:
            texts = []
            for _ in range(2):
                generation = device.generate(
                    "Once upon a time", max_tokens=40, seed=11, gamma=4, scheme=TopK(8, 64)
                )
                texts.append([token.id async for token in generation])
            assert texts[0] == texts[1]
            assert generation.result.accepted > 10

    with served(Target.load(tinypair.TARGET)) as url:
        asyncio.run(run(url))
