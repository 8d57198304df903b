"""Sliding windows and capped scores: full caches, masked, so that a rollback stays a length."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from transformers import MistralConfig

from bs_runtime.model import sight
from bs_runtime.model.block import ROOT
from bs_runtime.model.forward import HAS_TRITON, Engine
from bs_runtime.model.kv import Feed
from bs_runtime.model.target import Target
from tests.bs_runtime import tiny
from tests.bs_runtime.test_trees import path_to, tree
from tests.bs_runtime.tiny import take, text
from tests.bs_runtime.windowed import CONFIGS, CONTEXT, LOCAL, WINDOW

LENGTHS = (WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 1)


def build(name: str, **changes):
    config = copy.deepcopy(CONFIGS[name])
    for key, value in changes.items():
        setattr(config, key, value)
    model = tiny.build(config)
    if name == "gemma2":
        model.set_attn_implementation("eager")
    return model


def full(plain, ids: list[int]) -> torch.Tensor:
    return tiny.full(plain, ids)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=2e-5)


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request):
    """The plain model, and the same one as a target, as it comes from ``from_pretrained``."""
    target = take(tiny.build(CONFIGS[request.param]))
    assert target.engine.packed and target.context == CONTEXT
    return build(request.param), target


@pytest.mark.parametrize("length", LENGTHS)
def test_rows_about_the_windows_borders(pair, length):
    """A prompt of this length, the token behind it, and a draft, each alone and beside others."""
    plain, target = pair
    ids = text(length, length + 6)
    slot, other = target.open(), target.open()
    close(slot.forward(ids[:length]), full(plain, ids)[:length])
    close(slot.forward(ids[length : length + 1]), full(plain, ids)[length : length + 1])
    step = [Feed(other, ids[:3], 3), Feed(slot, ids[length + 1 :], 5)]
    close(target.forward(step), torch.cat([full(plain, ids)[:3], full(plain, ids)[length + 1 :]]))


def test_one_token_more_or_less_gives_other_rows(pair, monkeypatch):
    """The control: what is compared above does see the token at a window's border."""
    plain, target = pair
    ids = text(3, 2 * WINDOW + 1)
    through = sight.Sight.through
    for off in (-1, 1):
        monkeypatch.setattr(
            sight.Sight, "through", lambda self, w, off=off: through(self, w and w + off)
        )
        rows = target.open().forward(ids)
        assert float((rows - full(plain, ids)).abs()[WINDOW + 1 :].max()) > 1e-3


def rollbacks(plain, engine, count: int, seed: int) -> None:
    """Random histories of many sessions, cut back across the border again and again."""
    rng = random.Random(seed)
    slots = [engine.open() for _ in range(4)]
    histories: list[list[int]] = [[] for _ in slots]
    cut = 0
    while cut < count:
        feeds, wanted = [], []
        for slot, ids in zip(slots, histories, strict=True):
            if len(ids) > CONTEXT - 20:
                del ids[rng.randrange(2 * WINDOW) :]
            else:
                del ids[max(0, len(ids) - rng.choice((0, 1, 3, WINDOW, 2 * WINDOW))) :]
            cut += len(ids) < slot.length
            slot.rollback(len(ids))
            more = text(rng.randrange(1 << 30), rng.choice((1, 1, 2, 5, WINDOW, WINDOW + 3)))
            ids += more
            feeds.append(Feed(slot, more, len(more)))
            wanted.append(full(plain, ids)[-len(more) :])
        close(engine.forward(feeds).cpu(), torch.cat(wanted))


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.full)])
def test_random_rollbacks_across_borders(pair, count):
    plain, target = pair
    rollbacks(plain, target.engine, count, 1)


def branches(plain, engine, seed: int, count: int, size: int) -> None:
    """Random trees behind a chain, fed in two parts; each row is that of its own path."""
    rng = random.Random(seed)
    for _ in range(count):
        chain = text(rng.randrange(1 << 30), rng.choice((1, WINDOW - 2, 2 * WINDOW + 3)))
        parents, ids = tree(rng, size), text(rng.randrange(1 << 30), size)
        half = rng.randrange(1, size)
        slot = engine.open()
        found = [engine.forward([Feed(slot, chain + ids[:half], half, parents[:half])])]
        found.append(engine.forward([Feed(slot, ids[half:], size - half, parents[half:])]))
        paths = [path_to(parents, at) for at in range(size)]
        texts = [chain + [ids[i] for i in path] for path in paths]
        close(torch.cat(found).cpu(), torch.stack([full(plain, one)[-1] for one in texts]))
        kept = rng.choice(paths)
        slot.keep(kept)  # moves what is kept, and the window goes by where it is then
        history = chain + [ids[i] for i in kept] + [5, 6]
        close(slot.forward([5, 6]).cpu(), full(plain, history)[-2:])


@pytest.mark.parametrize("name", ["gemma3", "gemma2", "mistral"])
def test_ancestors_and_windows_compose(name):
    """Paths longer than the window: of a token's own ancestors it sees the last alone."""
    branches(build(name), take(tiny.build(CONFIGS[name])).engine, 2, 4, 2 * WINDOW)
    engine = take(tiny.build(CONFIGS[name])).engine
    line = engine.open()
    chain = [ROOT, ROOT, *range(1, 3 * WINDOW)]  # a sibling, and one path of three windows
    ids = text(9, len(chain))
    line.forward([5])
    rows = engine.forward([Feed(line, ids, len(ids), chain)])
    close(rows[1:], full(build(name), [5, *ids[1:]])[1:])


def fused(name: str) -> Engine:
    """As on a GPU; Triton's interpreter where there is none."""
    target = take(tiny.build(CONFIGS[name]))
    slot = target.open()
    slot.forward(text(0, 4))
    assert slot.layout is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bs_runtime.model.fused.Fused.capture", lambda _: None)
        target.engine.fuse(slot.layout, target.model.config.num_attention_heads)
    return target.engine


@pytest.mark.skipif(not HAS_TRITON, reason="Triton comes with PyTorch for GPUs")
@pytest.mark.parametrize("name", ["gemma2", pytest.param("gemma3", marks=pytest.mark.full)])
def test_windows_and_caps_in_the_kernels(name, monkeypatch):
    from bs_runtime.model import kernels

    monkeypatch.setattr(kernels, "MOST_SPLITS", 2)  # each is a program to interpret
    monkeypatch.setattr(kernels, "KEYS", 16)  # so that a window begins behind the first block
    plain, engine = build(name), fused(name)
    rollbacks(plain, engine, 4, 3)
    branches(plain, engine, 4, 1, 2 * WINDOW)


def test_a_soft_cap_is_kept_however_the_model_comes():
    """transformers' "sdpa" leaves it out, and it is what 4.57 loads Gemma 2 with."""
    ids, plain = text(1, 30), build("gemma2")
    bare = full(build("gemma2", attn_logit_softcapping=None), ids)
    assert float((bare - full(plain, ids)).abs().max()) > 1e-2
    target = take(tiny.build(CONFIGS["gemma2"]))
    assert target.engine.packed
    close(target.open().forward(ids), full(plain, ids))


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        ("deaf", f"its masks have a window of {WINDOW}, and its attention is told None"),
        ("other", f"its masks have a window of {WINDOW}, and its attention is told 5"),
        ("chunks", "neither causal nor windows"),
    ],
)
def test_windows_that_attention_is_not_told_are_left_to_the_masks(fault, why, caplog, monkeypatch):
    """Beyond the trial's few tokens: such a model is fed slot after slot, and is right."""
    if fault == "chunks":
        chunked(monkeypatch)
    models = [build("qwen2") for _ in range(2)]
    if fault != "chunks":
        layer = models[1].model.layers[-1].self_attn
        assert layer.sliding_window == WINDOW
        layer.sliding_window = None if fault == "deaf" else 5
    target = take(models[1])
    assert not target.engine.packed and why in caplog.text
    ids, slot = text(1, 40), target.open()
    rows = [slot.forward(ids[:30])]
    slot.rollback(20)
    rows.append(slot.forward(ids[20:]))
    close(torch.cat([rows[0][:20], rows[1]]), full(models[0], ids))


def chunked(monkeypatch) -> None:
    from transformers import masking_utils

    def windows(size):
        return lambda b, h, q, kv: (kv // size == q // size) & (kv <= q)

    name = "sliding_window_causal_mask_function"
    monkeypatch.setattr(masking_utils, name, windows)


def test_a_window_no_shorter_than_the_context_is_none():
    config = MistralConfig(**LOCAL | {"sliding_window": CONTEXT})
    target: Target = take(tiny.build(config))
    assert target.engine.packed
    ids = text(4, CONTEXT)
    close(target.open().forward(ids), full(tiny.build(config), ids))
