"""The draft model on ONNX Runtime: tokens in, logits out, and a KV cache that rolls back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from device_runtime.bundle import Bundle, BundleError
from device_runtime.cache import PortableGraph, SharedGraph

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}


class DraftModel:
    """A bundle's graph and one KV cache."""

    def __init__(self, bundle: Bundle, *, provider: str = "cpu", threads: int = 1) -> None:
        manifest = bundle.manifest
        session = _session(bundle, provider, threads)
        self.vocab_size = manifest.vocab_size
        self.context = manifest.context
        self._length = 0
        self._graph = (
            SharedGraph(session, manifest) if manifest.graph == "shared" else PortableGraph(session)
        )

    @property
    def length(self) -> int:
        """Tokens in the KV cache."""
        return self._length

    def forward(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Feed ``ids``; the logits (V,) of the last one, valid until the next call.

        Raises ValueError for no ids, or past the context.
        """
        if not len(ids) or self._length + len(ids) > self.context:
            raise ValueError(
                f"{len(ids)} tokens after {self._length}, where the context is {self.context}"
            )
        logits = self._graph.run(ids, self._length)
        self._length += len(ids)
        return logits

    def rollback(self, length: int) -> None:
        """Cut the cache back to ``length`` tokens: free, but for the portable graph a copy.

        Raises ValueError for more than it holds.
        """
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot roll {self._length} tokens back to {length}")
        self._graph.cut(length)
        self._length = length


def _session(bundle: Bundle, provider: str, threads: int) -> ort.InferenceSession:
    """The graph on an execution provider. Raises BundleError."""
    present = [name for name, ep in PROVIDERS.items() if ep in ort.get_available_providers()]
    if provider not in present:
        raise BundleError(
            f"this onnxruntime has no execution provider {provider!r}; it has {', '.join(present)}"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # A spinning pool would burn a core while the device waits for a verdict.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # what fails is raised, and need not be printed as well
    try:
        session = ort.InferenceSession(str(bundle.graph), options, providers=[PROVIDERS[provider]])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise BundleError(f"onnxruntime cannot load {bundle.graph}: {error}") from None
    if session.get_providers()[0] != PROVIDERS[provider]:
        # Its libraries or its hardware are missing: onnxruntime would go on with the CPU.
        raise BundleError(
            f"the execution provider {provider!r} does not start on this machine; install what it"
            " needs, or use 'cpu'"
        )
    return session
