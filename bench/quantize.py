"""How a draft's weights are rounded, by the acceptance that is left: the default is chosen by it.

    python -m bench.quantize [--prompts 16] [--json FILE]
    python -m bench.quantize --model FOLDER [--context 1024] [--texts 8] [--json FILE]

The second takes any model, and real kernels: ``bench.real.techniques``.

The embedded pair on text that its target writes after held-out prompts, at temperature 1: mean
Σ min(p, q) against the target, for 4-bit rounding by the nearest code, by ours (the clip of each
block with the least squared error), by HQQ and k-quant as onnxruntime's quantizer offers them, each
in blocks of 16 to 256; then 4 bits with some of the matrices in 8, the most sensitive first. Only
weights are rounded, in PyTorch, so that all ways are compared on the same ground; what the finished
bundle loses, activations included, is told by ``tinypair.evaluate``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantizer
from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

import tinypair
from bench.real import techniques
from export import rounding
from export.rounding import Rounding as Kind
from export.rounding import nearest as nearest_codes

BLOCKS = (16, 32, 64, 128, 256)
TOKENS = 128  # written after each prompt
Array = NDArray[np.float32]
Rounding = Callable[[Array, int, int], Array]  # weight (rows, width), bits, block


def nearest(weight: Array, bits: int, block: int) -> Array:
    """The nearest code, the step by the largest weight of a block."""
    with mock.patch.object(rounding, "SHARES", (1.0,)):
        return least_squares(weight, bits, block)


def least_squares(weight: Array, bits: int, block: int) -> Array:
    """The nearest code, the step by the clip with the least squared error."""
    return nearest_codes(weight, Kind(bits, block)).values()


def hqq(weight: Array, bits: int, block: int) -> Array:
    """HQQ, with a zero point for each block."""
    way = HQQWeightOnlyQuantizer.__new__(HQQWeightOnlyQuantizer)
    code, scale, zero = way.quantize_internal(torch.tensor(weight), bits=bits, group_size=block)
    value = (code.reshape(-1, block) - zero.reshape(-1, 1)) * scale.reshape(-1, 1)
    found: Array = value.reshape(weight.shape).numpy()
    return found


def k_quant(weight: Array, bits: int, block: int) -> Array:
    """llama.cpp's search for step and zero point."""
    code, scale, zero = quant_tensor_k_quant_cpu(weight, bits, block)
    found: Array = ((code - zero) * scale).reshape(weight.shape).astype(np.float32)
    return found


ROUNDINGS: dict[str, tuple[Rounding, int]] = {  # and the bits of a block's zero point
    "nearest": (nearest, 0),
    "least squares (ours)": (least_squares, 0),
    "HQQ": (hqq, 4),
    "k-quant": (k_quant, 4),
}


class Measure:
    """The draft's acceptance with some of its matrices rounded."""

    def __init__(self, prompts: int) -> None:
        torch.manual_seed(0)
        tokenizer = AutoTokenizer.from_pretrained(tinypair.TARGET, trust_remote_code=False)
        target, self.draft = (
            AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, trust_remote_code=False
            ).eval()
            for folder in (tinypair.TARGET, tinypair.DRAFT)
        )
        self.matrices: dict[str, nn.Parameter] = {
            name: value for name, value in self.draft.named_parameters() if value.ndim == 2
        }
        self._texts: list[tuple[torch.Tensor, torch.Tensor, int]] = []
        with torch.inference_mode():
            for prompt in tinypair.prompts(prompts):
                given = tokenizer(prompt, return_tensors="pt")
                text = target.generate(
                    **given, max_new_tokens=TOKENS, do_sample=True, top_k=0, pad_token_id=0
                )
                begin = given["input_ids"].shape[1] - 1
                p = target(text).logits[0, begin:-1].double().softmax(-1)
                self._texts.append((text, p, begin))
        self.positions = sum(len(p) for _, p, _ in self._texts)

    def overlap(self) -> float:
        """Mean Σ min(p, q) of the draft as it is."""
        total = 0.0
        with torch.inference_mode():
            for text, p, begin in self._texts:
                q = self.draft(text).logits[0, begin:-1].double().softmax(-1)
                total += float(torch.minimum(p, q).sum())
        return total / self.positions

    @contextmanager
    def rounded(self, way: Rounding, block: int, bits: dict[str, int]) -> Iterator[None]:
        """With the matrices in ``bits`` rounded."""
        kept = {name: self.matrices[name].data for name in bits}
        for name, count in bits.items():
            weight = kept[name].numpy()
            self.matrices[name].data = torch.from_numpy(
                np.ascontiguousarray(way(weight, count, block))
            )
        try:
            yield
        finally:
            for name, value in kept.items():
                self.matrices[name].data = value

    def megabytes(self, block: int, bits: dict[str, int], zero_bits: int) -> float:
        """What the codes, the scales and the zero points of all matrices take."""
        total = 0.0
        for name, value in self.matrices.items():
            count = value.numel()
            total += count * bits[name] + count / block * (32 + zero_bits)
        return total / 8e6


def main() -> None:
    """Print the two tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--model", help="a transformers folder; the embedded pair if not given")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--texts", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.model:
        techniques.run(options.model, options.context, options.texts, options.json)
        return
    console = Console()
    measure = Measure(options.prompts)
    whole = measure.overlap()
    rows: list[dict[str, object]] = []

    def measured(title: str, way: str, block: int, bits: dict[str, int]) -> float:
        rounding, zero_bits = ROUNDINGS[way]
        with measure.rounded(rounding, block, bits):
            found = measure.overlap()
        size = measure.megabytes(block, bits, zero_bits)
        rows.append({"way": title, "block": block, "megabytes": size, "overlap": found,
                     "lost": whole - found, "per_megabyte": found / size})  # fmt: skip
        return found

    four = dict.fromkeys(measure.matrices, 4)
    for way in ROUNDINGS:
        for block in BLOCKS:
            measured(f"4 bits, {way}", way, block, four)
    ours = "least squares (ours)"
    measured("8 bits", ours, 256, dict.fromkeys(measure.matrices, 8))

    lost = {}
    for name in measure.matrices:
        with measure.rounded(least_squares, 256, {name: 4}):
            lost[name] = whole - measure.overlap()
    order = sorted(lost, key=lambda name: -lost[name] / measure.matrices[name].numel())
    for count in (1, 2, 4, 8):
        mixed = four | dict.fromkeys(order[:count], 8)
        measured(f"4 bits, the {count} most sensitive in 8", ours, 256, mixed)

    table = Table("weights", "block", "MB", "Σ min(p, q)", "lost", "acceptance per MB",
                  title=f"{measure.positions} positions; float32: {whole:.4f}")  # fmt: skip
    for r in rows:
        table.add_row(str(r["way"]), str(r["block"]), f"{r['megabytes']:.3f}",
                      f"{r['overlap']:.4f}", f"{r['lost']:+.4f}",
                      f"{r['per_megabyte']:.3f}")  # fmt: skip
    console.print(table)
    sensitive = Table("matrix", "weights", "lost in 4 bits, alone", title="sensitivity")
    for name in order:
        count = measure.matrices[name].numel()
        sensitive.add_row(name, f"{count:,}", f"{lost[name]:+.5f}")
    console.print(sensitive)
    if options.json:
        told = {"positions": measure.positions, "float32": whole, "rows": rows, "alone": lost}
        options.json.write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
