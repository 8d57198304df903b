"""Static graphs to QDQ: int8 weights, 16-bit activations, calibrated on a text.

The rules are those of onnxruntime's QNN quantizer, which other NPU providers read as well. 16 bits
for activations: with 8 a language model loses most of its acceptance (``bench.quantize`` is about
weights alone), and NPUs of this kind multiply 8-bit weights with 16-bit activations.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize
from onnxruntime.quantization.execution_providers.qnn import (
    get_qnn_qdq_config,
    qnn_preprocess_model,
)

from device_runtime.model.bundle import GRAPH, Manifest, bucket_file
from device_runtime.model.static_graph import StaticGraph

BUCKETS = (1, 8, 64)  # a drafted token; a correction, or a block that was accepted; a prompt
SAMPLES = 24  # calls of each bucket that ranges are taken from
EMBEDDED_BYTES = 1024  # of a tensor in the graph's own file, at most


class _Text(CalibrationDataReader):  # type: ignore[misc]
    """The inputs of one bucket along a text."""

    def __init__(self, path: Path, manifest: Manifest, count: int, ids: Sequence[int]) -> None:
        self._feeds = self._along(path, manifest, count, ids)

    @staticmethod
    def _along(
        path: Path, manifest: Manifest, count: int, ids: Sequence[int]
    ) -> Iterator[dict[str, Any]]:
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        graph = StaticGraph({count: session}, manifest)
        room = min(len(ids), manifest.context)
        starts = range(0, room - count + 1, count)
        chosen = set(np.linspace(0, len(starts) - 1, min(SAMPLES, len(starts))).astype(int))
        for index, begin in enumerate(starts):
            if index in chosen:
                _, feed = graph.fed(ids[begin : begin + count], begin)
                yield {name: value.copy() for name, value in feed.items()}
            graph.run(ids[begin : begin + count], begin)

    def get_next(self) -> dict[str, Any] | None:
        """The next inputs, None at the end."""
        return next(self._feeds, None)


def quantized(
    graphs: dict[int, onnx.ModelProto], manifest: Manifest, ids: Sequence[int], scratch: Path
) -> dict[int, onnx.ModelProto]:
    """The graphs in QDQ form, calibrated on ``ids``; each goes through QNN's preprocessing."""
    made = {}
    for count, graph in graphs.items():
        plain, ready, done = (scratch / f"{count}-{name}.onnx" for name in ("a", "b", "c"))
        onnx.save(graph, plain, save_as_external_data=True, location=plain.name + ".data")
        onnx.load_external_data_for_model(graph, str(scratch))
        if not qnn_preprocess_model(
            plain, ready, save_as_external_data=True, external_data_location=ready.name + ".data"
        ):
            ready = plain
        config = get_qnn_qdq_config(
            ready,
            _Text(ready, manifest, count, ids),
            activation_type=QuantType.QUInt16,
            weight_type=QuantType.QUInt8,
            per_channel=False,
        )
        config.use_external_data_format = True
        quantize(ready, done, config)
        made[count] = onnx.load(done)
    return made


def write(graphs: dict[int, onnx.ModelProto], folder: Path) -> None:
    """Write the graphs; equal tensors, whichever graphs they are in, lie in one file once."""
    places: dict[bytes, tuple[int, int]] = {}
    name = GRAPH + ".data"
    with (folder / name).open("wb") as data:
        for count, graph in graphs.items():
            for tensor in graph.graph.initializer:  # not a copy's, which would end at 2 GiB
                raw = onnx.numpy_helper.to_array(tensor).tobytes()
                if len(raw) <= EMBEDDED_BYTES:
                    continue
                key = hashlib.sha256(raw).digest()
                if key not in places:
                    data.write(bytes(-data.tell() % 4096))  # so that it can be memory-mapped
                    places[key] = data.tell(), len(raw)
                    data.write(raw)
                offset, length = places[key]
                tensor.raw_data = b""
                onnx.external_data_helper.set_external_data(tensor, name, offset, length)
                tensor.ClearField("raw_data")
            onnx.save(graph, folder / bucket_file(count))
    for graph in graphs.values():
        onnx.load_external_data_for_model(graph, str(folder))
