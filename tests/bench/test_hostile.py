"""The attacks of ``bench.hostile`` reach what they attack; what it measures is what was done."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import hashlib
import time

import pytest

import tinypair
from bench.hostile import proposers, strangers, thieves
from bench.hostile.attacker import Trace, burn, used_s
from bench.hostile.attacks import attacks
from bench.hostile.measuring import Outcome
from bench.hostile.place import TOKENS, Place
from bench.hostile.watched import Watch
from bs_runtime.model.target import Target
from bs_runtime.operations.limits import Limits, Tenant
from bs_runtime.serving.auth import Tokens
from draftlink.schemes.topk import TopK
from tests.fakes import served

# What an attack notes once it has done what it is for.
DONE = {"wide": "verdicts", "wide-16": "verdicts", "ids": "verdicts"}
# Those whose connection goes on from text to text.
LEGAL = ("beside", "dead-paths", "old-bases", "blocks")
DONE |= dict.fromkeys(LEGAL, "texts")


@pytest.fixture(scope="module")
def url():
    known = tuple(
        (hashlib.sha256(token.encode()).digest(), Tenant(name, Limits(connections_per_s=1e6)))
        for name, token in TOKENS.items()
    )
    with served(Target.load(tinypair.TARGET), tokens=Tokens(known)) as url:
        yield url


@pytest.mark.parametrize("name", attacks())
def test_an_attack_gets_through(name, url, monkeypatch):
    monkeypatch.setattr(thieves, "LONG", 100)
    monkeypatch.setattr(strangers, "HELD", 20)
    monkeypatch.setattr(thieves, "WIDEST", TopK(16, 1 << 10, tiers=1))
    monkeypatch.setattr(proposers, "TOKENS", 80)
    attack, place = attacks()[name], Place(url)

    async def run() -> None:
        async with asyncio.timeout(60):
            if attack.prepare is not None:
                await attack.prepare(place)
            playing = asyncio.create_task(attack.play(place))
            while DONE.get(name, "opened") not in place.notes:
                assert not playing.done(), playing.result()
                await asyncio.sleep(0.001)
            playing.cancel()
            await asyncio.wait([playing])
            if name in LEGAL:
                assert "ended" not in place.notes

    asyncio.run(run())


def test_a_control_uses_what_was_used():
    with Trace() as trace:
        begun = used_s()
        while used_s() < begun + 0.05:
            pass
    assert 0.05 <= sum(trace.slots) < 0.1
    assert sum(trace.slots) <= burn(trace.slots) < sum(trace.slots) + 0.05


@pytest.fixture
def watch(monkeypatch):
    monkeypatch.setattr(asyncio.events.Handle, "_run", asyncio.events.Handle._run)
    found = Watch()
    found.start()
    yield found
    gc.callbacks.remove(found._collect)


def test_the_longest_callback_is_found_by_the_cpu_time_of_its_thread(watch):
    def works():
        begun = time.thread_time()
        while time.thread_time() < begun + 0.03:
            pass

    def waits():
        time.sleep(0.1)

    async def inner():
        works()
        await asyncio.sleep(0)

    async def outer():
        await inner()

    async def run(callback):
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)

    asyncio.run(run(waits))
    assert watch.take()["callback_ms"] < 20.0
    asyncio.run(run(works))
    found = watch.take()
    assert found["callback_ms"] >= 30.0 and found["callback"].endswith("works")
    asyncio.run(outer())
    found = watch.take()
    assert found["callback_ms"] >= 30.0
    assert "outer" in found["callback"] and "inner" in found["callback"]


@pytest.mark.parametrize(
    "fault, changes",
    [
        (None, {}),
        ("p99", {"ratio": 2.1}),
        ("p99", {"ratio": float("nan")}),
        ("rate", {"rate": 0.7, "shares": True}),
        (None, {"rate": 0.7}),
        ("callback", {"callback": {"callback_ms": 20.1}}),
        ("lost", {"lost": 1}),
        ("log", {"log_mb": 1.1}),
        ("memory", {"growth": 0.06}),
        ("greeting", {"greeted_s": {"one": 0.1, "many": 1.1}}),
        ("refusal", {"notes": {"refused_s": 2.1}}),
        ("SIGTERM", {"exit_code": 1}),
        ("SIGTERM", {"exit_code": None}),
    ],
)
def test_a_bound_that_does_not_hold_is_named(fault, changes):
    good = Outcome("attack", ratio=1.0, rate=1.0, callback={"callback_ms": 1.0})
    assert dataclasses.replace(good, **changes).faults() == ([fault] if fault else [])
