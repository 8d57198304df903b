"""Runtimes that decode on a device, each behind the same two methods: ours and its peers."""

from __future__ import annotations

import ctypes
import json
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from bench import shape


class Cached(Protocol):
    """A context that a model has read."""

    def step(self, token: int) -> None:
        """Feed one token; its logits are then there to be read."""

    def rollback(self, length: int) -> None:
        """Keep the first ``length`` tokens."""


class Runtime(Protocol):
    """A model."""

    def read(self, ids: list[int]) -> Cached:
        """Feed a context into a cache of its own."""


class Draftlink:
    """This repository's."""

    def __init__(self, path: Path, threads: int) -> None:
        from device_runtime.model.bundle import load_bundle
        from device_runtime.model.draft_model import DraftModel

        self._open = partial(DraftModel, load_bundle(path), threads=threads)
        self._weights = self._open()  # kept, so that every cache has the same

    def read(self, ids: list[int]) -> Cached:
        """A draft model over the same weights."""
        model = self._open()
        model.forward(ids)
        return DraftlinkCached(model)


class DraftlinkCached:
    """A draft model."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def step(self, token: int) -> None:
        """One token."""
        self._model.forward([token])

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

    def read(self, ids: list[int]) -> Cached:
        """A generator of the same model."""
        params = self._lib.GeneratorParams(self._model)
        params.set_search_options(max_length=shape.CONTEXT, do_sample=False)
        generator = self._lib.Generator(self._model, params)
        generator.append_tokens(ids)
        return GenaiCached(generator)


class GenaiCached:
    """A generator."""

    def __init__(self, generator: Any) -> None:
        self._generator = generator

    def step(self, token: int) -> None:
        """One token."""
        self._generator.append_tokens([token])

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

    def read(self, ids: list[int]) -> Cached:
        """A context of the same model."""
        params = self._lib.llama_context_default_params()
        params.n_ctx, params.n_batch = shape.CONTEXT, shape.CONTEXT
        params.n_threads = params.n_threads_batch = self._threads
        cached = LlamaCppCached(self._lib, self._lib.llama_init_from_model(self._model, params))
        cached.decode(ids)
        return cached


class LlamaCppCached:
    """A context."""

    def __init__(self, lib: Any, context: Any) -> None:
        self._lib = lib
        self._context = context
        self._memory = lib.llama_get_memory(context)

    def decode(self, ids: list[int]) -> None:
        """Feed tokens."""
        array = (ctypes.c_int32 * len(ids))(*ids)
        if self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(array, len(ids))):
            raise RuntimeError("llama_decode failed")
        self._lib.llama_get_logits_ith(self._context, -1)  # waits until they are there

    def step(self, token: int) -> None:
        """One token."""
        self.decode([token])

    def rollback(self, length: int) -> None:
        """Cut back."""
        self._lib.llama_memory_seq_rm(self._memory, 0, length, -1)


KINDS: dict[str, type] = {"Draftlink": Draftlink, "genai": Genai, "llama.cpp": LlamaCpp}
