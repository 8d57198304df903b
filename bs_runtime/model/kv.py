"""A session's KV cache at the base station: a slot that is filled, cut back and emptied.

What a slot holds has two parts, one behind the other: the *committed chain*, tokens of the history
whose keys and values any other history with the same beginning may copy, and the *block* under
verification (``block``), of which a path may come to be committed. So a cached token has an index,
where its keys and values lie, and a position, which rotary embeddings and the model's context are
about. In the chain they are the same; in a block that branches they are not.

Whoever plans steps changes a slot's counts alone; what that does to its keys and values is noted,
and goes with the next step that the slot is in (``commands``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from bs_runtime.model.block import Block
from bs_runtime.model.commands import Command, Copy, Drop, Keep
from bs_runtime.model.errors import TargetError

BLOCK = 64  # tokens by which a slot grows at the least
SPARE = 0.125  # of its capacity, by which it grows at the least


@dataclass(frozen=True)
class Layout:
    """What is cached of a token: keys and values of d numbers for each layer and kv head."""

    layers: int
    kv_heads: int
    d: int


class Owner(Protocol):
    """What a slot needs of its engine."""

    model: Any
    context: int  # positions that a slot's tokens may have
    token_bytes: int  # that a token's keys and values take, once a slot was fed
    layout: Layout | None  # where all layers of a slot stand in one buffer

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """See ``Engine.forward``."""


class Slot:
    """One history's KV cache: for each layer keys and values, (1, kv heads, capacity, d).

    The length is all there is to a rollback: entries behind it are never read, and are written
    over. Capacity comes in whole blocks, up to the context, and with ``SPARE`` of itself more where
    it grows, so that a long history is not copied for every block of it.
    """

    def __init__(self, engine: Owner) -> None:
        self.in_flight = False  # a step that it is in was launched, and is not collected
        self._engine = engine
        self._commands: list[Command] = []
        self._chain: list[int] = []
        self._block = Block()
        self.capacity = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._slab: Tensor | None = None  # (layers, 2, 1, kv heads, capacity, d): all of them
        self._bytes = 0

    @property
    def length(self) -> int:
        """Tokens in the cache, the committed chain's and the block's: the next token's index."""
        return len(self._chain) + len(self._block)

    @property
    def ids(self) -> list[int]:
        """The committed chain's tokens; not to be changed."""
        return self._chain

    @property
    def block(self) -> list[int]:
        """The tokens under verification, behind the chain; not to be changed."""
        return self._block.ids

    @property
    def address(self) -> int:
        """Where its first layer's keys are; all others stand behind, if the engine has a layout."""
        return self._layers[0][0].data_ptr()

    @property
    def layout(self) -> Layout | None:
        """What a token takes, if it is the same in every layer, and for keys as for values."""
        shapes = {(t.shape[1], t.shape[3]) for pair in self._layers.values() for t in pair}
        if len(shapes) != 1 or set(self._layers) != set(range(len(self._layers))):
            return None
        return Layout(len(self._layers), *shapes.pop())

    @property
    def bytes(self) -> int:
        """Memory held, used or not, once what is noted is carried out."""
        return self._bytes

    def bytes_for(self, length: int, *, spare: bool = False) -> int:
        """Memory held once there is room for ``length`` tokens; ``spare``: see ``reserve``.

        While it grows, what is held now is held beside it.
        """
        return self._capacity_for(length, spare) * self._engine.token_bytes

    def forward(self, ids: Sequence[int], *, last: bool = False) -> Tensor:
        """Feed ``ids`` alone; float32 logits (len(ids), V), or (1, V) with ``last``.

        Raises what ``Engine.forward`` raises.
        """
        return self._engine.forward([Feed(self, ids, 1 if last else len(ids))])

    def ancestors(self, parents: Sequence[int]) -> list[int] | None:
        """The ancestors of tokens of the block that are fed next: see ``Block.ancestors``."""
        return self._block.ancestors(parents)

    def rollback(self, length: int) -> None:
        """Cut the cache back to ``length`` tokens, which are the committed chain then.

        Raises TargetError for more than it holds, and for a part of the block that is no path.
        """
        if not 0 <= length <= self.length:
            raise TargetError(f"cannot roll {self.length} tokens back to {length}")
        self.keep(range(max(0, length - len(self._chain))))
        del self._chain[length:]

    def keep(self, path: Sequence[int]) -> None:
        """Commit a path of the block, and drop everything else of it.

        ``path``: indices in the block. The first follows the chain, each other one the one before
        it; none drop the block. Entries of the path that lie elsewhere are moved to stand behind
        the chain; of a path that is the block's beginning nothing is moved. Raises TargetError
        for what is no path, and changes nothing then.
        """
        ids, base = self._block.path(path), len(self._chain)
        stays = next((i for i, at in enumerate(path) if at != i), len(path))
        if stays < len(path):
            self._commands.append(Keep(self, [base + at for at in path[stays:]], base + stays))
        self._chain += ids
        self._block.clear()

    def move(self, indices: Sequence[int], to: int) -> None:
        """Copy the entries at ``indices`` to stand one behind the other from ``to`` on."""
        pairs = self._layers.values()
        held = [x for pair in pairs for x in pair] if self._slab is None else [self._slab]
        with torch.inference_mode():  # as the buffers were made in a forward
            found = torch.tensor(indices, device=held[0].device)
            for buffer in held:
                buffer.narrow(-2, to, len(indices)).copy_(buffer.index_select(-2, found))

    def adopt(self, source: Slot, ids: Sequence[int]) -> None:
        """Copy what another slot's committed chain has of ``ids`` behind what is cached here.

        Nothing is copied unless the chain here begins ``ids``, with no block behind it.
        """
        begin, end = self.length, min(len(source.ids), len(ids))
        if end <= begin or source.ids[:end] != ids[:end] or self._chain != ids[:begin]:
            return
        self.reserve(end)
        self._chain += ids[begin:end]
        self._commands.append(Copy(self, source, begin, end))

    def copy(self, source: Slot, begin: int, end: int) -> None:
        """Copy another slot's entries from ``begin`` to ``end``, to the same indices."""
        source.carry_out()
        self.fit()
        with torch.inference_mode():
            for layer in source._layers:
                keys, values = source.read(layer, end)
                self.write(layer, keys[:, :, begin:], values[:, :, begin:], begin)

    def drop(self) -> None:
        """Empty the slot, so that it can be fed again; its memory is given back with a step."""
        self._chain.clear()
        self._block.clear()
        self.capacity = self._bytes = 0
        self._commands = [Drop(self)]

    def free(self) -> None:
        """Give all memory back."""
        self._layers.clear()
        self._slab = None

    def close(self) -> None:
        """Empty the slot at once; it can be fed again. Not during a forward."""
        self.drop()
        self.carry_out()

    def take_commands(self) -> Sequence[Command]:
        """What is noted, in its order, for the step that the slot is in next."""
        taken, self._commands = self._commands, []
        return taken

    def carry_out(self) -> None:
        """Do what is noted: for whoever has the slot to itself."""
        for command in self.take_commands():
            command.apply()

    def reserve(self, length: int, *, spare: bool = True) -> None:
        """Make each layer's next write have room for ``length`` tokens; ``spare``: and for more."""
        self.capacity = self._capacity_for(length, spare)

    def fit(self) -> None:
        """Have the memory that was reserved, where all layers stand in one buffer."""
        layout, slab = self._engine.layout, self._slab
        if layout is not None and (slab is None or slab.shape[-2] < self.capacity):
            self._grow(layout, self.capacity)

    def _capacity_for(self, length: int, spare: bool) -> int:
        if length <= self.capacity:
            return self.capacity
        least = int(self.capacity * (1 + SPARE)) if spare else 0
        blocks = -(-max(length, least) // BLOCK)
        # More than the context only for a block that branches at its very end.
        return max(length, min(blocks * BLOCK, self._engine.context))

    def _grow(self, layout: Layout, capacity: int) -> None:
        """One buffer of the whole capacity for all layers, with what is cached."""
        shape = layout.layers, 2, 1, layout.kv_heads, capacity, layout.d
        model = self._engine.model
        slab = torch.empty(shape, dtype=model.dtype, device=model.device)
        for layer, pair in self._layers.items():
            for new, old in zip(slab[layer], pair, strict=True):
                count = min(self.length, old.shape[2])
                new[:, :, :count] = old[:, :, :count]
        self._layers = {i: (pair[0], pair[1]) for i, pair in enumerate(slab)}
        self._slab = slab
        self._bytes = slab.nbytes

    def write(self, layer: int, keys: Tensor, values: Tensor, at: int | None = None) -> None:
        """Put keys and values (1, kv heads, tokens, d) behind what is cached, or from ``at`` on."""
        held = self._layers.get(layer)
        if held is None or held[0].shape[2] < self.capacity:
            old_keys, old_values = held or (None, None)
            held = self._grown(old_keys, keys), self._grown(old_values, values)
            self._layers[layer] = held
            self._bytes += held[0].nbytes + held[1].nbytes
            if old_keys is not None and old_values is not None:
                self._bytes -= old_keys.nbytes + old_values.nbytes
        count, at = keys.shape[2], self.length if at is None else at
        held[0].narrow(2, at, count).copy_(keys)
        held[1].narrow(2, at, count).copy_(values)

    def _grown(self, old: Tensor | None, like: Tensor) -> Tensor:
        """A buffer of the whole capacity, with what is cached in ``old``."""
        new = like.new_empty(1, like.shape[1], self.capacity, like.shape[3])
        if old is not None:
            count = min(self.length, old.shape[2])  # what is still to be copied is in neither
            new[:, :, :count] = old[:, :, :count]
        return new

    def read(self, layer: int, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values of ``layer``, views (1, kv heads, length, d)."""
        keys, values = self._layers[layer]
        return keys.narrow(2, 0, length), values.narrow(2, 0, length)

    def advance(self, ids: Sequence[int], parents: Sequence[int] = ()) -> None:
        """These tokens are in every layer by now; see ``Feed`` for what ``parents`` says."""
        chain = len(ids) - len(parents)
        self._chain += ids[:chain]
        if parents:
            self._block.extend(ids[chain:], parents)


@dataclass(frozen=True)
class Feed:
    """Tokens for one slot; the logits behind the last ``rows`` of them are wanted (0: of none).

    The last ``len(parents)`` tokens are under verification: they go on with the slot's block, and
    ``parents`` names each one's parent there (``block``). The tokens before them continue the
    committed chain, for which there must be no block. A block may be fed in parts.
    """

    slot: Slot
    ids: Sequence[int]
    rows: int
    parents: Sequence[int] = ()

    @property
    def first(self) -> int:
        """The index of the block's first token, which is where the committed chain ends."""
        return len(self.slot.ids) + len(self.ids) - len(self.parents)

    @property
    def ancestors(self) -> list[int] | None:
        """Of each token of ``parents``; None where each token follows the one before it."""
        return self.slot.ancestors(self.parents) if self.parents else None

    @property
    def positions(self) -> Sequence[int]:
        """Of each token, in its own history."""
        begin, ancestors = self.slot.length, self.ancestors
        if ancestors is None:
            return range(begin, begin + len(self.ids))
        depths = [mask.bit_count() - 1 for mask in ancestors]
        return [*range(begin, self.first), *(self.first + depth for depth in depths)]
