"""Attention of a step's packed sessions, as a backend of transformers.

Each session is one sequence behind its own KV slot, so its mask follows from a few numbers: there
is no padding, nothing of one session is looked at by another, and keys and values are read where
they are cached. (transformers' default builds a mask for every forward and copies keys and values
once per query head that shares them; for a short draft that costs a third of the forward.) Nothing
here waits for a GPU: all lengths are known to the host.

**How a step reaches the attention.** transformers calls an attention backend with the module, the
query, keys and values; which slots the tokens belong to and what each may look at, it cannot know.
Whoever runs a model with this backend therefore does so inside ``running(step)``, and ``attend``
finds the ``PackedStep`` of the forward that is under way on its thread, as vLLM's layers find
theirs through ``get_forward_context``. The contract has three parts:

1. The model is called with the step as its cache and inside ``running`` with that same step.
   Outside, ``attend`` raises RuntimeError.
2. For each layer the model calls the cache's ``update`` with the new keys and values of every
   token of the step, and then the attention with the very keys that ``update`` returned. These
   say which layer it is: a module's own number will not do, for some models run a module several
   times, and others let a layer look at an earlier layer's keys and values. With any other keys
   ``attend`` raises LookupError.
3. The query has a row for every token of the step, in the step's order.

A model that breaks the contract is found out by the trial when it is loaded, and is not packed.

Keyword arguments, the other way that transformers offers, do not reach the attention in every
model: GPT-2 drops them on transformers 4.57, and Nemotron on 5.24.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from transformers import AttentionInterface, Cache

NAME = "draftlink"


class Form(NamedTuple):
    """How a layer attends, as its module tells its attention.

    ``window``: how many tokens it sees back, its own included; None: all there are. ``softcap``:
    scores are capped as cap · tanh(score / cap); None: they are not.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None


class PackedStep(Cache):
    """One forward over the packed tokens of many slots, as transformers' code sees it: a cache."""

    def __init__(self) -> None:
        super().__init__(layers=[])
        # Weak, as a long prompt's keys must not be kept in memory until the last layer has run.
        self._returned: list[tuple[weakref.ref[torch.Tensor], int]] = []

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write keys and values (1, kv heads, tokens, d) of a layer to their slots."""
        self.store(layer_idx, key_states, value_states)
        self._returned.append((weakref.ref(key_states), layer_idx))
        return key_states, value_states

    def layer_of(self, key: torch.Tensor) -> int:
        """The layer whose ``update`` returned ``key``. Raises LookupError if none did."""
        for returned, layer in reversed(self._returned):
            if returned() is key:
                return layer
        raise LookupError("the model attends to other keys than its cache returned")

    def store(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Write keys and values (1, kv heads, tokens, d) of a layer to their slots."""
        raise NotImplementedError

    def attend(self, layer: int, query: torch.Tensor, kv_heads: int, form: Form) -> torch.Tensor:
        """Query (1, heads, tokens, d) to (1, tokens, heads, d), over a layer's slots."""
        raise NotImplementedError


_running: ContextVar[PackedStep] = ContextVar("running")


@contextmanager
def running(step: PackedStep) -> Iterator[None]:
    """While a model's forward is called with ``step`` as its cache."""
    token = _running.set(step)
    try:
        yield
    finally:
        _running.reset(token)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of packed tokens: query (1, heads, tokens, d) to (1, tokens, heads, d).

    ``key`` and ``value``, (1, kv heads, tokens, d), are in the slots by now. transformers makes no
    mask for a backend that registers none, so ``attention_mask`` is None. The None that is returned
    stands for the weights. That ``sliding_window`` is what a mask would have said is found out when
    the model is loaded (``told``).
    """
    step = _running.get(None)
    if step is None:
        raise RuntimeError("this model's attention needs a step: call it through its Target")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    form = Form(scale, sliding_window or None, softcap or None)
    return step.attend(step.layer_of(key), query, key.shape[1], form), None


AttentionInterface.register(NAME, attend)
