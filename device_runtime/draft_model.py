"""The draft model on ONNX Runtime: tokens in, logits out, and a KV cache that rolls back."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from device_runtime.bundle import Bundle, BundleError
from device_runtime.cache import PortableGraph, SharedGraph
from device_runtime.mapped import page_out
from device_runtime.static_graph import StaticGraph
from device_runtime.threads import available, fastest

PREFILL = 128  # tokens fed at once
TRIALS = 7  # forwards that a thread count is measured by
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

    def __init__(
        self, bundle: Bundle, *, provider: str = "cpu", threads: int | None = None
    ) -> None:
        """Load the graph. ``threads``: measured if not given. Raises BundleError, ValueError."""
        if threads is not None and threads < 1:
            raise ValueError(f"threads must be at least 1, not {threads}")
        self.vocab_size = bundle.manifest.vocab_size
        self.context = bundle.manifest.context
        self.threads = 0
        self._bundle = bundle
        self._provider = provider
        self._length = 0
        self._graph: SharedGraph | PortableGraph | StaticGraph
        most = available() if provider == "cpu" else 1
        self._load(threads or fastest(self._seconds, most))
        page_out(bundle.path)  # once: a graph that is loaded for another thread count reads them

    def _load(self, threads: int) -> None:
        """Have the graph run with a number of threads."""
        if threads == self.threads:
            return
        self.__dict__.pop("_graph", None)  # two would take twice the memory
        bundle, manifest = self._bundle, self._bundle.manifest

        def session(path: Path) -> ort.InferenceSession:
            return _session(path, self._provider, threads, manifest.graph)

        if manifest.graph == "shared":
            self._graph = SharedGraph(session(bundle.graph), manifest)
        elif manifest.graph == "portable":
            self._graph = PortableGraph(session(bundle.graph))
        else:
            buckets = {count: session(bundle.bucket(count)) for count in manifest.buckets}
            self._graph = StaticGraph(buckets, manifest)
        self.threads = threads

    def _seconds(self, threads: int) -> float:
        """What a forward of one token takes: the median of a few, into an empty cache."""
        self._load(threads)
        times = []
        for _ in range(TRIALS):
            begun = time.perf_counter()
            self._graph.run([0], 0)
            times.append(time.perf_counter() - begun)
            self._graph.cut(0)
        return statistics.median(times)

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
        # In parts, so that a long prompt takes no more memory than a short one.
        for begin in range(0, len(ids), PREFILL):
            part = ids[begin : begin + PREFILL]
            logits = self._graph.run(part, self._length)
            self._length += len(part)
        return logits

    def rollback(self, length: int) -> None:
        """Cut the cache back to ``length`` tokens: free, but for the portable graph a copy.

        Raises ValueError for more than it holds.
        """
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot roll {self._length} tokens back to {length}")
        self._graph.cut(length)
        self._length = length


def _session(path: Path, provider: str, threads: int, kind: str) -> ort.InferenceSession:
    """The graph on an execution provider. Raises BundleError."""
    present = [name for name, ep in PROVIDERS.items() if ep in ort.get_available_providers()]
    if provider not in present:
        raise BundleError(
            f"this onnxruntime has no execution provider {provider!r}; it has {', '.join(present)}"
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads spin between the nodes of a forward, which a sleep each time would slow by some 10%,
    # and stop at its end: they would burn a core while the device waits for a verdict.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 4  # what fails is raised, and need not be printed as well
    # All that is left to fold in a graph for CPUs is the table's second shape, which would be a
    # copy of it; in one of fixed shapes a transposed table is, and would be made in every forward.
    unwanted = [] if kind == "static" else ["ConstantFolding"]
    try:
        session = ort.InferenceSession(
            str(path), options, providers=[PROVIDERS[provider]], disabled_optimizers=unwanted
        )
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise BundleError(f"onnxruntime cannot load {path}: {error}") from None
    if session.get_providers()[0] != PROVIDERS[provider]:
        # Its libraries or its hardware are missing: onnxruntime would go on with the CPU.
        raise BundleError(
            f"the execution provider {provider!r} does not start on this machine; install what it"
            " needs, or use 'cpu'"
        )
    return session
