"""Who writes in ``bench.real``, each in a process of its own: a device, and transformers.

An order is a prompt's ids, how many tokens to write behind it, and a seed. What a device's process
imports is what a device has: no PyTorch.
"""

from __future__ import annotations

import asyncio
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from draftlink.host import children
from draftlink.schemes import AnyScheme


def device(pipe: Connection, bundle: Path, url: str, mode: str, scheme: AnyScheme) -> None:
    """A device that writes in one mode, when it is given an order."""
    from device_runtime.device import Device, Sampling

    async def run() -> None:
        async with Device(bundle, url) as opened:
            pipe.send(None)
            while order := await asyncio.to_thread(pipe.recv):
                prompt, tokens, seed = order
                generation = opened.generate(
                    prompt, max_tokens=tokens, sampling=Sampling(temperature=1.0), scheme=scheme,
                    mode=mode, seed=seed, eos_ids=(),  # type: ignore[arg-type]
                )  # fmt: skip
                async for _ in generation:
                    pass
                pipe.send(msgspec.to_builtins(generation.result))

    children.run(run())


def generate(pipe: Connection, folder: Path) -> None:
    """transformers' ``generate`` of the reference, when it is given an order."""
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, trust_remote_code=False
    )
    model.generation_config.eos_token_id = None
    pipe.send(None)
    while order := pipe.recv():
        prompt, tokens, seed = order
        torch.manual_seed(seed)
        ids = torch.tensor([prompt])
        begun = time.perf_counter()
        written = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens,
            do_sample=True, temperature=1.0, top_k=0, top_p=1.0, pad_token_id=0,
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        pipe.send({"tokens_per_s": (written.shape[1] - ids.shape[1]) / seconds})
