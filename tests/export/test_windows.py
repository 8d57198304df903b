"""Layers that see a few tokens back, on a device: rows, rollbacks and texts."""

from __future__ import annotations

import asyncio
import random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, MistralConfig, Qwen2Config

from bs_runtime.checkpoint.config import window_of
from bs_runtime.model.target import Target
from device_runtime.device import Device, Sampling
from device_runtime.model import providers
from device_runtime.model.bundle import BundleError, load_bundle
from device_runtime.model.draft_model import DraftModel
from export import ExportError, check, graph
from export.bundle import export_bundle
from tests.conftest import CONTEXT, GRAPHS, save_random
from tests.fakes import served

WINDOW = 8
LENGTHS = (WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 1)
MIXED = {
    "layer_types": ["sliding_attention", "full_attention"],
    "query_pre_attn_scalar": 24,
    "sliding_window": WINDOW,
}
MODELS = {
    "gemma3_text": MIXED,
    "gemma2": {**MIXED, "attn_logit_softcapping": 2.0},
    "mistral": {"sliding_window": WINDOW},
    "phi3": {"sliding_window": WINDOW},
}
FIRST = "gemma3_text"  # the others take their time
CASES = [
    pytest.param((name, kind), id=f"{name}-{kind}", marks=[pytest.mark.full] * (name != FIRST))
    for name in MODELS
    for kind in GRAPHS
]


class Made:
    """A model's folder, the model as transformers runs it, and its bundle."""

    def __init__(self, folder, bundle) -> None:
        self.folder, self.bundle = folder, bundle
        self.plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
        self.draft = DraftModel(bundle, threads=1)

    def rows(self, ids) -> np.ndarray:
        with torch.inference_mode():
            return self.plain(torch.tensor([list(ids)]), use_cache=False).logits[0].numpy()

    def text(self, prompt: list[int], tokens: int) -> list[int]:
        found = self.plain.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=tokens, eos_token_id=None
        )
        return found[0, len(prompt) :].tolist()


@pytest.fixture(scope="module", params=CASES)
def made(request, tmp_path_factory, tokenizer):
    name, kind = request.param
    at = tmp_path_factory.mktemp(name)
    folder = save_random(at / "model", name, tokenizer, **MODELS[name])
    return Made(folder, export_bundle(folder, at / kind, "fp32", graph=kind))


def ids_of(seed: int, count: int) -> list[int]:
    return random.Random(seed).choices(range(3, 250), k=count)


def test_the_manifest_says_from_which_onnxruntime_on(made):
    manifest = made.bundle.manifest
    assert manifest.context == CONTEXT and manifest.check.max_logit_difference < 1e-3
    assert manifest.least_onnxruntime == (graph.WINDOWS if manifest.graph == "shared" else None)


@pytest.mark.parametrize("length", LENGTHS)
def test_rows_about_the_windows_borders(made, length):
    """Of a prompt of this length, of the token behind it, and of a few more at once."""
    ids = ids_of(length, length + 6)
    made.draft.rollback(0)
    found = [made.draft.forward(ids[:length]).copy()]
    found.append(made.draft.forward(ids[length : length + 1]).copy())
    found.append(made.draft.forward(ids[length + 1 :]).copy())
    wanted = made.rows(ids)[[length - 1, length, -1]]
    assert np.abs(np.stack(found) - wanted).max() < 1e-5


@pytest.mark.parametrize("count", [100, pytest.param(1000, marks=pytest.mark.full)])
def test_random_rollbacks_across_borders(made, count):
    """Each row that is made is that of the whole text so far."""
    rng, ids, draft = random.Random(1), [], made.draft
    draft.rollback(0)
    for seed in range(count):
        back = rng.choice((0, 1, 3, WINDOW, 2 * WINDOW))
        del ids[rng.randrange(WINDOW) if len(ids) > CONTEXT - 20 else max(0, len(ids) - back) :]
        draft.rollback(len(ids))
        ids += ids_of(seed, rng.choice((1, 1, 2, 5, WINDOW + 3)))
        row = draft.forward(ids[draft.length :])
        assert np.abs(row - made.rows(ids)[-1]).max() < 1e-5


def test_greedy_text_past_several_windows_is_generates_at_both_ends(made, tmp_path, tokenizer):
    """The draft's own, and through both ends that of another model with windows."""
    prompt, tokens = ids_of(5, 5), 6 * WINDOW
    draft, own = made.draft, []
    draft.rollback(0)
    row = draft.forward(prompt)
    while len(own) < tokens:
        own.append(int(row.argmax()))
        row = draft.forward(own[-1:])
    assert own == made.text(prompt, tokens)
    name = made.plain.config.model_type
    other = save_random(tmp_path / "other", name, tokenizer, **MODELS[name], intermediate_size=64)
    for folder in (made.folder, other):
        wanted = Made.text(Plain(folder), prompt, tokens)
        assert asyncio.run(through_both(folder, made.bundle.path, prompt, tokens)) == [wanted] * 2


class Plain(Made):
    """A folder's model as transformers runs it."""

    def __init__(self, folder) -> None:
        self.plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


async def through_both(folder, bundle, prompt: list[int], tokens: int) -> list[list[int]]:
    """What is written where the device drafts blocks, and where both ends write."""
    found = []
    with served(Target.load(str(folder))) as url:
        async with Device(bundle, url, threads=1) as device:
            for mode in ("stop-and-wait", "auto"):
                generation = device.generate(
                    prompt, mode=mode, max_tokens=tokens, eos_ids=(),
                    sampling=Sampling(temperature=0.0),
                )  # fmt: skip
                async for _ in generation:
                    pass
                found.append(generation.result.tokens)
    return found


def test_a_graph_that_sees_one_token_more_is_refused(tmp_path, tokenizer, monkeypatch):
    """The control, by the rows about the border alone: the text that is checked ends before it."""
    monkeypatch.setattr(check, "POSITIONS", 40)
    folder = save_random(tmp_path / "model", "mistral", tokenizer, sliding_window=100)
    attention = graph._attention

    def wider(*args, sliding_window=None, **kwargs):
        return attention(*args, sliding_window=sliding_window + 1, **kwargs)

    monkeypatch.setattr(graph, "_attention", wider)
    with pytest.raises(ExportError, match="does not match PyTorch"):
        export_bundle(folder, tmp_path / "out", "fp32")


def test_an_older_onnxruntime_refuses_the_bundle(made, monkeypatch):
    path = made.bundle.path
    if made.bundle.manifest.least_onnxruntime is None:
        pytest.skip("it has no such operator")
    for version in ("1.23.2", "1.24.0", "1.9"):
        monkeypatch.setattr(providers.ort, "__version__", version)
        with pytest.raises(BundleError, match=f"needs onnxruntime 1.24.1 or newer.*{version}"):
            DraftModel(load_bundle(path), threads=2)
    for version in ("1.24.1", "1.30.0.dev20260101", "2.0"):
        monkeypatch.setattr(providers.ort, "__version__", version)
        providers.check_version(made.bundle.manifest.least_onnxruntime)


def test_a_window_no_shorter_than_the_context_is_none():
    config = MistralConfig(sliding_window=WINDOW)
    assert [window_of(config, WINDOW + n) for n in (-1, 0, 1)] == [None, None, WINDOW]
    assert window_of(MistralConfig(sliding_window=None), 99) is None
    assert window_of(Qwen2Config(sliding_window=WINDOW), 99) is None  # it is not used


def test_npus_have_one_mask_for_all_layers(tmp_path, tokenizer):
    folder = save_random(tmp_path / "model", "mistral", tokenizer, sliding_window=WINDOW)
    with pytest.raises(ExportError, match=f"some see {WINDOW} tokens back; --context {WINDOW}"):
        export_bundle(folder, tmp_path / "out", "fp32", graph="static")
