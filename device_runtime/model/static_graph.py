"""The static graphs on the device: fixed buffers, fixed buckets, whatever is fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from device_runtime.model import room
from device_runtime.model.bundle import Manifest

# Added to the score of what a token does not look at: its weight is then 0 in float32, and a
# quantized range that has to hold it still has fine steps.
MASKED = -128.0


class StaticGraph:
    """Keys and values in fixed buffers; a rollback costs nothing.

    ``sessions``: by the number of tokens that each feeds. What is to be fed is padded to the
    smallest that holds it.
    """

    def __init__(
        self,
        sessions: Mapping[int, ort.InferenceSession],
        manifest: Manifest,
        cache: list[NDArray[np.float32]] | None = None,
    ) -> None:
        """``cache``: of another graph over the same bundle, to go on with."""
        self._sessions = dict(sorted(sessions.items()))
        self._context = manifest.context
        parts = [f"{i}.{part}" for i in range(manifest.layers) for part in ("key", "value")]
        self.cache = room.caches(manifest) if cache is None else cache
        self._past = [f"past.{part}" for part in parts]
        self._outputs = ["logits", *(f"new.{part}" for part in parts)]
        self._feeds = {count: self._feed(count) for count in self._sessions}

    def _feed(self, count: int) -> dict[str, NDArray[np.generic]]:
        """A bucket's input arrays, used again for every call."""
        mask = np.full((1, 1, count, self._context + count), MASKED, dtype=np.float32)
        mask[0, 0, :, self._context :] = np.triu(np.full((count, count), MASKED), 1)
        return {
            "input_ids": np.zeros((1, count), dtype=np.int64),
            "position_ids": np.zeros((1, count), dtype=np.int64),
            "last": np.zeros(1, dtype=np.int64),
            "mask": mask,
            **dict(zip(self._past, self.cache, strict=True)),
        }

    def fed(self, ids: Sequence[int], length: int) -> tuple[int, dict[str, NDArray[np.generic]]]:
        """The bucket for the first of ``ids`` after ``length`` tokens, and its inputs."""
        largest = max(self._sessions)
        count = next((c for c in self._sessions if c >= len(ids)), largest)
        part = ids[:count]
        feed = self._feeds[count]
        feed["input_ids"][0, : len(part)] = part
        # Padding looks back at what is fed; nothing looks at it. Its positions stay in range.
        positions = np.arange(length, length + count)
        np.minimum(positions, self._context - 1, out=feed["position_ids"][0])
        feed["last"][0] = len(part) - 1
        feed["mask"][..., :length] = 0.0
        feed["mask"][..., length : self._context] = MASKED
        return count, feed

    def run(self, ids: Sequence[int], length: int) -> NDArray[np.float32]:
        """Feed ``ids`` after ``length`` tokens; the last one's logits (V,)."""
        while True:
            count, feed = self.fed(ids, length)
            logits, *new = self._sessions[count].run(self._outputs, feed)
            real = min(count, len(ids))
            for buffer, entries in zip(self.cache, new, strict=True):
                buffer[:, :, length : length + real] = entries[:, :, :real]
            ids, length = ids[real:], length + real
            if not ids:
                row: NDArray[np.float32] = logits[0]
                return row

    def cut(self, length: int) -> None:
        """A rollback: what lies behind the length is masked, and written over."""
