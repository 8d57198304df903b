"""Checkpoints that people download and that cannot be used end in one line, at both ends alike."""

from __future__ import annotations

import json
import re

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config, PreTrainedTokenizerFast

from bs_runtime.checkpoint import quantized
from bs_runtime.model.errors import TargetError
from bs_runtime.model.target import Target
from export import ExportError, source
from tests.architecture_rows import MAJOR, REFUSED
from tests.bs_runtime.tiny import CONFIGS, IDS, SHAPE, VOCAB, build, close, full, take, tokenizer


@pytest.fixture
def folder(tmp_path):
    """A function that saves a model, with something else in its configuration's file."""

    def make(model=None, **said):
        path = tmp_path / str(len(list(tmp_path.iterdir())))
        (model or build(CONFIGS["llama"])).save_pretrained(path)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer()).save_pretrained(path)
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps(config | said))
        return path

    return make


def refused(path, **options) -> tuple[str, str]:
    """What the base station says, and the exporter."""
    with pytest.raises(TargetError) as target:
        Target.load(path, **options)
    with pytest.raises(ExportError) as draft:
        source.load(path)
    said = str(target.value), str(draft.value)
    assert all("\n" not in text and str(path) in text for text in said)
    return said


@pytest.mark.parametrize(
    "method", ["bitsandbytes", "gptq", "awq", "fp8", "mxfp4", "torchao", "compressed-tensors"]
)
def test_a_quantized_checkpoint_names_its_method_and_what_reads_it(folder, monkeypatch, method):
    """Nothing of it may be installed here, so that raw exceptions were many."""
    monkeypatch.setattr(quantized, "find_spec", lambda name: None)
    path = folder(quantization_config={"quant_method": method, "bits": 4, "load_in_4bit": True})
    target, draft = refused(path)
    assert f"is quantized by {method}" in target and f"is quantized by {method}" in draft
    assert "checkpoint in floats" in target and "rounded from floats" in draft
    assert method == "awq" or "pip install " in target


@pytest.mark.parametrize("said", [{"quant_method": "modelopt"}, {"bits": 4}, [1], "int3"])
def test_a_quantization_that_nobody_knows_is_not_taken_for_floats(folder, said):
    """transformers passes it over with a warning; scales beside the weights would be left out."""
    assert not any("has no weights" in text for text in refused(folder(quantization_config=said)))


def test_whatever_a_quantizer_raises_is_one_line(folder, monkeypatch):
    def broken(*_, **__):
        raise NameError("name 'QuantizeConfig' is not defined\nand more")

    monkeypatch.setattr(quantized, "find_spec", lambda name: True)
    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", broken)
    path = folder(quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(TargetError, match="by gptq, and cannot be loaded here so: name 'Quant"):
        Target.load(path)


@pytest.mark.parametrize("name", ["flash_attention_2", "kernels-community/x", "nonsense"])
def test_an_attention_that_is_not_here_is_not_asked_for(folder, name):
    path = folder(_attn_implementation=name, attn_implementation=name)
    close(Target.load(path).open().forward(IDS), full(build(CONFIGS["llama"]), IDS))
    assert source.load(path)[0].config._attn_implementation == "eager"


@pytest.mark.parametrize("pad", [VOCAB, VOCAB + 1, -VOCAB - 1, -1])
def test_a_padding_id_beyond_the_vocabulary_does_not_matter(folder, pad):
    path = folder(pad_token_id=pad)
    close(Target.load(path).open().forward(IDS), full(build(CONFIGS["llama"]), IDS))
    close(full(source.load(path)[0], IDS), full(build(CONFIGS["llama"]), IDS))


@pytest.mark.parametrize("names", [["tokenizer.json"], ["tokenizer.json", "tokenizer_config.json"]])
def test_no_tokenizer(folder, names):
    path = folder()
    for name in names:
        (path / name).unlink()
    for text in refused(path):
        assert "has no tokenizer.json" in text and "NoneType" not in text


@pytest.mark.parametrize("kind", REFUSED)
def test_recurrent_hybrid_and_alibi_models_are_refused_by_name(tmp_path, kind):
    """By the configuration alone, before weights are read or fetched; and none is there."""
    known = AutoConfig.for_model(kind).to_dict()
    sizes = {key: value for key, value in SHAPE.items() if key in known}
    given, why = REFUSED[kind]
    AutoConfig.for_model(kind, **sizes | given, architectures=[_class(kind)]).save_pretrained(
        tmp_path
    )
    for error, load in ((TargetError, Target.load), (ExportError, source.load)):
        with pytest.raises(error, match=re.escape(why)) as caught:
            load(tmp_path)
        assert kind in str(caught.value)


def _class(kind: str) -> str:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    return NAMES[kind]


def test_a_model_that_transformers_cannot_run_is_refused_by_name(monkeypatch):
    model = build(CONFIGS["llama"])

    def forward(*_, **__):
        raise TypeError("expected Tensor as element 0\nbut got NoneType")

    monkeypatch.setattr(model, "forward", forward)
    with pytest.raises(TargetError, match=r"own code of llama cannot run it \(expected Tensor"):
        take(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_not_called_a_cache(value):
    model = build(CONFIGS["llama"])
    model.model.layers[0].mlp.up_proj.weight.data[0, 0] = value
    with pytest.raises(TargetError, match="are no numbers") as caught:
        take(model)
    assert "rolled back" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("said", [{"scale_attn_weights": False}, {"inverse": True}, {}])
def test_an_attention_that_leaves_out_a_setting_is_not_used(said, dtype, caplog):
    """GPT-2's scales are its eager attention's alone in 4.57; in 5 all are told of them."""
    said = {"scale_attn_by_inverse_layer_idx": True} if "inverse" in said else said
    config = GPT2Config(**CONFIGS["gpt2"].to_dict() | {"n_layer": 4} | said)
    model = build(config).to(dtype)
    plain = build(config).to(dtype)
    plain.set_attn_implementation("eager")
    wanted = full(plain, IDS).float()
    target = take(model)
    left_out = "leaves out what eager has" in caplog.text
    assert left_out == (bool(said) and MAJOR < 5) == (not target.engine.packed)
    found = target.open().forward(IDS)
    if dtype == torch.float32:
        close(found, wanted)
    else:
        assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()
