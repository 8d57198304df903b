"""The shared graph whose tokens need not follow one another: each says what it sees.

Behind the chain lies a block of tokens that branch (``block``). What a token must not see is masked
by the bias that attention adds to its scores; what it says of its position turns its query and key.
Of a path that stands the entries are moved behind the chain, and with them those of what may still
stand behind it: a copy of rows, all others are overwritten before they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from device_runtime.model.block import Block
from device_runtime.model.bundle import Manifest
from device_runtime.model.graphs import SharedGraph

HIDDEN = -np.inf  # added to the score of what is not seen


class BranchingGraph(SharedGraph):
    """See ``SharedGraph``; two inputs more (``export.graph``)."""

    def __init__(
        self,
        session: ort.InferenceSession,
        manifest: Manifest,
        cache: list[NDArray[np.float32]] | None = None,
    ) -> None:
        super().__init__(session, manifest, cache)
        self.block = Block()
        self._vocab_size = manifest.vocab_size
        self._zeros = np.zeros(0, dtype=np.float32)
        self._bias: NDArray[np.float32] = self._zeros  # that is bound: it has to be held
        self._alone = _Wanted(self._logits, np.zeros(1, dtype=np.int64))
        self._several: dict[int, _Wanted] = {}
        self._wanted: _Wanted | None = None

    def run(self, ids: Sequence[int], length: int) -> NDArray[np.float32]:
        """Feed ``ids``, which follow one another, after ``length`` tokens: see ``SharedGraph``.

        Raises ValueError while there is a block.
        """
        if len(self.block):
            raise ValueError("there is a block behind the chain: keep what of it stands first")
        count, total = len(ids), length + len(ids)
        if len(self._zeros) < count * total:  # never written: they are but promised
            self._zeros = np.zeros(2 * count * total, dtype=np.float32)
        self._see(self._zeros[: count * total].reshape(1, 1, count, total))
        self._alone.rows[0] = count - 1
        self._want(self._alone)
        return super().run(ids, length)

    def branch(
        self, ids: Sequence[int], parents: Sequence[int], length: int
    ) -> NDArray[np.float32]:
        """Feed ``ids`` behind the block that lies behind ``length`` tokens: their logits (n, V).

        They are this object's own. ``parents`` as ``Block`` has them; raises what that raises.
        """
        count, begin = len(ids), length + len(self.block)
        sights = self.block.extend(parents)
        bias = np.zeros((1, 1, count, begin + count), dtype=np.float32)
        chunk = self._take(ids, begin)
        for row, sight in enumerate(sights):
            seen = [sight >> at & 1 for at in range(begin + count - length)]
            bias[0, 0, row, length:] = np.where(seen, 0.0, HIDDEN)
            chunk.positions[0, row] = length + sum(seen) - 1
        self._see(bias)
        if count not in self._several:
            logits = np.zeros((count, self._vocab_size), dtype=np.float32)
            self._several[count] = _Wanted(logits, np.arange(count, dtype=np.int64))
        self._want(self._several[count])
        self._session.run_with_iobinding(self._binding)
        return self._several[count].logits

    def keep(self, chain: Sequence[int], rest: Sequence[int], length: int) -> None:
        """Of the block ``chain`` joins the ``length`` tokens, ``rest`` stays: see ``Block``."""
        order = self.block.keep(chain, rest)
        moved = [(to, at) for to, at in enumerate(order) if to != at]
        if moved:
            first = moved[0][0]
            source = [length + at for at in order[first:]]
            for buffer in self.cache:
                buffer[:, :, length + first : length + len(order)] = buffer[:, :, source]

    def cut(self, length: int) -> None:
        """A rollback: there is no block."""
        self.block.clear()

    def _see(self, bias: NDArray[np.float32]) -> None:
        self._bias = bias
        self._bind("attention_bias", bias)

    def _want(self, wanted: _Wanted) -> None:
        if wanted is not self._wanted:
            value = ort.OrtValue.ortvalue_from_numpy(wanted.logits)
            self._binding.bind_ortvalue_output("logits", value)
            self._bind("rows", wanted.rows)
            self._wanted = wanted


class _Wanted(NamedTuple):
    """Of which tokens of a forward there shall be logits, and where."""

    logits: NDArray[np.float32]
    rows: NDArray[np.int64]
