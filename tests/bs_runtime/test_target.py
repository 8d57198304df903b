import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    T5Config,
    T5ForConditionalGeneration,
)

from bs_runtime import attention, prepack, target
from bs_runtime.prepack import PackedLinear
from bs_runtime.target import Target, TargetError
from draftlink.tokenizer import tokenizer_hash

VOCAB = 67
CONTEXT = 48
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16),
    "gemma": GemmaConfig(**SHAPE, head_dim=16),
    "gpt2": GPT2Config(
        vocab_size=VOCAB,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
    ),
}
IDS = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 32, 38, 46, 2, 64]


def build(config) -> PreTrainedModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():  # apart from the usual 0.02, so that logits differ by more than rounding
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w2"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def take(model: PreTrainedModel) -> Target:
    return Target(model, tokenizer().to_str(), "tiny", (1,))


def full(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids]), use_cache=False).logits[0]


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request):
    """The plain model, and the same one as a target with every layer packed."""
    config = CONFIGS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        pack = prepack.prepack
        patch.setattr(prepack, "prepack", lambda model: pack(model, min_elements=0))
        return build(config), take(build(config))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


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


def test_forward_last_is_the_last_row(pair):
    plain, target = pair
    slot = target.open()
    last = slot.forward_last(IDS[:9])
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
    ids = [*prompt, int(slot.forward_last(prompt)[0].argmax())]
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


def test_attention_equals_the_masked_softmax():
    generator = torch.Generator().manual_seed(4)
    for rows, length in ((1, 1), (1, 9), (5, 5), (5, 9)):
        q = torch.randn(1, 6, rows, 8, generator=generator)
        k, v = torch.randn(2, 1, 2, length, 8, generator=generator)
        scores = q @ k.repeat_interleave(3, 1).mT * 0.3
        seen = torch.arange(length) <= torch.arange(length - rows, length)[:, None]
        wanted = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v.repeat_interleave(3, 1)
        out, _ = attention.attend(torch.nn.Identity(), q, k, v, None, scaling=0.3)
        close(out, wanted.transpose(1, 2))


def test_a_model_that_ignores_rollback_is_refused(monkeypatch):
    monkeypatch.setattr(target.Slot, "rollback", lambda self, length: None)
    with pytest.raises(TargetError, match="cannot be rolled back"):
        take(build(CONFIGS["llama"]))


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (MistralConfig(**SHAPE, sliding_window=16), "sliding window of 16 tokens"),
        (
            Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=16, max_window_layers=1),
            "sliding window of 16 tokens",
        ),
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


def test_windows_as_long_as_the_context_are_taken():
    assert target.rollable_context(MistralConfig(**SHAPE, sliding_window=CONTEXT)) == CONTEXT
    assert target.rollable_context(Qwen2Config(**SHAPE, sliding_window=16)) == CONTEXT  # unused
    model = build(MistralConfig(**SHAPE, sliding_window=CONTEXT))
    plain = full(model, IDS)
    close(take(model).open().forward(IDS), plain)


def test_the_context_ends_where_the_rotary_frequencies_change():
    config = LlamaConfig(**SHAPE)
    config.rope_scaling = {"rope_type": "longrope", "original_max_position_embeddings": 16}
    assert target.rollable_context(config) == 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("models") / "tiny"
    model = build(CONFIGS["llama"])
    model.generation_config.eos_token_id = [1, 5]
    model.half().save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer()).save_pretrained(path)
    return path


@pytest.mark.parametrize("dtype", target.DTYPES)
def test_load(folder, dtype):
    loaded = Target.load(folder, dtype=dtype)
    assert (loaded.name, loaded.dtype, loaded.eos_token_ids) == ("tiny", dtype, (1, 5))
    assert loaded.tokenizer_hash == tokenizer_hash((folder / "tokenizer.json").read_text())
    assert loaded.open().forward(IDS).shape == (len(IDS), VOCAB)


def refused(*args, **kwargs) -> str:
    with pytest.raises(TargetError) as caught:
        Target.load(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_load_says_what_is_wrong_with_dtype_and_device(folder, monkeypatch):
    assert "no dtype 'int3'; use one of float32" in refused(folder, dtype="int3")
    assert "no device 'tpu'; use one of cpu" in refused(folder, device="tpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert "use --device cpu" in refused(folder, device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert "no device 'cuda:3'; there are 1" in refused(folder, device="cuda:3")


def test_load_says_what_is_wrong_with_the_folder(folder, tmp_path):
    assert "there is no folder" in refused(tmp_path / "none")
    assert "there is no folder" in refused("./none")
    assert "no config.json" in refused(tmp_path)
    assert "is a file" in refused(folder / "config.json")

    broken = tmp_path / "broken"
    broken.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (broken / name).write_bytes((folder / name).read_bytes())
    assert "cannot load" in refused(broken)  # no weights
    (broken / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    assert "cannot load" in refused(broken)
    (broken / "config.json").write_text(json.dumps({"model_type": "nothing-known"}))
    assert "cannot load" in refused(broken)


def test_load_refuses_an_encoder_decoder(tmp_path):
    config = T5Config(vocab_size=VOCAB, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path)
    assert "is an encoder-decoder model; use a decoder-only one" in refused(tmp_path)


def test_load_names_a_hub_id_that_cannot_be_reached(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("We couldn't connect to the hub.\nCheck your internet connection.")

    monkeypatch.setattr(target.AutoConfig, "from_pretrained", unreachable)
    text = refused("someone/some-model")
    assert text.startswith("cannot load someone/some-model: We couldn't connect to the hub. Give")
