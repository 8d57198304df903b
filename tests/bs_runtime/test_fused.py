"""Triton's attention over the slots equals each session's own, on a GPU or in its interpreter."""

from __future__ import annotations

import pytest
import torch

from bs_runtime.model.forward import Engine
from bs_runtime.model.kv import BLOCK, Feed
from tests.bs_runtime.tiny import (
    CONFIGS,
    IDS,
    build,
    check_ragged_step,
    check_random_histories,
    close,
    full,
    take,
    text,
)

HAS_GPU = torch.cuda.is_available()
NAMES = list(CONFIGS) if HAS_GPU else ["llama", "gpt2"]  # the interpreter takes its time
STEPS = 40 if HAS_GPU else 6
pytest.importorskip("triton", reason="Triton is not installed: it comes with PyTorch for GPUs")


def fused(name: str) -> Engine:
    """A tiny model's engine as on a GPU, but for the captured graphs where there is none."""
    model = build(CONFIGS[name])
    if HAS_GPU:
        engine = take(model.to("cuda")).engine
        assert engine.fused is not None
        return engine
    target = take(model)
    slot = target.open()
    slot.forward(IDS)
    engine, layout = target.engine, slot.layout
    assert layout is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bs_runtime.model.fused.Fused.capture", lambda _: None)
        engine.fuse(layout, model.config.num_attention_heads)
    return engine


@pytest.fixture(scope="module", params=NAMES)
def pair(request):
    """The plain model, and the same one's engine."""
    return build(CONFIGS[request.param]), fused(request.param)


def test_prompts_drafts_and_single_tokens_in_one_step(pair):
    plain, engine = pair
    check_ragged_step(plain, engine)


def test_random_histories_of_accepting_and_rejecting(pair):
    plain, engine = pair
    check_random_histories(plain, engine, 4, STEPS)


def test_histories_that_are_split_over_the_keys_grow_and_are_copied():
    plain, engine = build(CONFIGS["llama"]), fused("llama")
    engine.context = 6 * BLOCK  # rotary positions have no end, so the model goes on
    slot, ids = engine.open(), text(1, 5 * BLOCK)
    for begin in range(0, len(ids), 100):
        rows = slot.forward(ids[begin : begin + 100])
    close(rows.cpu(), full(plain, ids)[-len(rows) :])
    other = engine.open()
    other.adopt(slot, ids)
    assert other.length == len(ids)
    close(other.forward(IDS).cpu(), full(plain, ids + IDS)[-len(IDS) :])


def test_the_head_of_a_long_step_takes_the_rows_that_are_wanted():
    """Of a prompt the last: logits of all its tokens would fill the memory."""
    engine = fused("llama")
    engine.context = 16 * BLOCK
    seen: list[int] = []
    head = engine.model.get_output_embeddings()
    head.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[-2]))
    engine.forward([Feed(engine.open(), IDS * 50, 1), Feed(engine.open(), IDS, 0)])
    assert seen == [1]


@pytest.mark.skipif(not HAS_GPU, reason="a CUDA graph needs a GPU")
def test_a_captured_step_gives_the_rows_of_one_that_is_launched(monkeypatch):
    engine = fused("qwen2")
    assert engine.fused is not None and engine.fused.captures
    slots = [engine.open() for _ in range(3)]
    rows = engine.forward([Feed(slot, IDS, len(IDS)) for slot in slots])
    monkeypatch.setattr(engine.fused, "_captured", {})
    for slot in slots:
        slot.close()
    close(rows, engine.forward([Feed(slot, IDS, len(IDS)) for slot in slots]))


@pytest.mark.skipif(not HAS_GPU, reason="only a GPU can be waited for")
def test_no_forward_waits_for_the_gpu():
    """Neither a short step, which is replayed, nor a long one, which is launched."""
    engine = fused("qwen3")
    assert engine.fused is not None
    engine.context = 16 * BLOCK
    slot = engine.open()
    slot.forward(IDS)
    with torch.inference_mode():
        steps = [
            engine.fused.prepare([Feed(slot, IDS[:5], 5)]),
            engine.fused.prepare([Feed(engine.open(), IDS * 50, 1)]),
        ]
        torch.cuda.set_sync_debug_mode("error")
        try:
            for run in steps:
                run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
