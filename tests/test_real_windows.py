"""Gemma 3 270M, whose layers see 512 tokens back: exported, served, its greedy text at both ends.

``pytest -m "real and full" tests/test_real_windows.py``; some ten minutes on two cores, and 6 GB.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.real import fetch, forms, reference, texts
from bs_runtime.model.target import Target
from device_runtime.device import Device, Sampling
from device_runtime.model.bundle import load_bundle
from device_runtime.model.draft_model import DraftModel
from tests.fakes import served

pytestmark = [pytest.mark.real, pytest.mark.full]

CONTEXT = 4096
WINDOW = 512
TOKENS = 1200


@pytest.fixture(scope="module")
def gemma() -> Path:
    """Gemma 3's float32 reference."""
    try:
        return reference.folder("gemma3")
    except fetch.OutOfReach as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def written(gemma) -> tuple[list[int], list[int]]:
    """A prompt, and the greedy text that transformers' own ``generate`` writes behind it."""
    model, tokenizer = texts.load(gemma)
    model.set_attn_implementation("eager")
    model.generation_config.eos_token_id = None
    prompt = texts.prompt_ids(tokenizer, "chat", texts.PROMPTS["chat"][1])
    with torch.inference_mode():
        found = model.generate(torch.tensor([prompt]), do_sample=False, max_new_tokens=TOKENS)
    return prompt, found[0, len(prompt) :].tolist()


@pytest.fixture(scope="module")
def target(gemma) -> Target:
    return Target.load(str(gemma))


def test_its_bundle_keeps_nearly_all_of_it(gemma):
    manifest = load_bundle(forms.bundle(gemma, "auto", CONTEXT)).manifest
    assert manifest.context == CONTEXT and manifest.check.passed
    assert manifest.least_onnxruntime == "1.24.1"
    assert manifest.check.overlap >= 0.96


def test_rows_about_the_windows_borders(gemma, target):
    model, _ = texts.load(gemma)
    ids = torch.randint(1000, 200_000, (2 * WINDOW + 6,), generator=torch.manual_seed(0)).tolist()
    for length in (WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 1):
        with torch.inference_mode():
            wanted = model(torch.tensor([ids[: length + 5]]), logits_to_keep=6).logits[0]
        slot = target.open()
        rows = [slot.forward(ids[:length], last=True)]
        rows.append(slot.forward(ids[length : length + 1]))
        rows.append(slot.forward(ids[length + 1 : length + 5]))
        assert float((torch.cat(rows) - wanted).abs().max()) < 1e-3


def test_the_draft_alone_writes_generates_text(gemma, written):
    prompt, wanted = written
    draft = DraftModel(load_bundle(forms.bundle(gemma, "fp32", CONTEXT)))
    row, found = draft.forward(prompt), []
    while len(found) < TOKENS:
        best = np.argpartition(row, -2)[-2:]
        found.append(int(row.argmax()))
        gap = float(abs(np.diff(row[best])[0]))
        assert found[-1] == wanted[len(found) - 1], (len(found), gap)
        row = draft.forward(found[-1:])


def test_both_ends_write_generates_text(gemma, target, written):
    prompt, wanted = written
    bundle = forms.bundle(gemma, "auto", CONTEXT)

    async def write(url: str) -> list:
        found = []
        async with Device(bundle, url, threads=1) as device:
            for mode in ("stream", "stop-and-wait"):
                generation = device.generate(
                    prompt, mode=mode, max_tokens=TOKENS, eos_ids=(),
                    sampling=Sampling(temperature=0.0),
                )  # fmt: skip
                async for _ in generation:
                    pass
                found.append(generation.result)
        return found

    with served(target) as url:
        streamed, drafted = asyncio.run(write(url))
    assert streamed.tokens == wanted and drafted.tokens == wanted
    assert drafted.accepted > TOKENS / 2
