import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from bs_runtime.checkpoint import hub
from bs_runtime.model import target
from bs_runtime.model.errors import TargetError
from bs_runtime.model.target import Target
from draftlink.protocol.tokenizer import tokenizer_hash
from tests.bs_runtime.tiny import CONFIGS, IDS, VOCAB, build, tokenizer


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
    assert (loaded.name, loaded.dtype, loaded.facts.eos_ids) == ("tiny", dtype, (1, 5))
    written = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert loaded.tokenizer_hash == tokenizer_hash(written)
    assert loaded.open().forward(IDS).shape == (len(IDS), VOCAB)


def refused(*args, **kwargs) -> str:
    with pytest.raises(TargetError) as caught:
        Target.load(*args, **kwargs)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_load_says_what_is_wrong_with_dtype_and_device(folder, monkeypatch):
    assert "no dtype 'int3'; use one of float32" in refused(folder, dtype="int3")
    assert "no device 'tpu'; use auto, cpu" in refused(folder, device="tpu")
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


def test_load_refuses_a_head_that_would_be_random(folder, tmp_path):
    model = build(CONFIGS["qwen2"])  # its head is not tied
    model.model.save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    assert "has no weights for lm_head.weight, which would be random" in refused(tmp_path)


def test_load_is_quick_to_say_that_the_hub_cannot_be_reached(monkeypatch):
    def unreachable(*_, **__):
        raise ConnectionError("no route")

    monkeypatch.setattr(hub.HfApi, "model_info", unreachable)
    text = refused("someone/no-such-model-anywhere")
    assert text.startswith("cannot load someone/no-such-model-anywhere: ")
    assert text.endswith("or a hub id that this machine can reach.")
