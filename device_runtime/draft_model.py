"""The draft model on ONNX Runtime, with a KV cache whose rollback is a length."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from device_runtime.bundle import Bundle, BundleError

# Official wheels carry telemetry; it must be off before the first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime as ort

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}


class DraftModel:
    """A bundle's graph and one KV cache.

    One OrtValue a layer is bound as past and as present; entries behind ``length`` are never read.
    """

    def __init__(self, bundle: Bundle, *, provider: str = "cpu", threads: int = 1) -> None:
        manifest = bundle.manifest
        present = [name for name, ep in PROVIDERS.items() if ep in ort.get_available_providers()]
        if provider not in present:
            raise BundleError(
                f"this onnxruntime has no execution provider {provider!r}; it has"
                f" {', '.join(present)}"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # A spinning pool would burn a core while the device waits for a verdict.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                str(bundle.graph), options, providers=[PROVIDERS[provider]]
            )
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise BundleError(f"onnxruntime cannot load {bundle.graph}: {error}") from None
        self.vocab_size = manifest.vocab_size
        self.context = manifest.context
        self._length = 0
        shape = (1, manifest.kv_heads, manifest.context, manifest.head_dim)
        self._binding = self._session.io_binding()
        # onnxruntime reads and writes these numpy arrays in place: nothing is allocated per token.
        self._logits = np.zeros((1, manifest.vocab_size), dtype=np.float32)
        self._token = np.zeros((1, 1), dtype=np.int64)
        self._position = np.zeros((1, 1), dtype=np.int64)
        self._last = np.zeros(1, dtype=np.int32)
        self._total = np.zeros((), dtype=np.int32)
        self._buffers = [np.zeros(shape, dtype=np.float32) for _ in range(2 * manifest.layers)]
        self._one = [ort.OrtValue.ortvalue_from_numpy(a) for a in (self._token, self._position)]
        self._bind_input("seqlens_k", self._last)
        self._bind_input("total_sequence_length", self._total)
        self._binding.bind_ortvalue_output("logits", ort.OrtValue.ortvalue_from_numpy(self._logits))
        for index, buffer in enumerate(self._buffers):
            name = f"{index // 2}.{('key', 'value')[index % 2]}"
            value = ort.OrtValue.ortvalue_from_numpy(buffer)
            self._binding.bind_ortvalue_input(f"past.{name}", value)
            self._binding.bind_ortvalue_output(f"present.{name}", value)

    def _bind_input(self, name: str, array: NDArray[np.generic]) -> None:
        self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array))

    @property
    def length(self) -> int:
        """Tokens in the KV cache."""
        return self._length

    def forward(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Feed ``ids``; the logits (V,) of the last one, valid until the next call.

        Raises ValueError for no ids, or past the context.
        """
        count = len(ids)
        if not count or self._length + count > self.context:
            raise ValueError(
                f"{count} tokens after {self._length}, where the context is {self.context}"
            )
        if count == 1:
            self._token[0, 0], self._position[0, 0] = ids[0], self._length
            self._binding.bind_ortvalue_input("input_ids", self._one[0])
            self._binding.bind_ortvalue_input("position_ids", self._one[1])
        else:
            self._bind_input("input_ids", np.asarray([ids], dtype=np.int64))
            positions = np.arange(self._length, self._length + count, dtype=np.int64)
            self._bind_input("position_ids", positions[None])
        self._last[0] = self._length + count - 1
        self._total[...] = self._length + count
        self._session.run_with_iobinding(self._binding)
        self._length += count
        logits: NDArray[np.float32] = self._logits[0]
        return logits

    def rollback(self, length: int) -> None:
        """Cut the cache back to ``length`` tokens, free. Raises ValueError for too many."""
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot roll {self._length} tokens back to {length}")
        self._length = length
