"""The draft model on ONNX Runtime: tokens in, logits out, and a KV cache that rolls back."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Sequence
from weakref import WeakSet, WeakValueDictionary

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from device_runtime.model import kernels, pages, providers, room, weights
from device_runtime.model.branching import BranchingGraph
from device_runtime.model.bundle import Bundle, BundleError
from device_runtime.model.graphs import PortableGraph, SharedGraph
from device_runtime.model.static_graph import StaticGraph
from device_runtime.model.threads import Setting, available, check, fastest, settings
from draftlink.planning.trials import Trials

PREFILL = 128  # tokens fed at once
TRIALS = 7  # forwards that a thread count is measured by while it loads
ENOUGH = 32  # and in a generation


Graph = SharedGraph | PortableGraph | StaticGraph


class Loaded:
    """A bundle's weights, on an execution provider; any number of caches may use them at once."""

    def __init__(self, bundle: Bundle, provider: str) -> None:
        self.setting = Setting(0)
        self.load_s = 0.0  # what the last ``load`` took
        self.manifest = bundle.manifest
        self._bundle = bundle
        self.provider = provider
        self._sessions: dict[int, ort.InferenceSession] = {}
        self._seen = bundle.stamps()
        self.users: WeakSet[DraftModel] = WeakSet()
        if provider == "cpu":
            pages.allocate_together()

    def load(self, setting: Setting) -> None:
        """Load them for such threads; what was loaded is dropped first, or would lie there twice.

        No graph may be left of before. Raises BundleError.
        """
        begun = time.perf_counter()
        bundle, manifest = self._bundle, self._bundle.manifest
        providers.check_version(manifest.least_onnxruntime)
        sizes = {name: file.bytes for name, file in manifest.files.items()}
        for count in manifest.buckets or [1]:
            weights.check(bundle.bucket(count), sizes)
        self._sessions.clear()
        pages.trim()
        room.check(bundle)
        for count in manifest.buckets or [1]:
            path = bundle.bucket(count)
            self._sessions[count] = providers.session(path, self.provider, setting, manifest.graph)
        try:
            shape = self.graph().run([0], 0).shape
        except BundleError:
            raise
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise BundleError(f"{bundle.path} cannot be run: {error}") from None
        if shape != (manifest.vocab_size,):
            raise BundleError(f"{bundle.path} does not give the logits that its manifest says")
        self.setting = setting
        self.load_s = time.perf_counter() - begun

    def load_again(self, setting: Setting) -> None:
        """``load``, where that was done before, and ``arrange_pages``. Raises BundleError."""
        self._sessions.clear()
        pages.trim()
        before = pages.anonymous()
        self.load(setting)
        self.arrange_pages(before)

    def arrange_pages(self, before: list[pages.Span]) -> None:
        """Put the weights' pages in order; ``before``: ``pages.anonymous()`` without them."""
        pages.page_out(self._bundle.path)
        if self.provider == "cpu":
            pages.make_huge(before)

    def unchanged(self) -> bool:
        """Whether the files are still those that were checked."""
        return self._bundle.stamps() == self._seen

    def graph(self, cache: list[NDArray[np.float32]] | None = None) -> Graph:
        """The graph with a KV cache of its own, or that of a graph before."""
        manifest = self._bundle.manifest
        if manifest.branches:
            return BranchingGraph(self._sessions[1], manifest, cache)
        if manifest.graph == "shared":
            return SharedGraph(self._sessions[1], manifest, cache)
        if manifest.graph == "portable":
            return PortableGraph(self._sessions[1], cache)
        return StaticGraph(self._sessions, manifest, cache)

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
_lock = threading.Lock()  # whoever looks for weights, or loads them


def load(bundle: Bundle, provider: str = "cpu", threads: int | None = None) -> Loaded:
    """The weights of a bundle; those in use already, where they are the same. See ``DraftModel``.

    Raises BundleError.
    """
    key = (bundle.path.resolve(), *bundle.manifest.files.items(), provider, threads)
    loaded = _in_use.get(key)
    if loaded is not None:
        return loaded
    found = Loaded(bundle, provider)
    if provider == "cpu":
        kernels.warn(bundle)

    def seconds(count: int) -> float:
        found.load(Setting(count))
        return found.seconds()

    before = pages.anonymous()
    best = threads or fastest(seconds, available() if provider == "cpu" else 1)
    if found.setting.threads != best:
        found.load(Setting(best))
    # Once: weights that are loaded for another thread count read the file.
    found.arrange_pages(before)
    _in_use[key] = found
    return found


class DraftModel:
    """A bundle's graph and one KV cache; the weights are those of others over the same bundle."""

    def __init__(
        self, bundle: Bundle, *, provider: str = "cpu", threads: int | None = None
    ) -> None:
        """Load the graph. ``threads``: measured if not given. Raises BundleError, ValueError."""
        if threads is not None:
            check(threads)
        with _lock:
            self._open(load(bundle, provider, threads))
        self._first: DraftModel | None = None  # it is the first: a cycle would hold the weights
        self._kin: WeakSet[DraftModel] = WeakSet([self])  # that are used in turns with this one
        # What forwards of one token took since the last rest, of all of those together.
        self._spent_s, self._forwards = 0.0, 0
        loaded = self._loaded.setting
        chosen = threads is not None or provider != "cpu"
        tried = [] if chosen else settings(loaded.threads, available())
        # Another model has them that may have found by now that fewer threads, asleep, are best.
        self._settings = tried if loaded in tried else [loaded, *tried]
        best = self._settings.index(loaded)
        self._trials = Trials(len(self._settings), best, least=1, most=3, recent=1)

    def _open(self, loaded: Loaded) -> None:
        """An empty KV cache over weights that are loaded."""
        self._loaded = loaded
        self._loaded.users.add(self)
        self._graph: Graph | None = self._loaded.graph()
        self._length = 0
        self.vocab_size, self.context = loaded.manifest.vocab_size, loaded.manifest.context

    def another(self) -> DraftModel:
        """One more KV cache over the same weights. The two are never asked anything at once."""
        made = DraftModel.__new__(DraftModel)
        with _lock:
            made._open(self._loaded)
            made._first = self._first or self
            made._first._kin.add(made)
        return made

    @property
    def threads(self) -> int:
        """Those that a forward runs with."""
        return self._loaded.setting.threads

    @property
    def length(self) -> int:
        """Tokens in the KV cache."""
        return self._length

    @property
    def bytes(self) -> int:
        """Memory of the KV cache; room for a whole context, which is taken as it is filled."""
        return sum(array.nbytes for array in self._graph.cache) if self._graph else 0

    def forward(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Feed ``ids``; the logits (V,) of the last one, valid until the next call.

        Raises ValueError for no ids, or past the context.
        """
        if not len(ids) or self._length + len(ids) > self.context:
            raise ValueError(
                f"{len(ids)} tokens after {self._length}, where the context is {self.context}"
            )
        graph, begun = self._there, time.perf_counter()
        # In parts, so that a long prompt takes no more memory than a short one.
        for begin in range(0, len(ids), PREFILL):
            part = ids[begin : begin + PREFILL]
            logits = graph.run(part, self._length)
            self._length += len(part)
        if len(ids) == 1:
            first = self._first or self
            first._spent_s += time.perf_counter() - begun
            first._forwards += 1
        return logits

    @property
    def _there(self) -> Graph:
        if self._graph is None:
            raise BundleError("the draft's files could not be loaded again; open the device anew")
        return self._graph

    @property
    def branches(self) -> bool:
        """Whether tokens need not follow one another: ``branch`` and ``keep``. Tried on CPUs."""
        return self._loaded.manifest.branches and self._loaded.provider == "cpu"

    def branch(self, ids: Sequence[int], parents: Sequence[int]) -> NDArray[np.float32]:
        """Feed ``ids`` behind the cache's tokens, to a block that branches (see ``model.block``).

        Their logits (n, V), valid until the next call. Raises ValueError past the context.
        """
        graph = self._there
        assert isinstance(graph, BranchingGraph)
        entries = self._length + len(graph.block) + len(ids)
        if not len(ids) or entries > self.context:
            raise ValueError(f"{len(ids)} of {entries} tokens, where the context is {self.context}")
        return graph.branch(ids, parents, self._length)

    def keep(self, chain: Sequence[int], rest: Sequence[int]) -> None:
        """Of the block ``chain`` joins the cache's tokens, ``rest`` stays: see ``Block.keep``."""
        graph = self._there
        assert isinstance(graph, BranchingGraph)
        graph.keep(chain, rest, self._length)
        self._length += len(chain)

    def rest(self) -> None:
        """Between generations: load the weights for other threads, where they may be faster.

        KV caches stay. Where somebody else uses the weights too, other than those that were made by
        ``another``, or where the files are others by now, all stays as it is. Not while anything
        else is asked of this object, or of those.
        """
        if self._forwards < ENOUGH:
            return
        with _lock:
            if set(self._loaded.users) - set(self._kin) or not self._loaded.unchanged():
                return
            self._trials.change_s = self._loaded.load_s
            self._trials.ran(None, self._spent_s, self._forwards)
            self._spent_s, self._forwards = 0.0, 0
            if self._settings and self._settings[self._trials.at] != self._loaded.setting:
                self._load(self._settings[self._trials.at])

    def _load(self, setting: Setting) -> None:
        """The same graphs, caches and all, for other threads."""
        if self._graph is None:
            return
        loaded, before = self._loaded, self._loaded.setting
        caches = {model: model._graph.cache for model in self._kin if model._graph is not None}
        for model in caches:
            model._graph = None  # it holds the session
        try:
            loaded.load_again(setting)
        except BundleError:  # for want of memory, say; what was there before did fit
            self._settings = []
            try:
                loaded.load_again(before)
            except BundleError:
                return  # the next forward says so
        for model, cache in caches.items():
            model._graph = loaded.graph(cache)

    def rollback(self, length: int) -> None:
        """Cut the cache back to ``length`` tokens: free, but for the portable graph a copy.

        Raises ValueError for more than it holds.
        """
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot roll {self._length} tokens back to {length}")
        if self._graph is not None:
            self._graph.cut(length)
        self._length = length
