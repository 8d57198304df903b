"""The draft model on ONNX Runtime: tokens in, logits out, and a KV cache that rolls back."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from device_runtime import pages, weights
from device_runtime.bundle import Bundle, BundleError
from device_runtime.cache import PortableGraph, SharedGraph
from device_runtime.static_graph import StaticGraph
from device_runtime.threads import available, check, fastest

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


class Loaded:
    """A bundle's weights, on an execution provider; any number of caches may use them at once."""

    def __init__(self, bundle: Bundle, provider: str, threads: int) -> None:
        """Raises BundleError."""
        self.threads = threads
        self._manifest = manifest = bundle.manifest
        files = {count: bundle.bucket(count) for count in manifest.buckets or [1]}
        sizes = {name: file.bytes for name, file in manifest.files.items()}
        for path in files.values():
            weights.check(path, sizes)
        _fits(bundle)
        self._sessions = {
            count: _session(path, provider, threads, manifest.graph)
            for count, path in files.items()
        }
        try:
            shape = self.graph().run([0], 0).shape
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise BundleError(f"{bundle.path} cannot be run: {error}") from None
        if shape != (manifest.vocab_size,):
            raise BundleError(f"{bundle.path} does not give the logits that its manifest says")

    def graph(self) -> SharedGraph | PortableGraph | StaticGraph:
        """The graph with a KV cache of its own."""
        if self._manifest.graph == "shared":
            return SharedGraph(self._sessions[1], self._manifest)
        if self._manifest.graph == "portable":
            return PortableGraph(self._sessions[1])
        return StaticGraph(self._sessions, self._manifest)

    def seconds(self) -> float:
        """What a forward of one token takes: the median of a few, into an empty cache."""
        graph, times = self.graph(), []
        for _ in range(TRIALS):
            begun = time.perf_counter()
            graph.run([0], 0)
            times.append(time.perf_counter() - begun)
            graph.cut(0)
        return statistics.median(times)


# What some draft model of this process uses, by its bundle and what was asked for: devices that
# draft in turns then find the weights in the processor's caches, and memory holds them once.
_in_use: WeakValueDictionary[tuple[object, ...], Loaded] = WeakValueDictionary()


def load(bundle: Bundle, provider: str = "cpu", threads: int | None = None) -> Loaded:
    """The weights of a bundle; those in use already, where they are the same. See ``DraftModel``.

    Raises BundleError.
    """
    key = (bundle.path.resolve(), *bundle.manifest.files.items(), provider, threads)
    loaded = _in_use.get(key)
    if loaded is not None:
        return loaded

    def seconds(count: int) -> float:
        nonlocal loaded
        loaded = None  # two would take twice the memory
        pages.trim()
        loaded = Loaded(bundle, provider, count)
        return loaded.seconds()

    if provider == "cpu":
        pages.allocate_together()
    before = pages.anonymous()
    most = available() if provider == "cpu" else 1
    best = threads or fastest(seconds, most)
    if loaded is None or loaded.threads != best:
        loaded = None
        loaded = Loaded(bundle, provider, best)
    pages.page_out(bundle.path)  # once: weights that are loaded for another thread count read them
    if provider == "cpu":
        pages.make_huge(before)
    _in_use[key] = loaded
    return loaded


class DraftModel:
    """A bundle's graph and one KV cache; the weights are those of others over the same bundle."""

    def __init__(
        self, bundle: Bundle, *, provider: str = "cpu", threads: int | None = None
    ) -> None:
        """Load the graph. ``threads``: measured if not given. Raises BundleError, ValueError."""
        if threads is not None:
            check(threads)
        self.vocab_size = bundle.manifest.vocab_size
        self.context = bundle.manifest.context
        self._loaded = load(bundle, provider, threads)
        self._graph = self._loaded.graph()
        self._length = 0

    @property
    def threads(self) -> int:
        """Those that a forward runs with."""
        return self._loaded.threads

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


def _fits(bundle: Bundle) -> None:
    """Raises BundleError where a KV cache is more than this machine's memory."""
    manifest = bundle.manifest
    entries = 2 * manifest.layers * manifest.kv_heads * manifest.head_dim * manifest.context
    entries += sum(count * (count + manifest.context) for count in manifest.buckets)  # the masks
    has = pages.memory()
    if manifest.graph != "portable" and has is not None and 4 * entries > has:
        raise BundleError(
            f"the KV cache of {bundle.path} takes {4 * entries / 1e9:.3g} GB, and this machine has"
            f" {has / 1e9:.3g}; export it with a smaller --context"
        )


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
    # And rest between two looks, up to 16 times as long: 2% less time where cores share something.
    options.add_session_config_entry("session.intra_op.spin_backoff_max", "16")
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
