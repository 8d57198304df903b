"""The configuration of a GGUF file.

transformers' reader takes from a file what it knows and passes over the rest in silence: how a
rotary embedding is scaled, biases that a configuration says nothing of, the size of Qwen 3's heads.
So the configuration is made here, of keys and tensors that are all accounted for, and what is not
known is refused by its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from bs_runtime.checkpoint.config import make_config
from bs_runtime.checkpoint.gguf_file import GgufFile
from bs_runtime.checkpoint.gguf_keys import Keys
from bs_runtime.checkpoint.gguf_rope import FREQUENCIES, rope
from bs_runtime.checkpoint.gguf_tokenizer import special_id

# The tensors of a block, by what their shapes are made of.
_LLAMA: Final = {
    "attn_norm.weight": ("hidden",),
    "attn_q.weight": ("queries", "hidden"),
    "attn_k.weight": ("keys", "hidden"),
    "attn_v.weight": ("keys", "hidden"),
    "attn_output.weight": ("hidden", "queries"),
    "ffn_norm.weight": ("hidden",),
    "ffn_gate.weight": ("inner", "hidden"),
    "ffn_up.weight": ("inner", "hidden"),
    "ffn_down.weight": ("hidden", "inner"),
}
_BIASES: Final = {
    "attn_q.bias": ("queries",),
    "attn_k.bias": ("keys",),
    "attn_v.bias": ("keys",),
}
_HEAD_NORMS: Final = {"attn_q_norm.weight": ("head",), "attn_k_norm.weight": ("head",)}
_POST_NORMS: Final = {
    "post_attention_norm.weight": ("hidden",),
    "post_ffw_norm.weight": ("hidden",),
}


@dataclass(frozen=True)
class Architecture:
    """What transformers calls an architecture of GGUF, and what a block of it has."""

    model_type: str
    block: dict[str, tuple[str, ...]]
    keys: tuple[str, ...] = ()  # that it has beside those of all
    full_every: int = 1  # each n-th layer looks at everything, the others at a window
    largest: int = 0  # layers of its one size whose queries are scaled by hidden / heads


ARCHITECTURES: Final = {
    "llama": Architecture("llama", _LLAMA),
    "qwen2": Architecture("qwen2", _LLAMA | _BIASES),
    "qwen3": Architecture("qwen3", _LLAMA | _HEAD_NORMS),
    "gemma2": Architecture(
        "gemma2",
        _LLAMA | _POST_NORMS,
        ("attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping"),
        full_every=2,
        largest=46,
    ),
    "gemma3": Architecture(
        "gemma3_text",
        _LLAMA | _POST_NORMS | _HEAD_NORMS,
        ("attention.sliding_window", "rope.freq_base_swa"),
        full_every=6,
        largest=62,
    ),
}
KEYS: Final = (
    *("context_length", "embedding_length", "block_count", "feed_forward_length", "vocab_size"),
    *("attention.head_count", "attention.head_count_kv", "attention.key_length"),
    *("attention.value_length", "attention.layer_norm_rms_epsilon"),
    *("rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor"),
    *("rope.scaling.original_context_length", "rope.scaling.finetuned"),
)


def read_gguf_config(file: GgufFile) -> Any:
    """The configuration, after all tensors were found to be those that it needs.

    Raises CheckpointError for an architecture, a key, a tensor or a quantization that is not known.
    """
    name = file.text("general.architecture") or ""
    if (general := file.text("general.type") or "model") != "model":
        file.refuse(f"it is of type {general}, not a model")
    if (file.integer("split.count") or 1) > 1:
        file.refuse("it is one part of several; join them with `llama-gguf-split --merge`")
    if name not in ARCHITECTURES:
        file.refuse(f"its architecture {name} is not read; {', '.join(ARCHITECTURES)} are")
    kind, said = ARCHITECTURES[name], Keys(file, name)
    said.check_keys((*KEYS, *kind.keys))
    hidden, heads = said.size("embedding_length"), said.size("attention.head_count")
    head = said.size("attention.key_length", hidden // heads)
    sizes = {
        "vocab_size": len(file.texts("tokenizer.ggml.tokens") or ()),
        "hidden_size": hidden,
        "intermediate_size": said.size("feed_forward_length"),
        "num_hidden_layers": said.size("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": said.size("attention.head_count_kv"),
        "head_dim": head,
        "max_position_embeddings": said.size("context_length"),
    }
    said.same("attention.value_length", head)
    said.same("rope.dimension_count", head)
    said.same("vocab_size", sizes["vocab_size"])
    _check_tensors(file, name, sizes)
    theirs = {
        "model_type": kind.model_type,
        "rms_norm_eps": said.number("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "bos_token_id": special_id(file, "bos"),
        "eos_token_id": special_id(file, "eos"),
        "pad_token_id": special_id(file, "padding"),
        "rope_parameters": rope(said, head, alike=kind.full_every == 1),
    }
    if kind.full_every > 1:
        theirs |= _windows(said, kind, sizes)
    return make_config(sizes | theirs)


def _check_tensors(file: GgufFile, name: str, sizes: dict[str, int]) -> None:
    """Whether the tensors are those of the sizes, all of them, and in kinds that can be read."""
    block, layers = ARCHITECTURES[name].block, sizes["num_hidden_layers"]
    head = sizes["head_dim"]
    lengths = {
        "vocabulary": sizes["vocab_size"],
        "hidden": sizes["hidden_size"],
        "inner": sizes["intermediate_size"],
        "head": head,
        "half": head // 2,
        "queries": sizes["num_attention_heads"] * head,
        "keys": sizes["num_key_value_heads"] * head,
    }
    if layers * len(block) > len(file.tensors):
        file.refuse(f"it has {len(file.tensors)} tensors, too few for its {layers} layers")
    outer = {
        "token_embd.weight": ("vocabulary", "hidden"),
        "output_norm.weight": ("hidden",),
        "output.weight": ("vocabulary", "hidden"),
    } | ({FREQUENCIES: ("half",)} if name == "llama" else {})
    needed = outer | {
        f"blk.{layer}.{tensor}": axes for layer in range(layers) for tensor, axes in block.items()
    }
    for tensor, stored in file.tensors.items():
        if tensor not in needed:
            file.refuse(f"it has the tensor {tensor}, which {name} has no place for here")
        shape = tuple(lengths[axis] for axis in needed[tensor])
        if stored.shape != shape:
            file.refuse(f"its tensor {tensor} has the shape {stored.shape}, not {shape}")
    optional = ("output.weight", FREQUENCIES)
    for tensor in needed:
        if tensor not in file.tensors and tensor not in optional:
            file.refuse(f"it lacks the tensor {tensor}")
    for kind in sorted({stored.kind for stored in file.tensors.values()}):
        if not _readable(kind):
            file.refuse(f"its quantization {kind} is not read; requantize it to Q8_0")


def _readable(kind: str) -> bool:
    from gguf import GGMLQuantizationType, dequantize
    from gguf.constants import GGML_QUANT_SIZES

    one = GGMLQuantizationType[kind]
    try:
        dequantize(np.zeros((1, GGML_QUANT_SIZES[one][1]), np.uint8), one)
    except NotImplementedError:
        return False
    return True


def _windows(said: Keys, kind: Architecture, sizes: dict[str, int]) -> dict[str, Any]:
    """What Gemma says besides, where no key does: llama.cpp knows it by the number of layers."""
    layers, every = sizes["num_hidden_layers"], kind.full_every
    largest = layers == kind.largest
    scalar = sizes["hidden_size"] // sizes["num_attention_heads"] if largest else sizes["head_dim"]
    found: dict[str, Any] = {
        "query_pre_attn_scalar": scalar,
        "sliding_window": said.size("attention.sliding_window"),
        "layer_types": [
            "sliding_attention" if (layer + 1) % every else "full_attention"
            for layer in range(layers)
        ],
    }
    for key, value in (("attn_logit_softcapping", 50.0), ("final_logit_softcapping", 30.0)):
        if key in kind.keys:
            found[key] = said.number(key, value)
    if kind.model_type == "gemma3_text":
        local = {"rope_type": "default", "rope_theta": said.number("rope.freq_base_swa", 10_000.0)}
        found["rope_parameters"] = {
            "full_attention": rope(said, sizes["head_dim"], alike=False),
            "sliding_attention": local,
        }
    return found
