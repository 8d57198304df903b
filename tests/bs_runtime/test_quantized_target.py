"""A checkpoint in few bits as the target: its text through both ends is its own `generate`'s."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from bs_runtime.checkpoint import quantized
from bs_runtime.model import prepack
from bs_runtime.model.target import Target
from tests.bs_runtime.tiny import IDS
from tests.conftest import save_random
from tests.test_architecture_table import check, texts, through

for name in quantized.NEEDS["torchao"]:
    pytest.importorskip(name, reason=f"int8 weights are torchao's: pip install {name}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """A llama in int8, but for its head and table, as transformers saves it."""
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    path = tmp_path_factory.mktemp("quantized")
    # Above prepack's least size, as weights that people have are.
    save_random(path / "float", "llama", tokenizer, hidden_size=256, intermediate_size=256)
    model = AutoModelForCausalLM.from_pretrained(
        path / "float",
        dtype=torch.float32,
        quantization_config=TorchAoConfig(Int8WeightOnlyConfig()),
    )
    model.save_pretrained(path / "int8", safe_serialization=hasattr(model, "_weight_conversions"))
    tokenizer.save_pretrained(path / "int8")
    return path / "int8"


def test_its_text_is_its_own(folder, tokenizer, bundle):
    wanted = texts(folder, tokenizer)
    target = Target.load(folder)
    weight = target.model.model.layers[0].mlp.up_proj.weight
    assert "Int8" in type(weight).__name__ and target.engine.packed
    found, _, _ = through(bundle(), target, [ids for ids, _ in wanted])
    check(found, wanted, target)


def test_codes_are_not_packed_for_onednn(folder):
    """They are weights of plain layers, by their class."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    before = model(torch.tensor([IDS])).logits
    prepack.prepack(model, pays=lambda layers: True)
    assert isinstance(model.model.layers[0].mlp.up_proj, torch.nn.Linear)
    torch.testing.assert_close(model(torch.tensor([IDS])).logits, before, rtol=0, atol=1e-4)
