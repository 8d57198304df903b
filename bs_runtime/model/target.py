"""The target model in PyTorch: any decoder-only model of transformers that can be rolled back."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from bs_runtime.checkpoint.config import window_of
from bs_runtime.checkpoint.errors import CheckpointError
from bs_runtime.checkpoint.facts import Facts, read_facts
from bs_runtime.checkpoint.refused import refuse_state
from bs_runtime.model import attention, prepack, timing
from bs_runtime.model.block import ROOT
from bs_runtime.model.choice import AUTO, DTYPES, choose_dtype, find_device, own_dtype, size_of
from bs_runtime.model.errors import TargetError
from bs_runtime.model.forward import HAS_TRITON, Engine
from bs_runtime.model.kv import Feed, Slot
from bs_runtime.model.loading import find_model, open_model
from bs_runtime.model.plain import plain_rows, same, stay_plain
from bs_runtime.model.step import Serial
from bs_runtime.model.told import listen
from draftlink.protocol.tokenizer import tokenizer_hash

log = logging.getLogger("draftlink.bs")


class Target(Serial):
    """A loaded model. It takes ``model`` over: layers are replaced by faster ones of equal value.

    ``vocab_size`` is the number of logits, ``context`` the longest history in tokens. Raises
    TargetError for a model whose KV cache cannot be rolled back.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: str,
        name: str,
        facts: Facts | None = None,
        context: int | None = None,
    ) -> None:
        config = model.config.get_text_config()
        longest = rollable_context(config, stateful=getattr(model, "_is_stateful", False))
        if context is not None and not 1 <= context <= longest:
            raise TargetError(f"the context must be between 1 and {longest} tokens, not {context}")
        self.context = longest  # for the trial
        self.model = model.eval()
        self.name = name
        self.tokenizer_hash = tokenizer_hash(Tokenizer.from_str(tokenizer))
        self.dtype = str(model.dtype).removeprefix("torch.")
        self._told = listen(self.model, self.context)
        if self._told is not None and self._told.capped:
            # "sdpa" leaves the caps out, and says nothing.
            model.set_attn_implementation("eager")
        # Ids for a trial; rows are known before anything is replaced, and again after.
        trial = list(range(min(6, int(config.vocab_size))))
        rows = plain_rows(model, trial, name)
        self.vocab_size = int(rows.shape[-1])
        self.facts = (facts or Facts()).within(self.vocab_size)
        self.engine = Engine(model, self.vocab_size, self.context)
        self._quicken(trial, rows)
        self.branches = self.engine.packed
        if not self._agrees(trial, rows):
            raise TargetError(
                f"{name}: going on after a rollback gives other logits than a fresh start, so its"
                " cache cannot be rolled back; use a model with full attention and a KV cache"
            )
        self.context = self.engine.context = context or longest
        self.times: list[tuple[int, float]] = []  # what steps take, as (rows, seconds)
        self.time()

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        device: str = "cpu",
        dtype: str = "float32",
        context: int | None = None,
    ) -> Target:
        """Load a local folder or hub id. Raises TargetError.

        ``device`` and ``dtype`` may be "auto". ``context``: the longest history, in tokens, where
        that shall be shorter than the model's own.
        """
        if dtype not in (AUTO, *DTYPES):
            raise TargetError(f"no dtype {dtype!r}; use one of {', '.join((*DTYPES, AUTO))}")
        place, begun = find_device(device), time.monotonic()
        source, name = find_model(model)
        try:
            files = open_model(source)
            chosen = choose_dtype(dtype, size_of(files), place, own_dtype(files), name=str(model))
            loaded, words = files.load(chosen, place)
            words.end_texts(loaded.generation_config)
            said = read_facts(loaded.generation_config, words.tokenizer)
            log.info("%s is read after %.1f s; trying it", name, time.monotonic() - begun)
            there = loaded if loaded.device.type == place.type else loaded.to(place)
            return cls(there, words.tokenizer.to_str(), name, said, context)
        except CheckpointError as error:
            raise TargetError(str(error)) from None
        except (torch.OutOfMemoryError, MemoryError):
            raise TargetError(
                f"{model} does not fit into the memory of {device} in {dtype}; use a smaller model,"
                " --dtype bfloat16 or --device cpu"
            ) from None

    @property
    def device(self) -> torch.device:
        """Where the model is, and with it the KV slots."""
        place: torch.device = self.model.device
        return place

    def time(self) -> None:
        """Try what steps take: anew where ``forward`` has been made slower."""
        if self.context >= timing.ROWS:
            self.times = timing.times(self.forward, self.open(), range(min(6, self.vocab_size)))

    def open(self) -> Slot:
        """A new, empty KV slot."""
        return self.engine.open()

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        """Feed many slots in one step: see ``Engine.forward``."""
        return self.engine.forward(feeds)

    def _quicken(self, trial: list[int], rows: torch.Tensor) -> None:
        """One packed forward where the model can use it, and on the CPU packed weights."""
        model = self.model
        if (fault := self._pack(trial, rows)) is not None:
            log.warning(
                f"{self.name}: {fault}; so sessions are fed one after the other: a step of n of"
                " them takes n forwards, and drafts that branch are refused"
            )
            stay_plain(model, trial, rows, self.name)
        elif model.device.type == "cuda" and HAS_TRITON:
            self._fuse(trial, rows)
        if prepack.packs(model):
            prepack.prepack(model)
        else:
            prepack.bound(model)

    def _pack(self, trial: list[int], rows: torch.Tensor) -> str | None:
        """Attend by ``attention.attend``, for one forward a step; or why the model cannot."""
        model = self.model
        default = model.config._attn_implementation
        # A model that goes without "sdpa" has a reason; of those, ours knows a soft cap.
        if default != "sdpa" and not (default == "eager" and self._told and self._told.capped):
            return f"its attention is {default}, in whose place no other can stand"
        if not model.is_backend_compatible():
            return "its attention cannot be replaced in this version of transformers"
        if self._told is None and window_of(model.config.get_text_config(), self.context):
            return "what its attention is told of its sliding window cannot be seen"
        if self._told is not None and self._told.fault is not None:
            return self._told.fault
        model.set_attn_implementation(attention.NAME)
        self.engine.packed = True
        try:
            if self._agrees(trial, rows):
                return None
            fault = "tokens of several sessions in one forward give other logits"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever the model's own code makes of packed tokens
            line = (str(error).strip() or repr(error)).splitlines()[0]
            fault = f"tokens of several sessions in one forward are an error ({line})"
        model.set_attn_implementation(default)
        self.engine.packed = False
        return fault

    def _fuse(self, trial: list[int], rows: torch.Tensor) -> None:
        slot = self.open()
        slot.forward(trial)
        layout, heads = slot.layout, self.model.config.get_text_config().num_attention_heads
        if layout is None or heads % layout.kv_heads:
            log.warning("no fused attention on this GPU: what is cached differs between layers")
            return
        plain = Engine(self.model, self.vocab_size, self.context)
        plain.packed = True
        try:
            self.engine.fuse(layout, heads)
            agrees = self._agrees(trial, rows)
        except Exception as error:  # whatever Triton makes of this GPU
            log.warning("no fused attention on this GPU: %s", error)
            agrees = False
        if not agrees:
            self.engine = plain

    def _agrees(self, trial: list[int], rows: torch.Tensor) -> bool:
        """Whether feeding ``trial`` in parts, with a wrong turn rolled back, gives its ``rows``.

        Another session takes part in the steps, and where the model is packed a block with a wrong
        sibling, which is not kept.
        """
        slot, other = self.open(), self.open()
        found = [self.forward([Feed(other, trial[-1:], 0), Feed(slot, trial[:2], 2)])]
        self.forward([Feed(slot, trial[:3], 1), Feed(other, trial[:3], 1)])
        slot.rollback(2)
        ids, packed = trial[2:-1], self.engine.packed
        path = range(packed, packed + len(ids))  # behind the sibling, if there is one
        parents = [ROOT, ROOT, *path[:-1]] if packed else range(ROOT, len(ids) - 1)
        block = Feed(slot, [*trial[:packed], *ids], len(ids), parents)
        found.append(self.forward([Feed(other, trial[-2:], 0), block]))
        slot.keep(path)
        found.append(slot.forward(trial[-1:]))
        return same(torch.cat(found).cpu(), rows, self.model.dtype)


def rollable_context(config: Any, *, stateful: bool = False) -> int:
    """The context within which the KV cache can be cut back to any earlier length, in tokens.

    Raises TargetError where there is none.
    """
    try:
        refuse_state(config, stateful=stateful)
    except CheckpointError as error:
        raise TargetError(str(error)) from None
    context = getattr(config, "max_position_embeddings", None)
    if not context:
        raise TargetError(f"{config.model_type} states no context length; use another model")
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) == "longrope":
        # Its frequencies change at this length, under the keys that are cached already.
        original = getattr(config, "original_max_position_embeddings", None)
        context = min(context, original or rope.get("original_max_position_embeddings") or context)
    return int(context)
