"""Where a target runs and in which precision, and what is said where it cannot fit."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from bs_runtime.model import choice, target
from bs_runtime.model.choice import Size, choose_dtype, find_device, own_dtype, size_of
from bs_runtime.model.errors import TargetError
from bs_runtime.model.loading import open_model
from bs_runtime.model.target import Target
from tests.bs_runtime.tiny import CONFIGS, CONTEXT, IDS, build, tokenizer

CPU, GPU = torch.device("cpu"), torch.device("cuda")
BILLION = Size(1_000_000_000, table=100_000_000, cached=32_768, context=4096)
FLOAT32 = 4_400_000_000  # bytes on a CPU, with the packed head
FASTER = {torch.bfloat16: 2.0, torch.float16: 1.0}


def chosen(asked="auto", size=BILLION, place=CPU, free=1 << 40, **options) -> torch.dtype:
    return choose_dtype(
        asked, size, place, free=lambda _: free, seconds=FASTER.__getitem__, **options
    )


def test_auto_is_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert find_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("auto") == GPU


def test_on_a_cpu_auto_is_float32_where_it_fits_else_the_faster():
    assert chosen(free=FLOAT32) == torch.float32
    assert chosen(free=FLOAT32 - 1) == torch.float16
    other = {torch.bfloat16: 1.0, torch.float16: 2.0}.__getitem__
    short = choose_dtype("auto", BILLION, CPU, free=lambda _: FLOAT32 - 1, seconds=other)
    assert short == torch.bfloat16
    assert all(choice.product_seconds(dtype) > 0 for dtype in FASTER)


def test_on_a_gpu_auto_is_the_checkpoints_own():
    assert chosen(place=GPU, own=torch.bfloat16) == torch.bfloat16
    assert chosen(place=GPU, own=torch.float32, free=4_000_000_000) == torch.float32


def test_what_cannot_fit_is_refused_with_the_arithmetic():
    with pytest.raises(TargetError) as caught:
        chosen("float32", free=3_000_000_000, name="big")
    assert str(caught.value) == (
        "big does not fit in float32: 1 billion parameters × 4 bytes + a head of 0.4 GB beside its"
        " table = 4.40 GB, and 3.00 GB are free on cpu; use --dtype bfloat16, or a smaller or a"
        " quantized model"
    )
    with pytest.raises(TargetError, match=r"= 4\.40 GB, and 1\.00 GB are free") as caught:
        chosen(free=1_000_000_000)
    assert "--dtype" not in str(caught.value)
    with pytest.raises(TargetError, match=r"× 2 bytes = 2\.00 GB, and .* or --device cpu"):
        chosen("bfloat16", place=GPU, free=1_000_000_000)
    # A GGUF file's reader has float32 first.
    read = Size(1_000_000_000, 0, 0, 4096, reads=4)
    with pytest.raises(TargetError, match=r"as much × 4 while the file is read = 6\.00 GB"):
        chosen("bfloat16", read, free=5_999_999_999)
    assert chosen("bfloat16", read, free=6_000_000_000) == torch.bfloat16
    with pytest.raises(TargetError, match=r"0\.80 GB of weights as they are, and 0\.70 GB"):
        chosen("float32", Size(None, 0, 0, 4096, codes=800_000_000), free=700_000_000)


def test_what_is_not_known_is_tried(caplog):
    with caplog.at_level(logging.INFO, "draftlink.bs"):
        assert chosen("float32", Size(None, 0, 0, 0), free=0) == torch.float32
    assert "memory that cannot be told before" in caplog.text


@pytest.fixture
def folder(tmp_path):
    build(CONFIGS["llama"]).bfloat16().save_pretrained(tmp_path)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer()).save_pretrained(tmp_path)
    return tmp_path


def test_a_folders_size_is_that_of_its_model(folder):
    files = open_model(str(folder))
    model = build(CONFIGS["llama"])
    size = size_of(files)
    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert (size.table, size.cached, size.context) == (67 * 32, 2 * 2 * 2 * 8, CONTEXT)
    assert own_dtype(files) == torch.bfloat16
    slot = Target.load(folder).open()
    slot.forward(IDS)
    assert slot.bytes == slot.capacity * size.cached * 4


def test_memory_is_asked_before_anything_is_loaded(folder, monkeypatch, caplog):
    with caplog.at_level(logging.INFO, "draftlink.bs"):
        assert Target.load(folder, device="cpu", dtype="auto").dtype == "float32"
    told = caplog.messages[0]
    assert "in float32 on cpu" in told and "for each 1,000 tokens of a history" in told
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(
        target, "choose_dtype", lambda *a, **o: choose_dtype(*a, **o, free=lambda _: 1000)
    )
    with pytest.raises(TargetError, match=r"does not fit in float32: .* 0\.00 GB are free"):
        Target.load(folder)


def test_a_context_of_ones_own(folder):
    loaded = Target.load(folder, context=8)
    slot = loaded.open()
    assert (loaded.context, slot.forward(IDS[:8]).shape[0]) == (8, 8)
    with pytest.raises(TargetError, match="9 tokens, where the context is 8"):
        slot.forward(IDS[:1])
    assert Target.load(folder, context=1).context == 1  # less than the trial takes
    for wrong in (0, CONTEXT + 1):
        with pytest.raises(TargetError, match=f"between 1 and {CONTEXT} tokens, not {wrong}"):
            Target.load(folder, context=wrong)


def test_a_checkpoint_that_says_no_precision_is_in_float32(folder):
    config = json.loads((folder / "config.json").read_text())
    for name in ("dtype", "torch_dtype"):
        config.pop(name, None)
    (folder / "config.json").write_text(json.dumps(config))
    assert own_dtype(open_model(str(folder))) == torch.float32
