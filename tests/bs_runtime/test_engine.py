"""One forward over the packed tokens of many sessions equals each session's own."""

from __future__ import annotations

import pytest
import torch
from transformers import MistralConfig

from bs_runtime.model import attention
from bs_runtime.model.errors import TargetError
from bs_runtime.model.forward import Engine, Part, StepCache
from bs_runtime.model.kv import BLOCK, Feed
from bs_runtime.model.sight import Sight
from tests.bs_runtime.tiny import (
    CONFIGS,
    CONTEXT,
    IDS,
    SHAPE,
    VOCAB,
    build,
    check_ragged_step,
    check_random_histories,
    close,
    full,
    take,
    text,
)

# Attention that is no "sdpa": such a model is fed one slot after the other, windows or not.
EAGER = MistralConfig(**SHAPE, sliding_window=12)


@pytest.fixture(scope="module", params=[*CONFIGS, "eager"])
def pair(request):
    """The plain model, and the same one as a target."""
    models = [build(CONFIGS.get(request.param, EAGER)) for _ in range(2)]
    if request.param not in CONFIGS:
        for model in models:
            model.set_attn_implementation("eager")
    target = take(models[1])
    assert target.engine.packed == (request.param in CONFIGS)
    return models[0], target


def test_prompts_drafts_and_single_tokens_in_one_step(pair):
    plain, target = pair
    seen, fed = check_ragged_step(plain, target)
    assert seen == ([sum(fed)] if target.engine.packed else fed)


def test_random_histories_of_accepting_and_rejecting(pair):
    plain, target = pair
    check_random_histories(plain, target, 5, 40)


def test_a_slot_grows_in_blocks_up_to_the_context_and_gives_its_memory_back():
    model = build(CONFIGS["llama"])
    target = take(model)
    target.engine.context = 3 * BLOCK - 10
    per_token = 2 * 2 * 2 * 8 * 4  # keys and values, layers, kv heads, d, float32
    slot = target.open()
    assert slot.bytes == 0
    held = []
    for _ in range(target.engine.context // 2):
        slot.forward([1, 2])
        if not held or slot.bytes != held[-1]:
            held.append(slot.bytes)
        assert slot.bytes <= max(2 * slot.length + BLOCK, BLOCK) * per_token
    assert held == [BLOCK * per_token, 2 * BLOCK * per_token, (3 * BLOCK - 10) * per_token]
    slot.close()
    assert (slot.bytes, slot.length) == (0, 0)


def test_growing_keeps_what_is_cached():
    config = CONFIGS["llama"]
    plain, target = build(config), take(build(config))
    target.engine.context = 4 * BLOCK
    slot, ids = target.open(), text(1, 3 * BLOCK)
    for begin in range(0, len(ids), 24):
        rows = slot.forward(ids[begin : begin + 24])
    close(rows, full(plain, ids)[-24:])


def test_one_bad_feed_changes_no_slot(pair):
    plain, target = pair
    good, bad = target.open(), target.open()
    good.forward(IDS[:4])
    with pytest.raises(TargetError, match="at least one id"):
        target.forward([Feed(good, IDS[4:], 1), Feed(bad, [VOCAB], 1)])
    close(good.forward(IDS[4:]), full(plain, IDS)[4:])


def test_a_forward_that_fails_empties_the_slots_of_its_step_and_no_other(pair):
    plain, target = pair
    slots = [target.open() for _ in range(3)]
    target.forward([Feed(slot, IDS[:4], 1) for slot in slots])
    layers = getattr(target.model, "model", None) or target.model.transformer
    second = (layers.layers if hasattr(layers, "layers") else layers.h)[1]
    hook = second.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        target.forward([Feed(slot, IDS[4:], 1) for slot in slots[:2]])
    hook.remove()
    assert [slot.length for slot in slots] == [0, 0, 4]
    assert [slot.bytes > 0 for slot in slots] == [False, False, True]
    rows = target.forward([Feed(slots[0], IDS, 1), Feed(slots[2], IDS[4:], 1)])
    close(rows, full(plain, IDS)[-1:].repeat(2, 1))


def test_the_head_runs_over_the_rows_that_are_wanted():
    target = take(build(CONFIGS["llama"]))
    seen: list[int] = []
    hook = target.model.lm_head.register_forward_pre_hook(
        lambda _, args: seen.append(args[0].shape[1])
    )
    a, b = target.open(), target.open()
    target.forward([Feed(a, IDS, 1), Feed(b, IDS[:5], 3)])
    assert target.forward([Feed(a, IDS, 0)]).shape == (0, VOCAB)
    hook.remove()
    assert seen == [4, 1]  # one row is the least that every head takes


def test_bfloat16_agrees_with_float32_as_far_as_it_goes():
    plain = build(CONFIGS["qwen2"])
    target = take(build(CONFIGS["qwen2"]).to(torch.bfloat16))
    assert target.engine.packed
    a, b = target.open(), target.open()
    target.forward([Feed(a, IDS[:6], 1), Feed(b, IDS[:11], 1)])
    rows = target.forward([Feed(a, IDS[6:], 1), Feed(b, IDS[11:], 1)])
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows[0], rows[1], rtol=0, atol=0.05 * float(rows.abs().max()))
    wanted = full(plain, IDS)[-1]
    torch.testing.assert_close(rows[0], wanted, rtol=0, atol=0.1 * float(wanted.abs().max()))


def test_attention_equals_the_masked_softmax():
    """Sessions of every kind of past at once, over keys and values as they stand in the slots."""
    generator = torch.Generator().manual_seed(4)
    sizes = ((1, 1), (1, 9), (5, 5), (5, 9))  # tokens fed, and length with them
    total = sum(rows for rows, _ in sizes)
    q = torch.randn(1, 6, total, 8, generator=generator)
    owner = Engine(build(CONFIGS["llama"]), VOCAB, CONTEXT)
    parts, wanted, begin = [], [], 0
    news = []
    for rows, length in sizes:
        k, v = torch.randn(2, 2, length, 8, generator=generator)
        slot = owner.open()
        slot.reserve(length)
        if past := length - rows:
            slot.write(0, k[None, :, :past], v[None, :, :past])
            slot.advance(range(past))
        seen = torch.arange(length) <= torch.arange(past, length)[:, None]
        mask = torch.zeros(rows, length).masked_fill(~seen, -torch.inf)
        where = slice(begin, begin + rows)
        options = {"dtype": torch.float32, "device": "cpu"}
        parts.append(Part(slot, begin, rows, Sight(past, rows, options)))
        news.append((k[:, past:], v[:, past:]))
        scores = q[0, :, where] @ k.repeat_interleave(3, 0).mT * 0.3 + mask
        wanted.append(scores.softmax(-1) @ v.repeat_interleave(3, 0))
        begin += rows
    cache = StepCache(parts, packed=True)
    k, v = cache.update(*(torch.cat(x, 1)[None] for x in zip(*news, strict=True)), 0)
    with attention.running(cache):
        out, _ = attention.attend(torch.nn.Identity(), q, k, v, None, scaling=0.3)
    close(out[0], torch.cat(wanted, 1).transpose(0, 1))


def test_a_model_without_position_ids_is_fed_one_slot_after_the_other(monkeypatch):
    """A model that makes its own positions cannot tell where packed tokens stand."""
    plain, model = build(CONFIGS["llama"]), build(CONFIGS["llama"])
    forward = model.forward

    def own_positions(input_ids=None, position_ids=None, **kwargs):
        return forward(input_ids, **kwargs)

    model.forward = own_positions
    target = take(model)
    assert not target.engine.packed
    slots = [target.open() for _ in range(2)]
    target.forward([Feed(slots[0], IDS[:4], 1), Feed(slots[1], IDS[:9], 1)])
    rows = target.forward([Feed(slots[0], IDS[4:], 1), Feed(slots[1], IDS[9:], 1)])
    close(rows, full(plain, IDS)[-1:].repeat(2, 1))
