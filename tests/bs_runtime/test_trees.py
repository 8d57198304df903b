"""Tokens with ancestors: a row of a tree is the row of its own path, wherever its K/V lie."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import LlamaConfig

from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.model import forward, sight
from bs_runtime.model.block import MOST, ROOT, Block
from bs_runtime.model.errors import TargetError
from bs_runtime.model.forward import HAS_TRITON, Engine
from bs_runtime.model.kv import Feed, Slot
from draftlink.distribution.sparse import Drafted
from tests.bs_runtime.test_slots import generation
from tests.bs_runtime.tiny import CONFIGS, CONTEXT, IDS, SHAPE, VOCAB, build, full, take, text

# Triton's interpreter takes milliseconds for each head of each token and layer.
FEW_HEADS = {**SHAPE, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8}
MODELS = {**CONFIGS, "few heads": LlamaConfig(**FEW_HEADS)}
if HAS_TRITON:
    from bs_runtime.model import fused, kernels
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="Triton comes with PyTorch for GPUs")
PATHS = [
    *(pytest.param((name, False), id=name) for name in CONFIGS),
    pytest.param(("few heads", True), id="fused", marks=needs_triton),
]


def engine(name: str, fuses: bool) -> Engine:
    """A tiny float64 model's engine, on the CPU or as on a GPU, in Triton's interpreter."""
    model = build(MODELS[name]).double()
    made = take(model).engine
    assert made.packed
    if fuses:
        slot = made.open()
        slot.forward(IDS)
        layout = slot.layout
        assert layout is not None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bs_runtime.model.fused.Fused.capture", lambda _: None)
            made.fuse(layout, model.config.num_attention_heads)
    return made


@pytest.fixture(params=PATHS)
def case(request, monkeypatch):
    name, fuses = request.param
    if fuses:
        monkeypatch.setattr(kernels, "MOST_SPLITS", 2)  # each is a program to interpret
    return build(MODELS[name]).double(), engine(name, fuses), fuses


def tree(rng: random.Random, size: int) -> list[int]:
    """Random parents; some trees are bushy, some nearly chains."""
    straight = rng.choice((0.0, 0.5, 0.9))
    return [i - 1 if rng.random() < straight else rng.randrange(ROOT, i) for i in range(size)]


def path_to(parents: Sequence[int], at: int) -> list[int]:
    found = []
    while at != ROOT:
        found.append(at)
        at = parents[at]
    return found[::-1]


@dataclasses.dataclass
class Grown:
    """A slot, and what a test knows of it: its chain, and a block that is still to be fed."""

    slot: Slot
    chain: list[int]
    ids: list[int]
    parents: list[int]
    fed: int = 0
    context: int = CONTEXT

    @classmethod
    def random(cls, rng: random.Random, slot: Slot, chain: list[int], size: int) -> Grown:
        parents = tree(rng, size)
        while max(len(path_to(parents, i)) for i in range(size)) + len(chain) > CONTEXT:
            parents = tree(rng, size)
        return cls(slot, chain, text(rng.randrange(1 << 30), size), parents)

    def feed(self, most: int) -> Feed:
        """The next tokens; with the first ones what is missing of the chain."""
        ids, parents = (x[self.fed : self.fed + most] for x in (self.ids, self.parents))
        lacking = self.chain[len(self.slot.ids) :]
        self.fed += len(ids)
        return Feed(self.slot, lacking + ids, len(ids), parents)

    def text(self, at: int) -> list[int]:
        """The chain, and a token's path behind it."""
        return self.chain + [self.ids[i] for i in path_to(self.parents, at)]


class Exact:
    """An engine's rows as the model makes them: the engine gives them in single precision."""

    def __init__(self, made: Engine) -> None:
        self.made = made
        made.model.register_forward_hook(lambda _, __, found: setattr(self, "logits", found.logits))

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        rows = self.made.forward(feeds)
        exact = self.logits[0, : len(rows)]
        assert exact.dtype == torch.float64 and torch.equal(exact.float(), rows)
        return exact


def alone(plain, exact: Exact, fuses: bool):
    """The rows behind texts that are fed by themselves, as chains.

    Fused rows are compared with fused ones: Triton takes a scale in single precision. That those
    of chains are the plain model's is for ``test_fused`` to say.
    """
    if not fuses:
        return lambda texts: torch.stack([full(plain, ids)[-1] for ids in texts])

    def rows_of(texts):
        """One chain serves all texts that begin it."""
        chains: list[list[int]] = []
        for ids in sorted(texts, reverse=True):
            if not chains or chains[-1][: len(ids)] != ids:
                chains.append(ids)
        rows = exact.forward([Feed(exact.made.open(), ids, len(ids)) for ids in chains])
        found, begin = {}, 0
        for ids in chains:
            found |= {tuple(ids[: i + 1]): rows[begin + i] for i in range(len(ids))}
            begin += len(ids)
        return torch.stack([found[tuple(ids)] for ids in texts])

    return rows_of


def run(exact: Exact, rows_of, slots: Sequence[Grown], most: int) -> float:
    """Feed blocks in parts of ``most``, all in one step as long as they last; the largest error."""
    found: list[torch.Tensor] = []
    texts: list[list[int]] = []
    while left := [one for one in slots if one.fed < len(one.ids)]:
        begins = [one.fed for one in left]
        found.append(exact.forward([one.feed(most) for one in left]))
        for one, begin in zip(left, begins, strict=True):
            texts += [one.text(at) for at in range(begin, one.fed)]
    return float((torch.cat(found) - rows_of(texts)).abs().max())


@pytest.mark.parametrize("most", [MOST, 9, 1])
def test_a_row_of_a_tree_is_that_of_its_path_before_and_after_keep(case, most):
    """Several slots in a step, with and without a chain of their own, one tree behind another."""
    plain, made, fuses = case
    if fuses and most == 1:
        pytest.skip("the interpreter takes its time")
    exact, rng = Exact(made), random.Random(most)
    rows_of = alone(plain, exact, fuses)
    rounds = [(MOST, 30, 2, 7), (7, 1, 40, MOST)]
    if fuses:
        rounds = [(MOST, 3)] if most == MOST else [(14, 5), (3, 6)]
    slots = [made.open() for _ in rounds[0]]
    chains = [text(seed, length) for seed, length in zip(range(4), (3, 0, 1, 12), strict=True)]
    del chains[len(slots) :]
    for sizes in rounds:
        each = zip(slots, chains, sizes, strict=True)
        grown = [Grown.random(rng, *one) for one in each]
        assert run(exact, rows_of, grown, most) < 1e-9
        for i, one in enumerate(grown):
            path = path_to(one.parents, rng.randrange(len(one.ids)))[:4]
            one.slot.keep(path)
            chains[i] = one.chain + [one.ids[at] for at in path]
            assert one.slot.ids == chains[i] and not one.slot.block
            assert one.slot.length == len(chains[i])
        after = exact.forward([Feed(slot, [5, 6], 2) for slot in slots])
        wanted = rows_of([ids + more for ids in chains for more in ([5], [5, 6])])
        assert float((after - wanted).abs().max()) < 1e-9
        for slot, chain in zip(slots, chains, strict=True):
            slot.rollback(len(chain))


@pytest.mark.parametrize("case", [PATHS[0], PATHS[-1]], indirect=True)
def test_a_mask_that_is_off_by_one_gives_other_rows(case, monkeypatch):
    """The control: what is compared above does tell a token's ancestors from its neighbours'."""
    plain, made, fuses = case
    exact = Exact(made)
    rows_of = alone(plain, exact, fuses)
    family, attend = sight.family, kernels.attend if fuses else None
    monkeypatch.setattr(
        sight, "family", lambda masks, size: np.roll(family(masks, size), 1, axis=1)
    )

    def shifted(query, layer, kv_heads, form, of, tiles):
        of = dataclasses.replace(of, ancestors=of.ancestors << 1)
        return attend(query, layer, kv_heads, form, of, tiles)

    if fuses:
        monkeypatch.setattr(kernels, "attend", shifted)
    one = Grown(made.open(), text(1, 9), text(2, 12), [ROOT, ROOT, *range(10)])
    assert run(exact, rows_of, [one], MOST) > 1e-3


def test_a_chain_builds_the_masks_of_before_whether_or_not_it_is_under_verification(monkeypatch):
    """None for a single token and for an empty slot, and never one that names ancestors."""
    made = engine("llama", False)
    monkeypatch.setattr(sight, "family", lambda *_: pytest.fail("a chain needs no ancestors"))
    steps: list[forward.StepCache] = []
    begin = forward.StepCache.__init__

    def watched(self, parts, *, packed):
        begin(self, parts, packed=packed)
        steps.append(self)

    monkeypatch.setattr(forward.StepCache, "__init__", watched)
    found = []
    for parents in ((), range(ROOT, 4)):
        slot = made.open()
        slot.forward(IDS[:5])
        slot.forward(IDS[5:6])
        found.append(made.forward([Feed(slot, IDS[6:11], 5, parents)]))
        given = [step.parts[0].sight.through(None).mask is not None for step in steps[-3:]]
        assert given == [False, False, True]
    assert torch.equal(*found) and slot.block == IDS[6:11]


def test_what_is_kept_of_a_plain_chain_is_not_copied(monkeypatch):
    made = engine("llama", False)
    slot = made.open()
    monkeypatch.setattr(Slot, "move", lambda *_: pytest.fail("nothing is to be moved"))
    made.forward([Feed(slot, IDS[:9], 5, range(ROOT, 4))])
    assert (slot.ids, slot.block) == (IDS[:4], IDS[4:9])
    slot.keep(range(3))
    assert (slot.ids, slot.block, slot.length) == (IDS[:7], [], 7)
    made.forward([Feed(slot, [1, 2, 3], 0, [ROOT, ROOT, 1])])
    slot.keep([0])  # of a tree, too
    assert slot.ids == [*IDS[:7], 1]


def test_a_chain_under_verification_may_be_longer_than_a_mask():
    made = engine("llama", False)
    made.context = 4 * MOST
    slot = made.open()
    for begin in range(0, 2 * MOST, 50):
        made.forward([Feed(slot, [7] * 50, 0, range(begin - 1, begin + 49))])
    slot.keep(range(MOST + 9))
    assert slot.length == len(slot.ids) == MOST + 9


def test_another_slot_copies_of_the_committed_chain_alone():
    """A sibling's keys and values are of another text, and what is not verified may not stand."""
    plain, made = build(CONFIGS["llama"]).double(), engine("llama", False)
    source, slot = made.open(), made.open()
    made.forward([Feed(source, [*IDS[:5], 60, IDS[5]], 0, [ROOT, ROOT])])
    slot.adopt(source, [*IDS[:5], 60, IDS[5]])
    assert slot.ids == IDS[:5] and not slot.block
    close = float((slot.forward(IDS[5:]).double() - full(plain, IDS)[5:]).abs().max())
    assert close < 1e-4
    source.keep([1])
    other = made.open()
    other.adopt(source, IDS)
    assert other.ids == IDS[:6]
    behind = made.open()  # a block in the way: its place is taken
    made.forward([Feed(behind, IDS[:4], 0, range(ROOT, 1))])
    behind.adopt(source, IDS)
    assert (behind.ids, behind.block) == (IDS[:2], IDS[2:4])


def test_a_rollback_into_a_block_commits_what_is_left_of_it_if_that_is_a_path():
    made = engine("llama", False)
    slot = made.open()
    made.forward([Feed(slot, IDS[:8], 0, range(ROOT, 3))])
    slot.rollback(6)
    assert (slot.ids, slot.block) == (IDS[:6], [])
    made.forward([Feed(slot, [1, 2, 3], 0, [ROOT, ROOT, 0])])
    with pytest.raises(TargetError, match="not a path"):
        slot.rollback(8)
    assert (slot.ids, slot.block) == (IDS[:6], [1, 2, 3])
    slot.rollback(5)
    assert (slot.ids, slot.block) == (IDS[:5], [])


def test_blocks_that_are_none_are_refused_and_change_nothing():
    plain, made = build(CONFIGS["llama"]).double(), engine("llama", False)
    slot = made.open()
    made.forward([Feed(slot, IDS[:6], 0, [ROOT, 0])])
    for ids, parents, why in (
        ([1], [2], "parents before their children"),
        ([1], [-2], "parents before their children"),
        ([1] * 63, [ROOT] * 63, "at most 64 tokens, not 65"),
        ([1], [], "keep a path of it"),
        ([1, 2], [1], "keep a path of it"),
    ):
        with pytest.raises(TargetError, match=why):
            made.forward([Feed(slot, ids, 1, parents)])
    for path in ([1], [0, 0], [0, 2], [-1], [1, 0]):
        with pytest.raises(TargetError, match="not a path"):
            slot.keep(path)
    assert (slot.ids, slot.block) == (IDS[:4], IDS[4:6])
    rows = made.forward([Feed(slot, IDS[6:], len(IDS) - 6, range(1, len(IDS) - 5))])
    torch.testing.assert_close(rows.double(), full(plain, IDS)[6:], rtol=0, atol=1e-5)


def test_the_context_bounds_positions_and_not_the_entries_of_a_tree():
    plain, made = build(CONFIGS["llama"]).double(), engine("llama", False)
    slot, chain = made.open(), text(1, CONTEXT - 2)
    slot.forward(chain)
    wide = [ROOT] * 40 + list(range(20))  # depth 2: the last two positions
    ids = text(2, len(wide))
    rows = made.forward([Feed(slot, ids, len(ids), wide)])
    assert slot.length > CONTEXT
    want = torch.stack(
        [full(plain, chain + [ids[i] for i in path_to(wide, at)])[-1] for at in range(len(ids))]
    )
    torch.testing.assert_close(rows.double(), want, rtol=0, atol=1e-5)
    with pytest.raises(TargetError, match=f"{CONTEXT + 1} tokens, where the context is"):
        made.forward([Feed(slot, [1], 1, [40])])
    slot.keep([3, 43])
    assert slot.length == CONTEXT


def test_a_forward_that_fails_leaves_the_block_as_it_was():
    plain, made = build(CONFIGS["llama"]).double(), engine("llama", False)
    slot = made.open()
    made.forward([Feed(slot, [*IDS[:4], 60, IDS[4]], 0, [ROOT, ROOT])])
    hook = made.model.model.layers[1].register_forward_pre_hook(
        lambda *_: (_ for _ in ()).throw(ValueError("broken"))
    )
    with pytest.raises(ValueError, match="broken"):
        made.forward([Feed(slot, IDS[5:7], 0, [1, 2])])
    hook.remove()
    assert (slot.ids, slot.block) == (IDS[:4], [60, IDS[4]])
    rows = made.forward([Feed(slot, IDS[5:7], 2, [1, 2])])
    torch.testing.assert_close(rows.double(), full(plain, IDS[:7])[5:], rtol=0, atol=1e-5)


def test_a_model_that_is_not_packed_takes_plain_chains_only():
    made = Engine(build(CONFIGS["llama"]), VOCAB, CONTEXT)
    slot = made.open()
    made.forward([Feed(slot, IDS[:4], 1, range(ROOT, 3))])
    slot.keep(range(4))
    with pytest.raises(TargetError, match="plain chains only"):
        made.forward([Feed(slot, [1, 2], 1, [ROOT, ROOT])])
    assert slot.ids == IDS[:4]


def test_the_last_bit_of_a_mask_is_an_ancestor_like_any_other():
    block = Block()
    masks = block.ancestors([ROOT, ROOT, *range(1, MOST - 1)])
    assert masks is not None
    assert masks[-1] == (1 << MOST) - 2  # all but the sibling
    seen = sight.family(masks, MOST)
    assert seen[-1].tolist() == [False] + [True] * (MOST - 1)
    assert not seen[:-1, -1].any()


@needs_triton
def test_a_captured_step_is_filled_up_and_used_again(monkeypatch):
    """What a graph replays reads the same tables; here they are read again without a GPU."""

    class Replayed:
        def __init__(self, size, run, logits, pool):
            self.tables, self._run = fused.Tables(size, logits.device), run

        def replay(self):
            return self._run(self.tables)

    monkeypatch.setattr(fused, "SIZES", (8, 32))
    monkeypatch.setattr(fused, "MOST", 32)
    plain, made = build(CONFIGS["llama"]), engine("llama", True)
    made.model.float()
    assert made.fused is not None
    held = torch.empty(0)
    made.fused._captured = {n: Replayed(n, made.fused._run, held, None) for n in fused.SIZES}
    tree, chain = made.open(), made.open()
    for parents in ([ROOT, ROOT, 1], [ROOT, 0, ROOT]):  # the second finds the first one's tables
        tree.close()
        chain.close()
        rows = made.forward(
            [Feed(tree, [*IDS[:3], 11, 12, 13], 3, parents), Feed(chain, IDS[:9], 2)]
        )
        ids = [11, 12, 13]
        texts = [IDS[:3] + [ids[i] for i in path_to(parents, at)] for at in range(3)]
        wanted = [full(plain, one)[-1:] for one in texts] + [full(plain, IDS[:9])[-2:]]
        torch.testing.assert_close(rows, torch.cat(wanted), rtol=0, atol=1e-5)


def test_what_a_round_drafts_is_for_others_to_copy_once_it_is_accepted():
    """A draft that is torn over steps; two of its tokens are accepted, and two are not."""
    plain, target = build(CONFIGS["llama"]), take(build(CONFIGS["llama"]))
    prompt = text(7, 20)
    ids = list(prompt)
    for _ in range(2):
        ids.append(int(full(plain, ids)[-1].argmax()))
    wrong = (int(full(plain, ids)[-1].argmax()) + 1) % VOCAB
    ids += [wrong, wrong]
    one = generation(target, prompt)

    async def scene() -> None:
        scheduler = Scheduler(target)
        await scheduler.run(one.prompt())
        round = one.draft([Drafted(token) for token in ids[20:]])
        round.take(target.forward([round.feed(3)]))
        assert (one.slot.ids, one.slot.block) == (prompt, ids[20:23])
        other = target.open()
        other.adopt(one.slot, ids)
        assert other.ids == prompt
        await scheduler.run(round)
        assert (one.slot.ids, one.slot.block) == (ids[:22], [])
        other.adopt(one.slot, ids)
        assert other.ids == ids[:22]

    asyncio.run(scene())
    assert one.history[:22] == ids[:22] and one.history[22] != wrong
