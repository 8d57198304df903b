"""Threads are taken where they pay, by what was measured."""

from __future__ import annotations

import asyncio
import shutil
import threading
import weakref

import pytest
from typer.testing import CliRunner

import draftlink.cli  # noqa: F401  (registers the commands)
from device_runtime.device import Device
from device_runtime.model import draft_model, providers, threads
from device_runtime.model.bundle import BundleError, load_bundle
from device_runtime.model.draft_model import ENOUGH, DraftModel
from draftlink.cli.common import app
from tests import fake_models
from tests.conftest import GRAPHS


@pytest.mark.parametrize(
    "seconds, best",
    [
        ({1: 1.0, 2: 0.6, 4: 0.4, 6: 0.39}, 4),
        ({1: 1.0, 2: 0.95}, 1),  # not a tenth
        ({1: 1.0, 2: 2.0, 4: 0.1, 6: 0.1}, 1),  # a machine that gets slower is not asked further
        ({1: 1.0}, 1),
    ],
)
def test_more_threads_only_where_they_gain(seconds, best):
    assert threads.fastest(seconds.__getitem__, max(seconds)) == best


def test_what_is_tried_ends_at_the_cores():
    assert [threads.counts(n) for n in (1, 2, 4, 6)] == [[1], [1, 2], [1, 2, 4], [1, 2, 4, 6]]


def test_beside_others_fewer_threads_are_tried_and_as_many_that_sleep():
    assert threads.settings(1, 4) == [(1, True), (2, True), (4, True)]
    assert threads.settings(2, 4) == [(1, False), (2, False), (2, True), (4, True)]
    assert threads.settings(4, 4) == [(1, False), (2, False), (4, False), (4, True)]
    assert threads.settings(1, 1) == [(1, True)]


def test_the_draft_takes_the_count_that_was_fastest(bundle, monkeypatch):
    monkeypatch.setattr(draft_model, "available", lambda: 4)
    monkeypatch.setattr(draft_model, "fastest", lambda seconds, most: min((1, 2), key=seconds))
    model = DraftModel(bundle())
    assert model.threads in (1, 2) and model.length == 0
    one = DraftModel(bundle(), threads=1)
    assert one.threads == 1
    assert abs(model.forward([3, 4]) - one.forward([3, 4])).max() < 1e-5


def test_weights_are_shared_though_the_first_has_them_run_as_nobody_begins(bundle, monkeypatch):
    """One thread that sleeps is tried beside others; a second device is opened while it does."""
    monkeypatch.setattr(draft_model, "available", lambda: 2)
    monkeypatch.setattr(draft_model, "fastest", lambda seconds, most: 2)
    first = DraftModel(bundle())
    first._load(threads.Setting(1, spins=False))
    second = DraftModel(bundle())
    assert second.threads == 1 and second._settings[second._trials.at] == (1, False)
    assert second.forward([3, 4]).shape == first.forward([3, 4]).shape


def test_no_threads_are_an_error(bundle):
    with pytest.raises(ValueError, match="threads must be at least 1, not 0"):
        DraftModel(bundle(), threads=0)


@pytest.mark.parametrize("count", [3, 9999, 1 << 40])
def test_more_threads_than_cores_are_an_error_at_once(bundle, monkeypatch, count):
    """Thousands would start, and spin while they wait for one another."""
    monkeypatch.setattr(threads, "available", lambda: 2)
    monkeypatch.setattr(draft_model, "load", lambda *_: pytest.fail("a session was made"))
    words = f"threads must be at most 2, the cores that this process may run on, not {count}"
    with pytest.raises(ValueError, match=words):
        DraftModel(bundle(), threads=count)
    with pytest.raises(ValueError, match=words):
        Device(bundle(), "ws://127.0.0.1:9", threads=count)


@pytest.mark.parametrize("count, words", [(9999, "at most 2"), (0, "least 1"), (-3, "least 1")])
def test_as_an_option_it_is_wrong_usage(monkeypatch, count, words):
    monkeypatch.setattr(threads, "available", lambda: 2)
    done = CliRunner().invoke(app, ["device", "bundle", "Hi", "--threads", str(count)])
    assert done.exit_code == 2 and words in " ".join(done.output.split())


class Wanting:
    """A choice that was made already; what it is told of."""

    def __init__(self, at):
        self.at, self.told, self.change_s = at, [], 0.0

    def ran(self, kind, seconds, units):
        self.told.append((seconds, units))


@pytest.fixture
def drafted(bundle, monkeypatch):
    """A model that has drafted enough with one thread to change to two, and wants to."""

    def make(path=None, graph="shared"):
        monkeypatch.setattr(draft_model, "available", lambda: 2)
        monkeypatch.setattr(draft_model, "fastest", lambda seconds, most: 1)
        model = DraftModel(load_bundle(path) if path else bundle(graph=graph))
        model._trials = Wanting(1)
        for token in range(ENOUGH):
            model.forward([token])
        return model

    return make


@pytest.mark.parametrize("graph", GRAPHS)
def test_between_generations_the_weights_are_loaded_for_another_count(drafted, bundle, graph):
    """The cache stays, so that the history need not be fed again."""
    model, stays = drafted(graph=graph), DraftModel(bundle(graph=graph), threads=1)
    model.rest()
    assert model.threads == 2 and model.length == ENOUGH
    ((seconds, units),) = model._trials.told
    assert units == ENOUGH and 0.0 < seconds < 60.0
    stays.forward(list(range(ENOUGH)))
    model.rollback(20)
    stays.rollback(20)
    assert abs(model.forward([7, 8]) - stays.forward([7, 8])).max() < 1e-4


def test_memory_never_holds_the_weights_twice(drafted, monkeypatch):
    """The session is gone before another is made."""
    model = drafted()
    before, real, alive = weakref.ref(model._graph._session), providers.session, []

    def session(*args):
        alive.append(before())
        return real(*args)

    monkeypatch.setattr(providers, "session", session)
    model.rest()
    assert alive == [None]


def test_after_a_few_tokens_nothing_is_known(drafted):
    model = drafted()
    model.rest()
    model._trials = Wanting(0)
    for token in range(ENOUGH - 1):
        model.forward([token])
    model.rest()
    assert model.threads == 2 and not model._trials.told


def test_weights_that_others_use_stay(drafted, bundle):
    model = drafted()
    other = DraftModel(bundle())
    model.rest()
    assert model.threads == other.threads == 1 and not model._trials.told
    del other
    model.rest()
    assert model.threads == 2


def test_caches_that_are_used_in_turns_are_taken_along(drafted, bundle):
    """Those of a device's conversations; another device's weights stay as they are."""
    model, stays = drafted(), DraftModel(bundle(), threads=1)
    beside = model.another()
    beside.forward([5, 6, 7])
    model.rest()
    assert model.threads == beside.threads == 2
    assert (model.length, beside.length) == (ENOUGH, 3)
    stays.forward([5, 6, 7])
    assert abs(beside.forward([8]) - stays.forward([8])).max() < 1e-4
    assert beside.bytes == model.bytes > 0
    for token in range(ENOUGH):
        beside.forward([token])  # counts for both
    model._trials = Wanting(0)
    other = DraftModel(bundle())
    model.rest()
    assert model.threads == 2
    del other
    model.rest()
    assert model.threads == beside.threads == 1


def test_a_bundle_that_was_written_over_is_not_loaded_again(drafted, bundle, tmp_path):
    """Its files were checked when the device was opened; these were not."""
    copied = tmp_path / "bundle"
    shutil.copytree(bundle().path, copied)
    model = drafted(copied)
    (copied / "model.onnx").unlink()
    (copied / "model.onnx").write_bytes(b"something else")
    model.rest()
    assert model.threads == 1
    model.forward([5])
    shutil.rmtree(copied)
    for token in range(ENOUGH):
        model.forward([token])
    model.rest()
    assert model.threads == 1 and len(model.forward([5]))


def test_where_another_count_does_not_load_it_goes_on_as_before(drafted, monkeypatch):
    model, real = drafted(), providers.session

    def session(path, provider, setting, kind):
        if setting.threads == 2:
            raise BundleError("no memory")
        return real(path, provider, setting, kind)

    monkeypatch.setattr(providers, "session", session)
    model.rest()
    assert model.threads == 1 and len(model.forward([5]))
    for token in range(ENOUGH):
        model.forward([token])
    model.rest()  # and is not tried again
    assert model.threads == 1


def test_where_nothing_loads_any_more_the_next_forward_says_what_to_do(drafted, monkeypatch):
    def session(*_):
        raise BundleError("no memory")

    model = drafted()
    monkeypatch.setattr(providers, "session", session)
    model.rest()
    model.rollback(3)
    with pytest.raises(BundleError, match="open the device anew"):
        model.forward([5])


def test_a_count_that_was_asked_for_stays(bundle):
    model = DraftModel(bundle(), threads=1)
    for _ in range(50):
        model.rollback(0)
        for token in range(ENOUGH):
            model.forward([token])
        model.rest()
    assert model.threads == 1


def test_the_next_generation_waits_for_what_is_done_between_two():
    """It runs beside the event loop; nothing is asked of the model meanwhile."""
    resting, done = threading.Event(), threading.Event()
    log = []

    def rest():
        resting.set()
        done.wait(10)
        log.append("rested")

    async def run(url):
        async with fake_models.fake_device(url, table) as device:
            real = device.model.rollback
            device.model.rollback = lambda length: (log.append("model"), real(length))
            device._rest = rest
            async for _ in device.generate("abc", max_tokens=4, mode="stop-and-wait"):
                pass
            assert await asyncio.to_thread(resting.wait, 10)
            before = len(log)
            second = asyncio.create_task(anext(device.generate("abc", max_tokens=4).__aiter__()))
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(log) == before
            done.set()
            await second
            assert log[before] == "rested" and "model" in log[before:]

    pytest.importorskip("torch")
    from tests import fakes

    table = fake_models.random_logits(0, 8)
    with fakes.served(fakes.FakeTarget(table)) as url:
        asyncio.run(run(url))
