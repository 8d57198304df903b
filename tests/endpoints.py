"""The real endpoint on a real socket, over a draft and a target without weights."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import numpy as np

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
