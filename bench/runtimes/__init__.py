"""Runtimes that decode on a device, each behind the same two methods: ours and its peers."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bench import shape

Row = NDArray[np.floating[Any]]


class Cached(Protocol):
    """Tokens that a model has been fed."""

    def feed(self, ids: list[int]) -> Row:
        """Feed tokens; the logits (V,) behind the last, to be read before the next call."""

    def rollback(self, length: int) -> None:
        """Keep the first ``length`` tokens."""


def rows(cached: Cached, ids: Sequence[int], begin: int) -> Iterator[Row]:
    """The logits before each of ``ids`` from ``begin`` on, fed one at a time as when drafting.

    Of a cache that is emptied first; each is to be read before the next is asked for.
    """
    cached.rollback(0)
    yield cached.feed(list(ids[:begin]))
    for token in ids[begin:-1]:
        yield cached.feed([token])


class Runtime(Protocol):
    """A model."""

    def cache(self) -> Cached:
        """An empty cache of its own."""


class Draftlink:
    """This repository's."""

    def __init__(self, path: Path, threads: int) -> None:
        from device_runtime.model.bundle import load_bundle
        from device_runtime.model.draft_model import DraftModel

        self._open = partial(DraftModel, load_bundle(path), threads=threads)
        self._weights = self._open()  # kept, so that every cache has the same

    def cache(self) -> Cached:
        """A draft model over the same weights."""
        return DraftlinkCached(self._open())


class DraftlinkCached:
    """A draft model."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def feed(self, ids: list[int]) -> Row:
        """Tokens."""
        row: Row = self._model.forward(ids)
        return row

    def rollback(self, length: int) -> None:
        """Cut back."""
        self._model.rollback(length)


class Genai:
    """onnxruntime-genai; threads are set in its configuration."""

    def __init__(self, path: Path, threads: int) -> None:
        import onnxruntime_genai as og

        self._lib = og
        config = og.Config(str(path))
        options = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = og.Model(config)

    def cache(self) -> Cached:
        """A generator of the same model."""
        params = self._lib.GeneratorParams(self._model)
        params.set_search_options(max_length=shape.CONTEXT, do_sample=False)
        return GenaiCached(self._lib.Generator(self._model, params))


class GenaiCached:
    """A generator."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def feed(self, ids: list[int]) -> Row:
        """Tokens."""
        self._generator.append_tokens(ids)
        logits = self._generator.get_logits()
        row: Row = logits.reshape(-1, logits.shape[-1])[-1]
        return row

    def rollback(self, length: int) -> None:
        """Cut back."""
        self._generator.rewind_to(length)


class LlamaCpp:
    """llama.cpp by its own C interface."""

    def __init__(self, path: Path, threads: int) -> None:
        import llama_cpp

        self._lib = llama_cpp
        self._threads = threads
        quiet = llama_cpp.llama_log_callback(lambda *_: None)
        self._quiet = quiet  # kept: C holds a pointer to it
        llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
        self._model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )

    def cache(self) -> Cached:
        """A context of the same model."""
        params = self._lib.llama_context_default_params()
        params.n_ctx, params.n_batch = shape.CONTEXT, shape.CONTEXT
        params.n_threads = params.n_threads_batch = self._threads
        size = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))
        context = self._lib.llama_init_from_model(self._model, params)
        return LlamaCppCached(self._lib, context, size)


class LlamaCppCached:
    """A context."""

    def __init__(self, lib: Any, context: Any, vocab_size: int) -> None:
        self._lib = lib
        self._context = context
        self._vocab_size = vocab_size
        self._memory = lib.llama_get_memory(context)

    def feed(self, ids: list[int]) -> Row:
        """Tokens."""
        array = (ctypes.c_int32 * len(ids))(*ids)
        if self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(array, len(ids))):
            raise RuntimeError("llama_decode failed")
        there = self._lib.llama_get_logits_ith(self._context, -1)  # waits until they are
        row: Row = np.ctypeslib.as_array(there, (self._vocab_size,))
        return row

    def rollback(self, length: int) -> None:
        """Cut back."""
        self._lib.llama_memory_seq_rm(self._memory, 0, length, -1)


KINDS: dict[str, type] = {"Draftlink": Draftlink, "genai": Genai, "llama.cpp": LlamaCpp}
