"""The two kinds of graph, each with its KV cache: how to feed it, and how to cut it back.

``branching`` has the shared graph whose tokens need not follow one another.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from device_runtime.model import room
from device_runtime.model.bundle import Manifest

KEPT = 16  # chunks up to this length keep their input arrays: drafting feeds one or two tokens


class SharedGraph:
    """One buffer a layer is bound as past and as present; a rollback costs nothing.

    Entries behind the length are never read. All arrays are bound once, and onnxruntime reads and
    writes them in place: nothing is allocated or copied per token.
    """

    def __init__(
        self,
        session: ort.InferenceSession,
        manifest: Manifest,
        cache: list[NDArray[np.float32]] | None = None,
    ) -> None:
        """``cache``: of another graph over the same bundle, to go on with."""
        self._session = session
        self._binding = session.io_binding()
        self._last = np.zeros(1, dtype=np.int32)
        self._total = np.zeros((), dtype=np.int32)
        self._logits = np.zeros((1, manifest.vocab_size), dtype=np.float32)
        self._row: NDArray[np.float32] = self._logits[0]
        self._bind("seqlens_k", self._last)
        self._bind("total_sequence_length", self._total)
        self._binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(self._logits))
        self.cache = room.caches(manifest) if cache is None else cache
        for index, buffer in enumerate(self.cache):
            name = f"{index // 2}.{('key', 'value')[index % 2]}"
            value = ort.OrtValue.ortvalue_from_numpy(buffer)
            self._binding.bind_ortvalue_input(f"past.{name}", value)
            self._binding.bind_ortvalue_output(f"present.{name}", value)
        self._chunks: dict[int, _Chunk] = {}
        self._bound: _Chunk | None = None

    def _bind(self, name: str, array: NDArray[np.generic]) -> None:
        self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))

    def run(self, ids: Sequence[int], length: int) -> NDArray[np.float32]:
        """Feed ``ids`` after ``length`` tokens; the last one's logits (V,), this object's own."""
        chunk = self._take(ids, length)
        np.add(chunk.offsets, length, out=chunk.positions[0])
        self._session.run_with_iobinding(self._binding)
        return self._row

    def _take(self, ids: Sequence[int], length: int) -> _Chunk:
        """Bind the inputs for ``ids`` whose entries lie behind ``length`` others."""
        count = len(ids)
        chunk = self._chunks.get(count)
        if chunk is None:
            chunk = _Chunk(count)
            if count <= KEPT:
                self._chunks[count] = chunk
        if chunk is not self._bound:
            self._binding.bind_ortvalue_input("input_ids", chunk.bound_ids)
            self._binding.bind_ortvalue_input("position_ids", chunk.bound_positions)
            self._bound = chunk
        chunk.ids[0] = ids
        self._last[0] = length + count - 1
        self._total[...] = length + count
        return chunk

    def cut(self, length: int) -> None:
        """A rollback: what lies behind the length is overwritten before it is read."""


class _Chunk:
    """The input arrays for ``count`` tokens."""

    def __init__(self, count: int) -> None:
        self.ids = np.zeros((1, count), dtype=np.int64)
        self.positions = np.zeros((1, count), dtype=np.int64)
        self.offsets = np.arange(count, dtype=np.int64)
        self.bound_ids = ort.OrtValue.ortvalue_from_numpy(self.ids)
        self.bound_positions = ort.OrtValue.ortvalue_from_numpy(self.positions)


class PortableGraph:
    """Past in, past and present out, concatenated; a rollback copies what it keeps."""

    def __init__(
        self, session: ort.InferenceSession, cache: list[NDArray[np.float32]] | None = None
    ) -> None:
        """``cache``: of another graph over the same bundle, to go on with."""
        self._session = session
        inputs = {i.name: i.shape for i in session.get_inputs()}
        self._has_positions = "position_ids" in inputs
        self._past = [name for name in inputs if name.startswith("past_key_values.")]
        present = [name.replace("past_key_values", "present") for name in self._past]
        self._outputs = ["logits", *present]
        # (batch, heads, tokens, head size), of which the first and the third are free.
        shapes = [(1, inputs[name][1], 0, inputs[name][3]) for name in self._past]
        empty = [np.zeros(shape, dtype=np.float32) for shape in shapes]
        self.cache = empty if cache is None else cache

    def run(self, ids: Sequence[int], length: int) -> NDArray[np.float32]:
        """Feed ``ids`` after ``length`` tokens; the last one's logits (V,)."""
        total = length + len(ids)
        feed = dict(zip(self._past, self.cache, strict=True))
        feed["input_ids"] = np.asarray([ids], dtype=np.int64)
        feed["attention_mask"] = np.ones((1, total), dtype=np.int64)
        if self._has_positions:
            feed["position_ids"] = np.arange(length, total, dtype=np.int64)[None]
        logits, *self.cache = self._session.run(self._outputs, feed)
        row: NDArray[np.float32] = logits[0, -1]
        return row

    def cut(self, length: int) -> None:
        """A rollback: keep the first ``length`` entries."""
        if self.cache[0].shape[2] != length:
            self.cache = [np.ascontiguousarray(x[:, :, :length]) for x in self.cache]
