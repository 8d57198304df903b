"""Weights of the matrix products to 8 or 4 bits, in blocks of 32; activations stay float32."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import onnx
import onnxruntime as ort
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

Precision = Literal["fp32", "int8", "int4"]
BITS: dict[Precision, int] = {"int8": 8, "int4": 4}
BLOCK = 32


def fold(source: Path, target: Path) -> None:
    """Constant folding by ONNX Runtime: a tied head's transposed table becomes a plain weight.

    Without it the quantizer finds Transpose -> MatMul and passes the largest weight over.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 3
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])


def quantize(source: Path, target: Path, precision: Precision) -> None:
    """Write the graph at ``source`` with quantized weights to ``target``.

    accuracy_level 4 also rounds activations to int8 inside the product, which is what makes it
    fast. That costs a draft a little acceptance and no exactness; a target must never use it.
    """
    model = onnx.load(str(source))
    if precision != "fp32":
        quantizer = MatMulNBitsQuantizer(
            model, bits=BITS[precision], block_size=BLOCK, is_symmetric=True, accuracy_level=4
        )
        quantizer.process()
        model = quantizer.model.model
    size = sum(len(t.raw_data) for t in model.graph.initializer)
    # protobuf ends at 2 GiB; weights beyond that lie in a file beside the graph.
    onnx.save(
        model,
        str(target),
        save_as_external_data=size > 1 << 30,
        location=target.name + ".data",
    )
