"""A target without weights, and the real base station with it on a real socket."""

from __future__ import annotations

import contextlib
import ssl
import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from bs_runtime.checkpoint.facts import Facts
from bs_runtime.engine.generation import Round
from bs_runtime.engine.step import Model, Result, collect, launch
from bs_runtime.model.kv import Feed
from bs_runtime.model.step import Serial
from bs_runtime.serving.app import create_app
from bs_runtime.serving.server import Server
from tests.fake_models import HASH, FakeModel


class FakeTarget(Serial):
    def __init__(self, table: np.ndarray, context: int = 1 << 20) -> None:
        self.table = table
        self.name, self.dtype, self.tokenizer_hash = "fake", "float64", HASH
        self.vocab_size, self.context = len(table), context
        self.facts = Facts()
        self.device = torch.device("cpu")
        self.times: list[tuple[int, float]] = []
        self.slots: list[FakeModel] = []
        self.batches: list[int] = []  # slots fed by each forward

    def open(self) -> FakeModel:
        self.slots.append(FakeModel(self.table, rows=True, context=self.context))
        return self.slots[-1]

    def forward(self, feeds: Sequence[Feed]) -> torch.Tensor:
        assert len({id(feed.slot) for feed in feeds}) == len(feeds)
        self.batches.append(len(feeds))
        rows = [torch.as_tensor(feed.slot.forward(feed.ids)) for feed in feeds]
        return torch.cat([r[len(r) - f.rows :] for r, f in zip(rows, feeds, strict=True)])


def stepped(model: Model, work: Sequence[tuple[Round, int]]) -> list[Result]:
    """A step that is launched and collected at once."""
    launch(model, work)
    return collect(model, work)


@contextlib.contextmanager
def served(target: object, **options: object) -> Iterator[str]:
    """The real app on a real socket, in a thread; its address. ``options``: ``create_app``'s."""
    with serving(target, **options) as (url, _):
        yield url


@contextlib.contextmanager
def serving(
    target: object, *, tls: ssl.SSLContext | None = None, **options: object
) -> Iterator[tuple[str, Server]]:
    """The same; the server too."""
    server = Server(create_app(target, **options), tls=tls)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        thread.join(0.005)
    assert server.started
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"{'ws' if tls is None else 'wss'}://127.0.0.1:{port}", server
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()
