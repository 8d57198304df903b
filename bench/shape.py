"""A model of Qwen2.5-0.5B's shape with random weights, in the form of each runtime.

    python -m bench.shape [--cache DIR]

Random weights are as fast as trained ones, and need no download; acceptance is never measured on
them. Everything is made once and kept in ``--cache`` (3 GB): the transformers folder, our int4
bundle, onnxruntime-genai's int4 graph by its own builder, llama.cpp's Q4_0 file. A runtime that is
not installed is named, and its form left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from draftlink.host import children

CACHE = Path("build/bench")
CONTEXT = 2048
SHAPE: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32_768,
    "rope_theta": 1_000_000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}


def folder(cache: Path) -> Path:
    """The transformers folder, bfloat16."""
    out = cache / "model"
    if not (out / "tokenizer.json").exists():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config

        import tinypair

        torch.manual_seed(0)
        config = Qwen2Config(**SHAPE, bos_token_id=0, eos_token_id=0)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(out)
        AutoTokenizer.from_pretrained(tinypair.DRAFT, trust_remote_code=False).save_pretrained(out)
    return out


def bundle(cache: Path) -> Path:
    """Our int4 bundle."""
    out = cache / "bundle"
    if not out.exists():
        from export.bundle import export_bundle
        from export.choose import Asked

        # Random weights: which of them lose the least is nothing to look for.
        export_bundle(folder(cache), out, "int4", context=CONTEXT, asked=Asked("low"))
    return out


def genai(cache: Path) -> Path:
    """onnxruntime-genai's int4 graph, as its own builder makes it."""
    out = cache / "genai"
    if not (out / "genai_config.json").exists():
        builder = children.python("-m", "onnxruntime_genai.models.builder")
        options = ["-i", folder(cache), "-o", out, "-p", "int4", "-e", "cpu", "-c", cache / "tmp"]
        command = [*builder, *map(str, options)]
        subprocess.run(command, check=True, capture_output=True, env=children.environment())
    return out


def gguf(cache: Path) -> Path:
    """llama.cpp's Q4_0 file."""
    out = cache / "q4_0.gguf"
    if not out.exists():
        part = out.with_suffix(".part")
        _write_gguf(folder(cache), part)
        part.rename(out)
    return out


def _write_gguf(source: Path, out: Path) -> None:
    import gguf
    from safetensors.torch import load_file

    Quant = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(str(out), "qwen2")
    writer.add_block_count(SHAPE["num_hidden_layers"])
    writer.add_context_length(SHAPE["max_position_embeddings"])
    writer.add_embedding_length(SHAPE["hidden_size"])
    writer.add_feed_forward_length(SHAPE["intermediate_size"])
    writer.add_head_count(SHAPE["num_attention_heads"])
    writer.add_head_count_kv(SHAPE["num_key_value_heads"])
    writer.add_rope_freq_base(SHAPE["rope_theta"])
    writer.add_layer_norm_rms_eps(SHAPE["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"<{i}>" for i in range(SHAPE["vocab_size"])])
    writer.add_token_types([gguf.TokenType.NORMAL] * SHAPE["vocab_size"])
    writer.add_token_merges(["< 0"])
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN2, SHAPE["num_hidden_layers"])
    for name, tensor in load_file(source / "model.safetensors").items():
        kind = Quant.Q4_0 if tensor.ndim == 2 else Quant.F32
        data = gguf.quants.quantize(tensor.float().numpy(), kind)
        written = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert written is not None, name
        writer.add_tensor(written, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def installed(*packages: str) -> bool:
    """Whether all of them can be imported."""
    return all(importlib.util.find_spec(package) for package in packages)


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, default=CACHE)
    cache = parser.parse_args().cache
    console = Console()
    forms: list[tuple[str, Callable[[Path], Path], tuple[str, ...]]] = [
        ("Draftlink bundle", bundle, ("onnxruntime",)),
        ("onnxruntime-genai graph", genai, ("onnxruntime_genai",)),
        ("llama.cpp file", gguf, ("gguf",)),
    ]
    for title, make, packages in forms:
        if installed(*packages):
            with console.status(f"making the {title}"):
                console.print(f"{title}: {make(cache)}")
        else:
            console.print(f"{title}: {', '.join(packages)} not installed")


if __name__ == "__main__":
    main()
