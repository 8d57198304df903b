"""What ``bench.batch`` runs beside its devices, each in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

import tinypair

GAMMA = 4
TOKENS = 128
LAG_S = 0.005


def station(pipe: Connection, device: str) -> None:
    """A base station: sends its address, then its totals and the lags since, when asked."""
    import torch
    import uvicorn

    from bench.serving.timed import timed
    from bs_runtime.model.target import Target
    from bs_runtime.serving.app import create_app

    torch.set_num_threads(1)
    target = Target.load(tinypair.TARGET, device=device)
    forward_s = timed(target)
    app = create_app(target)
    config = uvicorn.Config(
        app, port=0, ws="websockets-sansio", ws_per_message_deflate=False, log_level="error"
    )
    server = uvicorn.Server(config)
    lags: list[float] = []

    async def probe() -> None:
        while True:
            asked = time.perf_counter()
            await asyncio.sleep(LAG_S)
            lags.append(time.perf_counter() - asked - LAG_S)

    async def serve() -> None:
        probing = asyncio.create_task(probe())
        await server.serve()
        probing.cancel()

    threading.Thread(target=asyncio.run, args=(serve(),), daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    pipe.send(f"ws://127.0.0.1:{port}")
    while pipe.recv():
        found, lags[:] = list(lags), []
        pipe.send((asdict(app.state.scheduler.totals) | {"forward_s": forward_s()}, found))


def assistant(pipe: Connection, device: str) -> None:
    """transformers' assisted generation: tokens/s, and the texts, for each list of prompts."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    target: Any = AutoModelForCausalLM.from_pretrained(
        tinypair.TARGET, dtype=torch.float32, trust_remote_code=False
    )
    draft: Any = AutoModelForCausalLM.from_pretrained(
        tinypair.DRAFT, dtype=torch.float32, trust_remote_code=False
    )
    target, draft = target.to(device), draft.to(device)
    tokenizer: Any = AutoTokenizer.from_pretrained(tinypair.TARGET, trust_remote_code=False)
    target.generation_config.pad_token_id = target.generation_config.eos_token_id
    draft.generation_config.num_assistant_tokens = GAMMA
    draft.generation_config.num_assistant_tokens_schedule = "constant"
    draft.generation_config.assistant_confidence_threshold = 0.0

    def write(prompt: str) -> list[int]:
        given = tokenizer(prompt, return_tensors="pt").to(device)
        out = target.generate(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            assistant_model=draft,
            do_sample=False,
            max_new_tokens=TOKENS,
        )
        ids: list[int] = out[0, given["input_ids"].shape[1] :].tolist()
        return ids

    write("Once")
    pipe.send("ready")
    while prompts := pipe.recv():
        begun = time.perf_counter()
        texts = [write(prompt) for prompt in prompts]
        pipe.send((sum(map(len, texts)) / (time.perf_counter() - begun), texts))


@contextmanager
def running(
    work: Callable[[Connection, str], None], device: str
) -> Iterator[tuple[Any, Connection]]:
    """``work`` in a process of its own: its first message, and the pipe to it."""
    pipe, end = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(end, device))
    process.start()
    try:
        yield pipe.recv(), pipe
    finally:
        with suppress(OSError):  # it has ended by itself, which ``recv`` then says
            pipe.send(None)
        process.join(10)
        process.kill()
