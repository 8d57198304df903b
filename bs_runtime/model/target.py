"""The target model in PyTorch: any decoder-only model of transformers that can be rolled back."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from bs_runtime.checkpoint.errors import CheckpointError
from bs_runtime.checkpoint.facts import Facts, read_facts
from bs_runtime.model import attention, prepack
from bs_runtime.model.block import ROOT
from bs_runtime.model.errors import TargetError
from bs_runtime.model.forward import HAS_TRITON, Engine
from bs_runtime.model.kv import Feed, Slot
from bs_runtime.model.loading import find_model, load_model
from bs_runtime.model.step import Serial
from draftlink.protocol.tokenizer import tokenizer_hash

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

log = logging.getLogger("draftlink.bs")


class Target(Serial):
    """A loaded model. It takes ``model`` over: layers are replaced by faster ones of equal value.

    ``vocab_size`` is the number of logits, ``context`` the longest history in tokens. Raises
    TargetError for a model whose KV cache cannot be rolled back.
    """

    def __init__(self, model: Any, tokenizer: str, name: str, facts: Facts | None = None) -> None:
        config = model.config.get_text_config()
        self.context = rollable_context(config, stateful=getattr(model, "_is_stateful", False))
        self.model = model.eval()
        self.name = name
        self.tokenizer_hash = tokenizer_hash(Tokenizer.from_str(tokenizer))
        self.dtype = str(model.dtype).removeprefix("torch.")
        # Ids for a trial; rows are known before anything is replaced, and again after.
        trial = list(range(min(6, int(config.vocab_size))))
        with torch.inference_mode():
            rows = model(torch.tensor([trial], device=model.device), use_cache=False).logits[0]
        rows = rows.float().cpu()
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

    @classmethod
    def load(cls, model: str | Path, *, device: str = "cpu", dtype: str = "float32") -> Target:
        """Load a local folder or hub id. Raises TargetError."""
        if dtype not in DTYPES:
            raise TargetError(f"no dtype {dtype!r}; use one of {', '.join(DTYPES)}")
        place = find_device(device)
        source, name = find_model(model)
        try:
            loaded, words = load_model(source, DTYPES[dtype])
        except CheckpointError as error:
            raise TargetError(str(error)) from None
        words.end_texts(loaded.generation_config)
        said = read_facts(loaded.generation_config, words.tokenizer)
        try:
            return cls(loaded.to(place), words.tokenizer.to_str(), name, said)
        except torch.OutOfMemoryError:
            raise TargetError(
                f"{model} does not fit into the memory of {device} in {dtype}; use a smaller model,"
                " --dtype bfloat16 or --device cpu"
            ) from None

    @property
    def device(self) -> torch.device:
        """Where the model is, and with it the KV slots."""
        place: torch.device = self.model.device
        return place

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
        # Ours stands in for "sdpa" alone: a model that goes without has a reason (a soft cap, say).
        if default != "sdpa":
            return f"its attention is {default}, in whose place no other can stand"
        if not model.is_backend_compatible():
            return "its attention cannot be replaced in this version of transformers"
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
        sibling, which is not kept. The tolerance is wide, for half precision; a state that was not
        rolled back, or another session's, is as far off as another text.
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
        scale = float(rows.abs().max())
        allowed = (1e-3 if self.dtype == "float32" else 0.1) * scale
        return float((torch.cat(found).cpu() - rows).abs().max()) <= allowed


def find_device(device: str) -> torch.device:
    """The device. Raises TargetError where it is unknown or not there."""
    try:
        place = torch.device(device)
    except RuntimeError:
        place = torch.device("meta")
    here = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }
    if place.type not in here:
        raise TargetError(f"no device {device!r}; use one of {', '.join(here)}, or cuda:1")
    if not here[place.type]:
        raise TargetError(f"PyTorch finds no {place.type} device here; use --device cpu")
    if (place.index or 0) >= here[place.type]:
        raise TargetError(f"no device {device!r}; there are {here[place.type]}, counted from 0")
    return place


def rollable_context(config: Any, *, stateful: bool = False) -> int:
    """The context within which the KV cache can be cut back to any earlier length, in tokens.

    Raises TargetError where there is none.
    """
    context = getattr(config, "max_position_embeddings", None)
    if stateful:
        raise TargetError(
            f"{config.model_type} keeps a recurrent state that cannot be rolled back; use a model"
            " with full attention"
        )
    if not context:
        raise TargetError(f"{config.model_type} states no context length; use another model")
    kinds = set(getattr(config, "layer_types", None) or ())
    if odd := kinds - {"full_attention", "sliding_attention"}:
        raise TargetError(
            f"layers of kind {', '.join(sorted(odd))} keep a state that cannot be rolled back; use"
            " a model with full attention"
        )
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in kinds if kinds else getattr(config, "use_sliding_window", True)
    if window and slides and window < context:
        raise TargetError(
            f"its sliding window of {window} tokens is shorter than its context of {context}, and"
            " entries that left the window cannot be rolled back; use a model with full attention"
        )
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    if rope.get("rope_type", rope.get("type")) == "longrope":
        # Its frequencies change at this length, under the keys that are cached already.
        original = getattr(config, "original_max_position_embeddings", None)
        context = min(context, original or rope.get("original_max_position_embeddings") or context)
    return int(context)
