"""The real endpoint on a real socket, over a draft and a target without weights."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from device_runtime.device import Device
from device_runtime.serve.app import Access, create_app
from device_runtime.serve.server import Server, listen
from device_runtime.serve.service import Choices, Service
from device_runtime.templates.template import Template
from tests.fake_models import HASH, FakeModel, letters, random_logits

SIZE = 20
TABLE = random_logits(7, SIZE, 1.5)
DRAFT = TABLE + np.random.default_rng(8).normal(0.0, 0.7, TABLE.shape)
# Letters alone: s, u is not one of them; q and r begin turns, t ends one.
TEMPLATE = (
    "{% for m in messages %}{{ {'system': 's', 'user': 'q', 'assistant': 'r'}[m.role] }}"
    "{{ m.content }}t{% endfor %}{% if add_generation_prompt %}r{% endif %}"
)


def device(url: str, draft: np.ndarray = DRAFT, tokenizer=None) -> Device:
    return Device.from_parts(
        FakeModel(draft, rows=False), tokenizer or letters(len(draft)), url, tokenizer_hash=HASH,
        vocab_size=len(draft), context=2048, eos_ids=(),
        another=lambda: FakeModel(draft, rows=False),
    )  # fmt: skip


@contextlib.contextmanager
def endpoint(
    url: str,
    *,
    made: Device | None = None,
    template: str | None = TEMPLATE,
    access: Access | None = None,
    most: int = 4,
    choices: Choices | None = None,
) -> Iterator[tuple[str, Service]]:
    """Its address, without a path, and what it serves; over the base station at ``url``."""
    bound = listen("127.0.0.1", 0)
    ready, failures = threading.Event(), []
    running: list[tuple[Server, Service]] = []

    async def run() -> None:
        service = await Service.open(
            made or device(url), None if template is None else Template(template, {}),
            most=most, choices=choices,
        )  # fmt: skip
        server = Server(create_app(service, access), ready.set)
        running.append((server, service))
        try:
            await server.serve(sockets=[bound])
        finally:
            await service.close()

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failures.append(error)
            ready.set()

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    assert ready.wait(30)
    if failures:
        raise failures[0]
    server, service = running[0]
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}", service
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive() and not failures, failures


def post(address: str, path: str, body: dict | bytes, **headers: str) -> dict:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = urllib.request.Request(
        address + path, data, {"content-type": "application/json", **headers}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return json.load(answer)


def refused(address: str, path: str, body: dict | bytes, **headers: str) -> tuple[int, dict]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        post(address, path, body, **headers)
    with caught.value:
        return caught.value.code, json.load(caught.value)["error"]


def events(address: str, path: str, body: dict) -> list[dict]:
    """The parts of a stream, which must end as OpenAI's do."""
    asked = urllib.request.Request(
        address + path, json.dumps(body | {"stream": True}).encode(),
        {"content-type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.read().decode().split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def got(address: str, path: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(address + path, headers=headers)) as answer:
        return answer.read().decode()


def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def leave(address: str, body: dict, read: int) -> None:
    """Ask, read so many bytes of the answer, and hang up."""
    data = json.dumps(body).encode()
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(data), data)
        )
        seen = b""
        while len(seen) < read:
            part = connection.recv(64)
            assert part, seen
            seen += part
