"""A step on a GPU: every layer attends for all sessions in one launch, and nothing waits inside.

A forward of a few tokens is over sooner than Python has launched its kernels one by one. Steps of
up to ``MOST`` tokens are therefore filled up to the next of ``SIZES``, whose launches were captured
in a CUDA graph; longer ones, which are prompts, are launched as they come. What differs between two
steps of a size is in the tables that the kernels read (``kernels``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bs_runtime.model import kernels
from bs_runtime.model.attention import Form, PackedStep
from bs_runtime.model.kv import Feed

SIZES = (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 640)  # tokens of a captured step
MOST = SIZES[-1]
WARM_UPS = 2  # forwards before the capture: what is set up at first use must not be captured

log = logging.getLogger("draftlink.bs")


class Tables:
    """What the kernels know of a step, in one int64 tensor on the GPU; room for ``size`` tokens.

    Token by token: its id; its position; its index in its slot; the ``bound``, before which it sees
    every entry of the slot; its ancestors, a bit mask that says which entries it sees from there
    on; the part that it belongs to (-1: padding). Of a chain the bound is the index and one more,
    and no ancestors need naming; of a block that branches it is the block's first index. The rows
    that are wanted. Part by part: its slot's address and capacity. Tile by tile: part, first token,
    count. There are at most as many parts and tiles as tokens.
    """

    NAMES = (
        "ids", "position", "index", "bound", "ancestors", "part", "wanted", "address", "capacity",
        "tile", "first", "count",
    )  # fmt: skip

    def __init__(self, size: int, device: torch.device) -> None:
        self.held = torch.from_numpy(self.empty(size)).to(device)
        self.ids, self.position = self.held[:2]
        self.wanted = self.held[6]
        index, bound, ancestors, part = self.held[2:6]
        self.tokens = kernels.Tokens(index, self.position, bound, ancestors, part, *self.held[7:9])
        tiles = self.held[9:]
        self.tiles = tiles[0], tiles[1], tiles[2]

    @classmethod
    def empty(cls, size: int) -> NDArray[np.int64]:
        """The tables, (12, size), of a step of padding."""
        tables = np.zeros((len(cls.NAMES), size), dtype=np.int64)
        tables[cls.NAMES.index("part")] = -1
        return tables

    def fill(self, feeds: Sequence[Feed], group: int) -> None:
        """Describe a step. ``group``: query heads that share keys and values."""
        host = self.empty(self.held.shape[1])
        ids, position, index, bound, ancestors, part, wanted, address, capacity = host[:9]
        tile, first, count = host[9:]
        parts = np.arange(len(feeds))
        counts = np.array([len(feed.ids) for feed in feeds])
        rows = np.array([feed.rows for feed in feeds])
        pasts = np.array([feed.slot.length for feed in feeds])
        ends = counts.cumsum()
        begins = ends - counts
        tokens = int(ends[-1])
        ids[:tokens] = [i for feed in feeds for i in feed.ids]
        index[:tokens] = np.arange(tokens) - (begins - pasts).repeat(counts)
        position[:tokens] = index[:tokens]
        bound[:tokens] = index[:tokens] + 1
        for feed, end in zip(feeds, ends, strict=True):
            if (masks := feed.ancestors) is not None:
                block = slice(end - len(masks), end)
                position[end - len(feed.ids) : end] = feed.positions
                bound[block] = feed.first
                ancestors[block] = np.array(masks, dtype=np.uint64).view(np.int64)
        part[:tokens] = parts.repeat(counts)
        wanted[: rows.sum()] = _within(rows) + (ends - rows).repeat(rows)
        address[: len(feeds)] = [feed.slot.address for feed in feeds]
        capacity[: len(feeds)] = [feed.slot.capacity for feed in feeds]
        most = kernels.tile_tokens(group)
        tiles = -(-counts // most)
        total, starts = int(tiles.sum()), most * _within(tiles)
        tile[:total] = parts.repeat(tiles)
        first[:total] = begins.repeat(tiles) + starts
        count[:total] = np.minimum(counts.repeat(tiles) - starts, most)
        self.held.copy_(torch.from_numpy(host))


def _within(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, … of each group of ``counts``, one group behind the other."""
    found: NDArray[np.int64] = np.arange(counts.sum()) - (counts.cumsum() - counts).repeat(counts)
    return found


class FusedStep(PackedStep):
    """The slots during one forward, written and read as the tables say, in one launch for all."""

    def __init__(self, tables: Tables) -> None:
        super().__init__()
        self._tables = tables

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Write keys and values (1, kv heads, tokens, d) of a layer to their slots."""
        kernels.store(keys, values, layer, self._tables.tokens)

    def attend(self, layer: int, query: Tensor, kv_heads: int, form: Form) -> Tensor:
        """Query (1, heads, tokens, d) to (1, tokens, heads, d)."""
        tables = self._tables
        return kernels.attend(query, layer, kv_heads, form, tables.tokens, tables.tiles)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Nothing of what transformers derives from it is used."""
        return 0


Forward = Callable[[Tensor, Tensor, Tensor, PackedStep], Tensor]


class _Captured:
    """One size's forward as a CUDA graph; its logits come to stand in ``logits``."""

    def __init__(
        self, size: int, run: Callable[[Tables], Tensor], logits: Tensor, pool: Any
    ) -> None:
        self.tables = Tables(size, logits.device)
        self._graph = torch.cuda.CUDAGraph()
        self._logits = logits
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                run(self.tables)
        torch.cuda.current_stream().wait_stream(side)
        with torch.cuda.graph(self._graph, pool=pool):
            logits[:size].copy_(run(self.tables))

    def replay(self) -> Tensor:
        """Logits (size, V), until the next step of any size."""
        self._graph.replay()
        return self._logits


class Fused:
    """The steps of a model on a GPU.

    ``forward``: of ids, positions, the rows that are wanted and a step, to logits (wanted, V).
    ``group``: query heads that share keys and values.
    """

    def __init__(self, forward: Forward, group: int, device: torch.device) -> None:
        self._model = forward
        self._group = group
        self._device = device
        self._here = torch.empty(0, device=device)  # Triton launches on the current GPU
        self._captured: dict[int, _Captured] = {}

    @property
    def captures(self) -> bool:
        """Whether short steps are replayed."""
        return bool(self._captured)

    def capture(self) -> None:
        """Capture the sizes; what a model does not let capture is launched as it comes."""
        with torch.inference_mode(), torch.cuda.device_of(self._here):
            try:
                logits = torch.empty_like(self._run(Tables(MOST, self._device)))
                pool = torch.cuda.graph_pool_handle()
                for size in reversed(SIZES):  # the memory of the largest serves the others
                    self._captured[size] = _Captured(size, self._run, logits, pool)
            except Exception as error:  # whatever the model's own code does
                self._captured.clear()
                log.warning("steps are not captured, which makes short ones slower: %s", error)

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Logits (Σ rows, V), float32."""
        with torch.cuda.device_of(self._here):
            rows = self.prepare(feeds)()[: sum(feed.rows for feed in feeds)]
            # A copy: the next step writes over a replayed one's.
            return rows.to(torch.float32, copy=True)

    def prepare(self, feeds: Sequence[Feed]) -> Callable[[], Tensor]:
        """What runs a step without waiting, to the logits. The slots have room for it then."""
        for feed in feeds:
            feed.slot.reserve(feed.slot.length + len(feed.ids))
            feed.slot.fit()
        tokens = sum(len(feed.ids) for feed in feeds)
        size = next((size for size in SIZES if size >= tokens), 0)
        captured = self._captured.get(size)
        tables = captured.tables if captured else Tables(tokens, self._device)
        tables.fill(feeds, self._group)
        if captured:
            return captured.replay
        rows = max(sum(feed.rows for feed in feeds), 1)  # a head may not take no rows
        return partial(self._run, tables, rows)

    def _run(self, tables: Tables, rows: int | None = None) -> Tensor:
        """Logits of the first ``rows`` that are wanted; of as many as there are tokens if None."""
        return self._model(tables.ids, tables.position, tables.wanted[:rows], FusedStep(tables))
