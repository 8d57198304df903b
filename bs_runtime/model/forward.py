"""KV slots of many sessions, and one forward over the packed tokens of all that wait.

The tokens of a step stand behind one another in a single row, without padding; position ids say
where in its own history each one stands. transformers' own code does the rest: its cache interface
hands every layer's new keys and values to ``StepCache``, which writes them to the slots that they
belong to, and its attention interface calls ``attention.attend``, where each session looks at its
own slot alone: at all of its committed chain, and at the block behind it as the tokens' ancestors
say. So no architecture is rewritten.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bs_runtime.model import sight
from bs_runtime.model.attention import Form, PackedStep, running
from bs_runtime.model.errors import TargetError
from bs_runtime.model.kv import Feed, Layout, Slot
from bs_runtime.model.sight import Sight

if TYPE_CHECKING:
    from bs_runtime.model.fused import Fused

HAS_TRITON = find_spec("triton") is not None  # it comes with PyTorch for GPUs


@dataclass(frozen=True)
class Part:
    """A feed's place in a step: ``tokens`` from ``begin`` on, and what they see of their slot."""

    slot: Slot
    begin: int
    tokens: int
    sight: Sight

    @property
    def length(self) -> int:
        """Entries of the slot with the tokens."""
        return self.sight.length


class StepCache(PackedStep):
    """The slots during one forward, written and read one session after the other.

    ``packed``: the attention reads the slots itself. Else there is one part, and ``update`` returns
    the whole of it, as attention of any other kind expects.
    """

    def __init__(self, parts: Sequence[Part], *, packed: bool) -> None:
        super().__init__()
        self.parts = parts
        self._packed = packed

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write keys and values (1, kv heads, tokens, d) of a layer to their slots."""
        if self._packed:
            return super().update(key_states, value_states, layer_idx)
        self.store(layer_idx, key_states, value_states)
        return self.parts[0].slot.read(layer_idx, self.parts[0].length)

    def store(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Write keys and values (1, kv heads, tokens, d) of a layer to their slots."""
        for part in self.parts:
            part.slot.write(
                layer,
                keys.narrow(2, part.begin, part.tokens),
                values.narrow(2, part.begin, part.tokens),
            )

    def attend(self, layer: int, query: Tensor, kv_heads: int, form: Form) -> Tensor:
        """Query (1, heads, tokens, d) to (1, tokens, heads, d), one session after the other."""
        out = []
        for part in self.parts:
            rows = query.narrow(2, part.begin, part.tokens)
            keys, values = part.slot.read(layer, part.length)
            out.append(sight.attend(rows, keys, values, part.sight, form).transpose(1, 2))
        return torch.cat(out, 1)

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens cached before the step, of the first part: packed models do not ask for it."""
        return self.parts[0].slot.length

    def get_mask_sizes(self, *_: Any, **__: Any) -> tuple[int, int]:
        """Length and offset of the mask that attention of another kind needs."""
        return self.parts[0].length, 0


def _lacks_memory(error: BaseException) -> bool:
    """Whether an allocation failed: on a CPU PyTorch says so in words alone."""
    said = isinstance(error, RuntimeError) and "allocate" in str(error)
    return said or isinstance(error, MemoryError | torch.OutOfMemoryError)


class Engine:
    """A model's forward over many slots.

    ``packed`` says whether a step is one forward; if not, it is one for each slot, for models
    whose attention is not ``attention.attend``; such a model takes plain chains only. ``fused``:
    what runs it on a GPU, once ``fuse`` was called; slots opened before are then of no use.
    ``context``: positions that a slot's tokens may have; ``token_bytes``: memory that each token
    takes there, 0 before the first forward.
    """

    def __init__(self, model: Any, vocab_size: int, context: int) -> None:
        self.model = model
        self.vocab_size = vocab_size
        self.context = context
        self.packed = False
        self.token_bytes = 0
        self.layout: Layout | None = None
        self.fused: Fused | None = None
        known = inspect.signature(model.forward).parameters
        self._keeps_logits = "logits_to_keep" in known
        self._cache = "cache" if "cache" in known else "past_key_values"  # until transformers 5.24

    def open(self) -> Slot:
        """A new, empty slot."""
        return Slot(self)

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Feed slots, each at most once; float32 logits (Σ rows, V) in order, where the model is.

        The head runs over the rows that are wanted. Raises TargetError for no ids, ids out of
        range, past the context, for a block that is none, and for one that branches where the
        model is not packed. After a forward that fails the slots are as before, or empty where it
        lacked memory.
        """
        for feed in feeds:
            feed.slot.carry_out()  # what went with no step
            self._check(feed)
        steps = [feeds] if self.packed else [[feed] for feed in feeds]
        run = self._run if self.fused is None else self._run_fused
        try:
            with torch.inference_mode():
                rows = [run(step) for step in steps]
        except BaseException as error:
            # What was written stands behind the slots' lengths, and is never read.
            if _lacks_memory(error):
                for feed in feeds:
                    feed.slot.close()
            raise
        for feed in feeds:
            feed.slot.advance(feed.ids, feed.parents)
        if not self.token_bytes:
            slot = feeds[0].slot
            self.token_bytes = slot.bytes // slot.capacity
        return torch.cat(rows) if len(rows) > 1 else rows[0]

    def _check(self, feed: Feed) -> None:
        ids, length = feed.ids, feed.slot.length
        if not ids or min(ids) < 0 or max(ids) >= self.vocab_size:
            raise TargetError(f"feed at least one id, each from 0 to {self.vocab_size - 1}")
        if feed.slot.block and len(feed.parents) != len(ids):
            raise TargetError("a block is under verification: keep a path of it, then feed on")
        longest = length + len(ids)
        if feed.ancestors is not None:
            if not self.packed:
                raise TargetError("this model's attention takes plain chains only, no branches")
            longest = max(feed.positions) + 1
        if longest > self.context:
            raise TargetError(
                f"{longest} tokens, where the context is {self.context}; shorten the"
                " prompt or ask for fewer tokens"
            )

    def fuse(self, layout: Layout, heads: int) -> None:
        """Attend for all slots at once, by Triton's kernels, and capture what can be."""
        from bs_runtime.model.fused import Fused  # Triton comes with PyTorch for GPUs alone

        self.layout = layout
        self.fused = Fused(self._logits, heads // layout.kv_heads, self.model.device)
        self.fused.capture()

    def _run_fused(self, feeds: Sequence[Feed]) -> Tensor:
        assert self.fused is not None
        return self.fused.forward(feeds)

    def _run(self, feeds: Sequence[Feed]) -> Tensor:
        device = self.model.device
        parts: list[Part] = []
        ids: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        for feed in feeds:
            parts.append(self._part(feed, len(ids)))
            ids += feed.ids
            positions += feed.positions
            wanted += range(len(ids) - feed.rows, len(ids))
        rows = self._logits(
            torch.tensor(ids, device=device),
            torch.tensor(positions, device=device) if self.packed else None,
            torch.tensor(wanted or [0], device=device),  # a head may not take no rows
            StepCache(parts, packed=self.packed),
        )
        return rows[: len(wanted)].float()

    def _logits(
        self, ids: Tensor, positions: Tensor | None, keep: Tensor, step: PackedStep
    ) -> Tensor:
        """The model's logits (kept, V) for ids (tokens,), of the rows of ``keep``."""
        options: dict[str, Any] = {self._cache: step}
        if positions is not None:
            options["position_ids"] = positions[None]
        if self._keeps_logits:
            options["logits_to_keep"] = keep
        with running(step):
            logits: Tensor = self.model(input_ids=ids[None], use_cache=True, **options).logits[0]
        return logits if self._keeps_logits else logits[keep]

    def _part(self, feed: Feed, begin: int) -> Part:
        feed.slot.reserve(feed.slot.length + len(feed.ids))
        feed.slot.fit()
        options = {"dtype": self.model.dtype, "device": self.model.device}
        return Part(feed.slot, begin, len(feed.ids), Sight.of(feed, options))
