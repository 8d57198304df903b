"""Every architecture that could once be packed stays packed: the lists are of before."""

from __future__ import annotations

import logging

import pytest
import transformers
from transformers import CONFIG_MAPPING

from bs_runtime.model import attention, forward
from tests.bs_runtime.architectures import tiny
from tests.bs_runtime.tiny import CONFIGS, IDS, build, close, full, take

# Made with transformers 4.57.6 and 5.24.0 by trying all that ``tiny`` can build, on the last commit
# on which a step reached the attention as an attribute of a tensor.
ALWAYS = """
    apertus arcee aria_text bitnet cohere cohere2 doge dots1 ernie4_5 ernie4_5_moe exaone4
    flex_olmo gemma gemma3_text gemma3n_text glm glm4 glm4_moe gpt-sw3 gpt2 gpt_neox granite
    helium hunyuan_v1_dense hunyuan_v1_moe lfm2 llama llama4_text ministral mistral mixtral
    modernbert-decoder olmo olmo2 olmo3 opt persimmon phi phi3 qwen2 qwen3 qwen3_moe seed_oss
    smollm3 starcoder2
"""
SINCE_5 = """
    afmoe apertus1p5_text beam bert bert-generation codegen cohere2_moe ctrl cwm electra ernie
    exaone exaone_moe gemma3n_text.shared gemma4_text gemma4_text.shared gemma4_unified_text
    gpt_bigcode gptj granitemoe granitemoeshared hrm_text hy_v3 hyperclovax internlm3
    iquestcoder jais2 kolibri1 laguna lfm2_moe lfm3 mellum minimax_m2 minimax_m3_vl_text
    ministral3 moshi nanochat nemotron olmoe phimoe qwen2_moe sarvam_moe solar_open
"""
UNTIL_4 = """
    code_llama deepseek_v2 deepseek_v3 gemma2 longcat_flash vaultgemma
"""
MAJOR = int(transformers.__version__.partition(".")[0])
PACKED = [*ALWAYS.split(), *(UNTIL_4 if MAJOR < 5 else SINCE_5).split()]


@pytest.mark.parametrize("name", [n for n in PACKED if n.partition(".")[0] in CONFIG_MAPPING])
def test_it_is_packed(name):
    """A target tries packed tokens, with a block that branches, before it says that it is."""
    target = take(tiny(name))
    assert target.engine.packed
    assert target.model.config._attn_implementation == attention.NAME


def test_the_list_is_long_enough_to_be_of_use():
    assert len(PACKED) > 50


def test_a_model_that_cannot_be_packed_says_so_and_what_it_costs(caplog):
    """One attention cannot be replaced, one makes positions of its own, and one fails."""
    eager = build(CONFIGS["llama"])
    eager.set_attn_implementation("eager")
    own_positions, failing = build(CONFIGS["llama"]), build(CONFIGS["llama"])
    model_forward = own_positions.forward
    own_positions.forward = lambda input_ids=None, position_ids=None, **kwargs: model_forward(
        input_ids, **kwargs
    )
    for model, why in (
        (eager, "its attention is eager"),
        (own_positions, "in one forward give other logits"),
        (failing, "in one forward are an error (no room for two)"),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "draftlink.bs"), pytest.MonkeyPatch.context() as at:
            if model is failing:
                at.setattr(forward.StepCache, "attend", broken)
            assert not take(model).engine.packed
        (line,) = caplog.messages
        assert why in line and "a step of n of them takes n forwards" in line
        assert "drafts that branch are refused" in line and "\n" not in line
    caplog.clear()
    assert take(build(CONFIGS["llama"])).engine.packed and not caplog.messages


def broken(*_):
    raise ValueError("no room for two\nand more")


def test_attention_without_a_step_or_over_other_keys_is_an_error():
    """The door's contract; a model that breaks it is found out when it is loaded."""
    model = build(CONFIGS["llama"])
    target = take(model)
    with pytest.raises(RuntimeError, match="through its Target"):
        full(model, IDS)
    update = forward.PackedStep.update

    def copying(self, *args):
        keys, values = update(self, *args)
        return keys.clone(), values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forward.PackedStep, "update", copying)
        with pytest.raises(LookupError, match="other keys than its cache returned"):
            target.open().forward(IDS)
    close(target.open().forward(IDS), full(build(CONFIGS["llama"]), IDS))


def test_two_targets_do_not_find_each_others_steps():
    """One inside the other's forward, as a hook of a model may do."""
    inner, outer = take(build(CONFIGS["llama"])), take(build(CONFIGS["qwen2"]))
    found = []
    hook = outer.model.model.layers[1].register_forward_pre_hook(
        lambda *_: found.append(inner.open().forward(IDS))
    )
    rows = outer.open().forward(IDS)
    hook.remove()
    close(rows, full(build(CONFIGS["qwen2"]), IDS))
    close(found[0], full(build(CONFIGS["llama"]), IDS))
