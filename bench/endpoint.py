"""What the endpoint adds to a text: its time to the first token, and for each token behind it.

    python -m bench.endpoint

A stand-in for the device writes as fast as it is asked, so all that is measured is the endpoint,
its template and a client on the same machine: what they take beside a real text, at the most.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import json
import statistics
import threading
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

from device_runtime.device import Device
from device_runtime.result import Result, Tally, Token
from device_runtime.serve.app import create_app
from device_runtime.serve.server import Server, listen
from device_runtime.serve.service import Service
from device_runtime.templates.template import Template

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
CONTEXT = 1 << 20


class _Text:
    """A generation whose tokens cost nothing."""

    def __init__(self, ids: list[int], **options: Any) -> None:
        self.text, self._count, self._ids = "", options["max_tokens"], ids
        self._tally = Tally(time.perf_counter())

    def cancel(self) -> None:
        self._count = 0

    async def __aiter__(self) -> AsyncIterator[Token]:
        for _ in range(self._count):
            self._tally.token(time.perf_counter(), "draft")
            self.text += " word"
            yield Token(1, " word", "draft")
            await asyncio.sleep(0)  # as between two tokens that come

    @property
    def result(self) -> Result:
        return self._tally.result(
            text=self.text, tokens=[1] * self._count, prompt_tokens=len(self._ids), seed=1,
            scheme="coupled", mode="both", stop_reason="length", draft_temperature=1.0, ledger=[],
            reconnects=0,
        )  # fmt: skip


class _Conversation:
    def __init__(self) -> None:
        self.history: list[int] = []
        welcome = SimpleNamespace(model="stand-in", context=CONTEXT, sampling=None, bos_ids=[])
        self.client = SimpleNamespace(welcome=welcome)

    async def open(self) -> _Conversation:
        return self

    async def close(self) -> None:
        pass

    def generate(self, ids: list[int], **options: Any) -> _Text:
        self.history = ids
        return _Text(ids, **options)


class _Device:
    draft_context = CONTEXT

    def __init__(self) -> None:
        self.tokenizer = SimpleNamespace(
            encode=lambda text, **_: SimpleNamespace(ids=list(text.encode()))
        )

    def conversation(self) -> _Conversation:
        return _Conversation()

    async def close(self) -> None:
        pass


def measure(texts: int, tokens: int) -> tuple[list[float], list[float]]:
    """Seconds to the first token, and of each behind it, of so many texts."""
    bound, ready = listen("127.0.0.1", 0), threading.Event()
    servers: list[Server] = []

    async def run() -> None:
        service = await Service.open(cast(Device, _Device()), Template(TEMPLATE, {}))
        servers.append(Server(create_app(service), ready.set))
        await servers[0].serve(sockets=[bound])
        await service.close()

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    ready.wait()
    body = {"messages": [{"role": "user", "content": "Once upon a time"}], "stream": True}
    first_s, each_s = [], []
    for _ in range(texts):
        client = http.client.HTTPConnection(*bound.getsockname())
        client.connect()
        begun_s = time.perf_counter()
        client.request("POST", "/v1/chat/completions", json.dumps(body | {"max_tokens": tokens}))
        at_s = [
            time.perf_counter() for line in client.getresponse() if b'"content":" word"' in line
        ]
        client.close()
        first_s.append(at_s[0] - begun_s)
        each_s.append((at_s[-1] - at_s[0]) / (len(at_s) - 1))
    servers[0].should_exit = True
    thread.join()
    return first_s, each_s


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=200)
    options = parser.parse_args()
    for name, found in zip(
        ("first token", "each behind it"), measure(options.texts, options.tokens), strict=True
    ):
        ms = sorted(1e3 * seconds for seconds in found)
        print(f"{name}: p50 {statistics.median(ms):.3f} ms, p95 {ms[int(0.95 * len(ms))]:.3f} ms")


if __name__ == "__main__":
    main()
