import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from bs_runtime.model import prepack
from bs_runtime.model.prepack import PackedLinear

pytestmark = pytest.mark.skipif(not prepack.available(), reason="this PyTorch has no oneDNN")


def llama(*, tied: bool = False) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=67,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).eval()


def always(layers) -> bool:
    return True


def test_equals_the_plain_product_for_any_number_of_rows():
    generator = torch.Generator().manual_seed(2)
    for inputs, outputs, bias in ((24, 40, False), (96, 33, True), (128, 512, True)):
        weight = torch.randn(outputs, inputs, generator=generator)
        offset = torch.randn(outputs, generator=generator) if bias else None
        layer = PackedLinear(weight, offset)
        for shape in ((1,), (1, 1), (1, 4), (3, 5), (1, 8), (70,), (2, 128), (3, 171)):
            x = torch.randn(*shape, inputs, generator=generator)
            plain = functional.linear(
                x.double(), weight.double(), None if offset is None else offset.double()
            )
            with torch.inference_mode():
                ours = layer(x)
            assert ours.shape == plain.shape
            # Rounding of a float32 sum: relative to the sum of the terms' sizes, not to the sum.
            size = functional.linear(
                x.abs(), weight.abs(), None if offset is None else offset.abs()
            )
            assert ((ours - plain).abs() <= inputs * 2**-24 * size).all()


class Shapes(TorchDispatchMode):
    """The rows of every packed product."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.mkldnn._linear_pointwise.default:
            self.rows.add(args[0].shape[:-1].numel())
        return function(*args, **(kwargs or {}))


def test_batches_of_any_size_need_few_kernels():
    """oneDNN keeps one for each number of rows: 400 took 800 MB in the embedded pair."""
    layer = PackedLinear(weight := torch.randn(16, 8), None)
    with torch.no_grad(), Shapes() as seen:
        for rows in range(1, 601):
            x = torch.randn(rows, 8)
            torch.testing.assert_close(layer(x), functional.linear(x, weight))
    assert len(seen.rows) <= 48
    assert max(seen.rows) == prepack.MOST


def test_takes_views_with_gaps():
    layer = PackedLinear(weight := torch.randn(16, 8), None)
    x = torch.randn(2, 6, 8)
    with torch.inference_mode():
        for view in (x[:, -1:], x[:, ::2], x.transpose(0, 1)):
            torch.testing.assert_close(layer(view), functional.linear(view, weight))


def test_a_packed_model_gives_the_same_logits():
    ids = torch.arange(12)[None]
    gpt2 = GPT2Config(vocab_size=67, n_embd=32, n_layer=2, n_head=4, n_positions=32)
    torch.manual_seed(3)
    for model in (llama(), llama(tied=True), GPT2LMHeadModel(gpt2).eval()):
        packed = copy.deepcopy(model)
        prepack.prepack(packed, min_elements=0, pays=always)
        assert not [m for m in packed.modules() if type(m) in (nn.Linear, Conv1D)]
        with torch.inference_mode():
            difference = (model(ids).logits - packed(ids).logits).abs().max()
        assert difference < 1e-5


def test_the_plain_weights_are_freed():
    model = llama()
    plain = [weakref.ref(m.weight) for m in model.modules() if type(m) is nn.Linear]
    assert len(plain) == 2 * 7 + 1
    assert prepack.prepack(model, min_elements=0, pays=always) == 0
    gc.collect()
    assert [ref for ref in plain if ref() is not None] == []


def test_a_tied_head_stays_once_for_the_embedding_and_is_counted():
    model = llama(tied=True)
    table = model.model.embed_tokens.weight
    assert prepack.prepack(model, min_elements=0, pays=always) == 67 * 32 * 4
    assert type(model.lm_head) is PackedLinear
    assert model.model.embed_tokens.weight is table


def test_a_weight_used_twice_is_packed_once():
    model = nn.ModuleDict({"a": nn.Linear(8, 8, bias=False), "b": nn.Linear(8, 8, bias=False)})
    model["b"].weight = model["a"].weight
    prepack.prepack(model, min_elements=0, pays=always)
    assert model["a"] is model["b"]
    assert type(model["a"]) is PackedLinear


def test_small_layers_and_subclasses_are_left_alone():
    class Scaled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 16), Scaled(8, 16))
    prepack.prepack(model, min_elements=128, pays=always)
    assert [type(m) for m in model] == [nn.Linear, PackedLinear, Scaled]


def test_only_float32_on_the_cpu():
    assert prepack.packs(llama())
    assert not prepack.packs(llama().to(torch.bfloat16))
    assert not prepack.packs(nn.Linear(2, 2, device="meta"))
    mixed = llama()
    mixed.model.norm.to(torch.float16)
    assert not prepack.packs(mixed)


GPT2_TINY = GPT2Config(vocab_size=67, n_embd=32, n_layer=1, n_head=4, n_positions=600)


@pytest.mark.parametrize("make", [llama, lambda: GPT2LMHeadModel(GPT2_TINY).eval()])
def test_bfloat16_on_the_cpu_has_few_shapes_too(make):
    plain, seen = make().to(torch.bfloat16), set()
    bounded = copy.deepcopy(plain)
    prepack.bound(bounded)
    for layer in bounded.modules():
        if type(layer) in (nn.Linear, Conv1D):
            layer.register_forward_pre_hook(lambda _, x: seen.add(x[0].shape[:-1].numel()))
    with torch.inference_mode():
        for rows in (1, 9, 17, 33, 257, 300):
            ids = torch.arange(rows)[:, None] % 67
            found, expected = bounded(ids).logits, plain(ids).logits
            assert (found - expected).abs().max() <= 0.02 * expected.abs().max()
    assert seen == {1, 9, 18, 36, 256, 44}


def test_off_where_the_build_has_no_packed_product(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not prepack.packs(llama())


def test_each_shape_is_tried_once_and_packed_where_that_pays():
    model, asked = llama(), []

    def pays(layers) -> bool:
        asked.append((len(layers), tuple(layers[0].weight.shape)))
        return layers[0].out_features == 48

    prepack.prepack(model, min_elements=0, pays=pays)
    kinds = {(32, 32): 4, (16, 32): 4, (48, 32): 4, (32, 48): 2, (67, 32): 1}  # q o, k v, gate up …
    assert sorted(asked) == sorted((count, shape) for shape, count in kinds.items())
    packed = [m.out_features for m in model.modules() if type(m) is PackedLinear]
    assert packed == [48] * 4


@pytest.mark.parametrize(
    ("plain", "packed", "expected"),
    [
        ({1: 1.0, 5: 5.0}, {1: 0.9, 5: 1.5}, True),
        ({1: 1.0, 5: 1.2}, {1: 1.3, 5: 1.1}, False),  # MKL's: a token alone is what it costs
        ({1: 1.0, 5: 2.0}, {1: 1.0, 5: 1.95}, False),  # not worth a second copy of a tied head
    ],
)
def test_a_trial_weighs_a_token_and_a_short_draft(monkeypatch, plain, packed, expected):
    clock = Clock()
    monkeypatch.setattr(prepack.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(PackedLinear, "forward", clock.takes(packed))
    monkeypatch.setattr(nn.Linear, "forward", clock.takes(plain))
    assert prepack.faster([nn.Linear(8, 8) for _ in range(3)]) == expected


class Clock:
    """Time that only products take, with one slow episode."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, 0

    def takes(self, seconds):
        def forward(layer, x):
            self.calls += 1
            self.now += seconds[x.shape[1]] * (40.0 if 10 < self.calls < 20 else 1.0)
            return x

        return forward
