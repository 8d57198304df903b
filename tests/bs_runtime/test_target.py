import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaConfig,
)

from bs_runtime.model import attention, forward, prepack, target
from bs_runtime.model.errors import TargetError
from bs_runtime.model.prepack import PackedLinear
from tests.bs_runtime.tiny import CONFIGS, CONTEXT, IDS, SHAPE, VOCAB, build, close, full, take


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request):
    """The plain model, and the same one as a target with every layer packed."""
    config = CONFIGS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        pack = prepack.prepack
        patch.setattr(prepack, "prepack", lambda model: pack(model, 0, lambda layers: True))
        return build(config), take(build(config))


def test_the_fast_paths_are_taken(pair):
    _, target = pair
    assert target.model.config._attn_implementation == attention.NAME
    assert any(type(m) is PackedLinear for m in target.model.modules()) == prepack.available()
    assert (target.vocab_size, target.context, target.dtype) == (VOCAB, CONTEXT, "float32")


@pytest.mark.parametrize("parts", [[16], [1] * 16, [10, 6], [9, 1, 5, 1], [1, 15]])
def test_parts_equal_the_whole(pair, parts):
    plain, target = pair
    slot = target.open()
    rows, begin = [], 0
    for size in parts:
        rows.append(slot.forward(IDS[begin : begin + size]))
        begin += size
        assert slot.length == begin
    assert rows[0].dtype == torch.float32
    close(torch.cat(rows), full(plain, IDS))


def test_going_on_after_rollbacks_equals_a_fresh_start(pair):
    plain, target = pair
    slot = target.open()
    slot.forward(IDS[:10])
    for keep, wrong in ((10, [60, 61, 62]), (7, [50]), (1, [33] * 20), (0, [40, 41])):
        slot.rollback(keep)
        slot.forward(wrong)
        slot.rollback(keep)
        assert slot.length == keep
        close(slot.forward(IDS[keep:]), full(plain, IDS)[keep:])


def test_rollback_to_where_it_is_changes_nothing(pair):
    plain, target = pair
    slot = target.open()
    slot.rollback(0)
    slot.forward(IDS[:5])
    slot.rollback(5)
    close(slot.forward(IDS[5:]), full(plain, IDS)[5:])


def test_last_is_the_last_row(pair):
    plain, target = pair
    slot = target.open()
    last = slot.forward(IDS[:9], last=True)
    assert last.shape == (1, VOCAB)
    close(last, full(plain, IDS)[8:9])
    close(slot.forward(IDS[9:], last=True), full(plain, IDS)[-1:])


def test_greedy_equals_generate(pair):
    plain, target = pair
    prompt = IDS[:6]
    wanted = plain.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=20,
        min_new_tokens=20,
        eos_token_id=None,
        pad_token_id=0,
    )[0].tolist()
    slot = target.open()
    ids = [*prompt, int(slot.forward(prompt, last=True)[0].argmax())]
    while len(ids) < len(wanted):
        ids.append(int(slot.forward(ids[-1:])[0].argmax()))
    assert ids == wanted
    # The same text out of blocks, as verification reads it.
    slot.rollback(len(prompt))
    assert slot.forward(wanted[6:-1]).argmax(-1).tolist() == wanted[7:]


def test_two_slots_do_not_disturb_each_other(pair):
    plain, target = pair
    other = [(5 * i + 1) % VOCAB for i in IDS]
    a, b = target.open(), target.open()
    rows_a, rows_b = [], []
    for begin in range(0, 16, 4):
        rows_a.append(a.forward(IDS[begin : begin + 4]))
        b.forward(IDS[:3])
        b.rollback(begin)
        rows_b.append(b.forward(other[begin : begin + 4]))
    close(torch.cat(rows_a), full(plain, IDS))
    close(torch.cat(rows_b), full(plain, other))


def test_a_refused_call_leaves_the_cache_as_it_was(pair):
    plain, target = pair
    slot = target.open()
    slot.forward(IDS[:8])
    for ids, why in (
        ([], "at least one id"),
        ([VOCAB], f"from 0 to {VOCAB - 1}"),
        ([-1], "from 0 to"),
        ([1] * (CONTEXT - 7), f"{CONTEXT + 1} tokens, where the context is {CONTEXT}"),
    ):
        with pytest.raises(TargetError, match=why):
            slot.forward(ids)
    for length in (-1, 9):
        with pytest.raises(TargetError, match=f"cannot roll 8 tokens back to {length}"):
            slot.rollback(length)
    close(slot.forward(IDS[8:]), full(plain, IDS)[8:])


def test_the_context_can_be_filled(pair):
    _, target = pair
    slot = target.open()
    slot.forward([2] * (CONTEXT - 1))
    slot.forward([2])
    with pytest.raises(TargetError, match="context"):
        slot.forward([2])


def test_a_forward_that_fails_midway_empties_the_slot():
    target = take(build(CONFIGS["llama"]))
    slot = target.open()
    slot.forward(IDS[:4])
    second = target.model.model.layers[1]
    hook = second.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        slot.forward(IDS[4:])
    hook.remove()
    assert slot.length == 0
    close(slot.forward(IDS), full(build(CONFIGS["llama"]), IDS))


def test_bfloat16_works_and_is_not_packed():
    model = build(CONFIGS["llama"]).to(torch.bfloat16)
    target = take(model)
    assert target.dtype == "bfloat16"
    assert not any(type(m) is PackedLinear for m in model.modules())
    assert target.open().forward(IDS).dtype == torch.float32


def test_attention_that_differs_is_not_replaced(monkeypatch):
    plain = build(CONFIGS["llama"])
    default = plain.config._attn_implementation
    wrong = attention.attend
    monkeypatch.setitem(
        attention.AttentionInterface._global_mapping,
        attention.NAME,
        lambda *args, **kwargs: (wrong(*args, **kwargs)[0] * 1.5, None),
    )
    target = take(build(CONFIGS["llama"]))
    assert target.model.config._attn_implementation == default
    close(target.open().forward(IDS), full(plain, IDS))


def test_attention_with_something_of_its_own_is_kept():
    eager = build(CONFIGS["llama"])
    eager.set_attn_implementation("eager")
    plain = full(eager, IDS)
    target = take(eager)
    assert target.model.config._attn_implementation == "eager"
    close(target.open().forward(IDS), plain)


def test_a_model_that_keeps_its_state_elsewhere_is_refused():
    model = build(CONFIGS["llama"])
    forward = model.forward
    model.forward = lambda input_ids, **_: forward(input_ids, use_cache=False)
    with pytest.raises(TargetError, match="cannot be rolled back"):
        take(model)


def test_a_model_that_ignores_rollback_is_refused(monkeypatch):
    monkeypatch.setattr(forward.Slot, "rollback", lambda self, length: None)
    with pytest.raises(TargetError, match="cannot be rolled back"):
        take(build(CONFIGS["llama"]))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (LlamaConfig(**SHAPE, layer_types=["linear_attention"] * 2), "linear_attention"),
    ],
)
def test_state_that_cannot_be_rolled_back_is_refused(config, why):
    with pytest.raises(TargetError, match=why):
        target.rollable_context(config)


def test_recurrent_models_are_refused():
    config = AutoConfig.for_model("mamba", vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1)
    with pytest.raises(TargetError, match="recurrent state"):
        take(AutoModelForCausalLM.from_config(config))


def test_the_context_ends_where_the_rotary_frequencies_change():
    config = LlamaConfig(**SHAPE)
    config.rope_scaling = {"rope_type": "longrope", "original_max_position_embeddings": 16}
    assert target.rollable_context(config) == 16
