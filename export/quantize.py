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
EMBEDDED_BYTES = 1 << 30  # weights inside the graph's file, at most: protobuf ends at 2 GiB


def fold(source: Path, target: Path) -> onnx.ModelProto:
    """Constant folding by ONNX Runtime: a tied head's transposed table becomes a plain weight.

    Without it the quantizer finds Transpose -> MatMul and passes the largest weight over.
    ``target`` is scratch. Raises what onnxruntime raises for a graph that does not load.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    options.log_severity_level = 4
    # Beside the graph, since protobuf ends at 2 GiB.
    weights = "session.optimized_model_external_initializers_file_name"
    options.add_session_config_entry(weights, target.name + ".data")
    ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    return onnx.load(target)


def quantize(model: onnx.ModelProto, precision: Precision) -> None:
    """Quantize the weights of ``model``, in place.

    accuracy_level 4 also rounds activations to int8 inside the product, which is what makes it
    fast. That costs a draft a little acceptance and no exactness; a target must never use it.
    """
    if precision != "fp32":
        MatMulNBitsQuantizer(
            model, bits=BITS[precision], block_size=BLOCK, is_symmetric=True, accuracy_level=4
        ).process()


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a graph; where its weights are many, they lie in a file beside it."""
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > EMBEDDED_BYTES
    onnx.save(model, path, save_as_external_data=large, location=path.name + ".data")
    if large:  # they were taken out of the model, too
        onnx.load_external_data_for_model(model, str(path.parent))
