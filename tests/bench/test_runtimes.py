"""What the processes of ``bench.decode`` and ``bench.real`` do when they are given an order."""

from __future__ import annotations

import faulthandler
import io
import sys

import numpy as np
import pytest
from rich.console import Console

from bench.real import systems
from bench.runtimes import Draftlink, turns
from bs_runtime.model.target import Target
from device_runtime.model.draft_model import DraftModel
from draftlink.schemes.topk import TopK
from tests.fakes import served

IDS = [5, 6, 7, 8, 9, 10]


def test_rows_are_what_a_draft_says_before_each_token(bundle, tmp_path):
    found = bundle()
    worker = turns.Worker(Draftlink(found.path, 1))
    for _ in range(2):  # the second finds a cache that is filled
        worker.carry_out(turns.Rows(IDS, 3, tmp_path / "rows.npy"))
        written = np.load(tmp_path / "rows.npy")
        draft = DraftModel(found, threads=1)
        expected = [draft.forward(IDS[:3]).copy(), draft.forward(IDS[3:4]).copy()]
        expected.append(draft.forward(IDS[4:5]).copy())
        assert np.array_equal(written, np.stack(expected))


def test_a_turn_leaves_its_context_as_it_was(bundle, monkeypatch):
    monkeypatch.setattr(turns, "IDS", 100)  # the tiny model's
    worker = turns.Worker(Draftlink(bundle().path, 1))
    context = turns.TOKENS
    assert all(worker.carry_out(turns.Speed(context)) > 0.0 for _ in range(3))
    assert worker._read[context]._model.length == context
    assert worker.carry_out(turns.Peak()) > 1 << 20


class Pipe:
    """A pipe with orders in it, and what came back."""

    def __init__(self, *orders) -> None:
        self._orders = [*orders, None]
        self.sent: list = []

    def recv(self):
        return self._orders.pop(0)

    def send(self, what) -> None:
        self.sent.append(what)


@pytest.mark.parametrize("mode", ["stream", "auto"])
def test_a_device_writes_past_the_models_own_end_in_its_mode(bundle, model_folder, mode):
    pipe = Pipe((IDS, 20, 1), (IDS, 12, 2))
    with served(Target.load(str(model_folder("llama")))) as url:
        systems.device(pipe, bundle().path, url, mode, TopK(4, 16))
    ready, *results = pipe.sent
    assert ready is None and [len(result["tokens"]) for result in results] == [20, 12]
    # On one machine ``auto`` begins with stop-and-wait, if the greeting was quick enough.
    begins = ("stream", "stop-and-wait") if mode == "auto" else "stream"
    assert all(result["mode"].startswith(begins) for result in results)


def test_generate_writes_as_many_tokens_and_says_how_fast(model_folder):
    pipe = Pipe((IDS, 6, 1))
    systems.generate(pipe, model_folder("llama"))
    assert pipe.sent[0] is None and pipe.sent[1]["tokens_per_s"] > 0.0


def dies(pipe, how):
    pipe.send(None)
    pipe.recv()
    how()


@pytest.mark.parametrize(
    ("how", "told"), [(faulthandler._sigsegv, "SIGSEGV"), (sys.exit, "exit status 0")]
)
def test_a_runtime_that_dies_is_named(how, told):
    """llama.cpp's AMX kernels crash where a virtual machine names the feature but has no tiles."""
    with (
        turns.process(dies, how, title="llama.cpp Q4_0") as ask,
        pytest.raises(turns.Ended, match=rf"llama\.cpp Q4_0 ended: .*{told}"),
    ):
        ask(turns.Peak())


def test_the_others_are_measured_without_a_runtime_that_died():
    from bench.real import fronts
    from bench.real.texts import Text

    def writes(order):
        np.save(order.out, np.zeros((3, 4), np.float32))

    def ended(order):
        raise turns.Ended("llama.cpp Q4_0 ended: killed by SIGSEGV")

    told = Console(file=io.StringIO())
    texts = [Text("chat", IDS, 3)] * 2
    one, other = fronts.overlaps([writes, ended], writes, texts, told)
    assert one is not None and one.mean == 1.0 and other is None
    assert told.file.getvalue().count("SIGSEGV") == 1  # it is not asked again
