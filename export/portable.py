"""The ``portable`` graph: optimum's ``text-generation-with-past``, in standard operators only.

For architectures that the shared graph cannot take, and for execution providers that have no
GroupQueryAttention. Its cache is concatenated: a rollback copies it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import transformers
from onnx import helper, numpy_helper

from export import ExportError

# What may lie between the head's product and the logits: a bias, a softcap, a scale.
ELEMENTWISE = ("Add", "Cast", "Div", "Identity", "Mul", "Tanh")


def check_portable() -> None:
    """Raise ExportError where optimum's exporter is missing, or not made for what is installed."""
    try:
        import optimum.exporters.onnx  # noqa: F401
    except ImportError as error:
        asked = "transformers below 4.58, as optimum-onnx asks; this is"
        raise ExportError(
            f"the portable graph needs optimum-onnx ({error}): pip install 'draftlink[portable]',"
            f" which brings {asked} {transformers.__version__}; or export another graph"
        ) from None


def export_portable(model: Any, folder: Path) -> Path:
    """Write the graph of a float32 model on the CPU into ``folder``, which is made; the file.

    Inputs: input_ids int64 (1, n), attention_mask int64 (1, past + n), position_ids int64 (1, n)
    where the model takes them, past_key_values.0.key, ... float32 (1, kv_heads, past, head_dim).
    Outputs: logits float32 (1, n, V), present.0.key, ... Raises ExportError for a cache of another
    shape, and what optimum raises for an architecture that it does not know.
    """
    from optimum.exporters.onnx import onnx_export_from_model

    onnx_export_from_model(
        model, output=folder, task="text-generation-with-past", do_validation=False
    )
    path = folder / "model.onnx"
    graph = onnx.load(path, load_external_data=False).graph
    past = [v for v in graph.input if v.name.startswith("past_key_values.")]
    shapes = [value.type.tensor_type.shape.dim for value in past]
    if not past or any(len(s) != 4 or not s[1].dim_value or s[2].dim_value for s in shapes):
        raise ExportError("its KV cache is not one of (batch, heads, tokens, head size)")
    return path


def keep_last_position(model: onnx.ModelProto) -> None:
    """Cut the head's input to its last position: a prefill needs no other row of logits.

    The logits become (1, 1, V). A graph whose head is not found is left as it is.
    """
    graph = model.graph
    maker = {out: node for node in graph.node for out in node.output}
    node = maker["logits"]
    while node.op_type in ELEMENTWISE:
        made = [name for name in node.input if name in maker]
        if len(made) != 1:
            return
        node = maker[made[0]]
    if node.op_type != "MatMul":
        return
    hidden = node.input[0]
    last = f"{hidden}.last"
    bounds = {"start": -1, "end": np.iinfo(np.int64).max, "axis": 1}
    for name, value in bounds.items():
        graph.initializer.append(numpy_helper.from_array(np.array([value]), f"{last}.{name}"))
    names = [f"{last}.{name}" for name in bounds]
    place = list(graph.node).index(node)
    node.input[0] = last
    graph.node.insert(place, helper.make_node("Slice", [hidden, *names], [last], name=last))
    logits = next(output for output in graph.output if output.name == "logits")
    logits.type.tensor_type.shape.dim[1].dim_value = 1
