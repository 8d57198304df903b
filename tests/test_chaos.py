"""Links that break and base stations that are killed: the text is the one that it would have been.

Where a verdict that rejects is lost with its link, a base station that drew again would accept more
often than it may: the text would lean towards the draft. So links break there by preference.
"""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import pytest

import tinypair
from bs_runtime.engine import generation
from device_runtime.device import Coupled, Dense, Device, Sampling, Split, TopK
from device_runtime.transport import patience
from draftlink.distribution import noise
from draftlink.link.ledger import OTHER
from draftlink.protocol import frames
from draftlink.protocol.session import Session
from export.bundle import export_bundle
from tests.fake_models import fake_device, random_logits
from tests.fakes import FakeTarget, served
from tests.fragile import Breaks, at_random, connector
from tests.killable import Station
from tests.test_exactness import ERROR_RATE, POWER, chi_square, power

TARGET = random_logits(1, 20)
DRAFT = TARGET + random_logits(2, 20, 0.7)
AT_ONE, GREEDY = {"sampling": Sampling()}, {"sampling": Sampling(temperature=0.0)}
CASES = {
    "topk": {**AT_ONE, "scheme": TopK(6, 16)},
    "dense": {**AT_ONE, "scheme": Dense()},
    "split": {**AT_ONE, "scheme": Split(6, 16)},
    "coupled": {**AT_ONE, "scheme": Coupled()},
    "run-ahead": {**AT_ONE, "scheme": TopK(6, 16), "mode": "run-ahead"},
    "offline": {**AT_ONE, "scheme": TopK(6, 16), "mode": "run-ahead", "offline_after_s": 0.0},
    "greedy": GREEDY,
    "both": {**AT_ONE, "scheme": Coupled(), "mode": "both"},
    "both-greedy": {**GREEDY, "mode": "both"},
    "stream": {**AT_ONE, "mode": "stream"},
}
CASES = {name: {"mode": "stop-and-wait", **case} for name, case in CASES.items()}


async def texts(device: Device, count: int, tokens: int, **options: object) -> list[list[int]]:
    found = []
    for seed in range(count):
        stream = device.generate([1, 2, 3], max_tokens=tokens, seed=seed, **options)
        found.append([token.id async for token in stream if token.kind != "provisional"])
    return found


def under(breaks: Breaks | None, url: str, options: dict, count: int, tokens: int):
    """The texts of one device, and how often it had to connect anew."""

    async def run() -> tuple[list[list[int]], int]:
        device = fake_device(url, DRAFT)
        if breaks is not None:
            device._connect = connector(breaks)
        async with device:
            found = await texts(device, count, tokens, gamma=3, **options)
            return found, device.client.reconnects

    return asyncio.run(run())


@pytest.mark.parametrize("remembers", [True, False], ids=["parked", "forgotten"])
@pytest.mark.parametrize("name", CASES)
def test_texts_survive_links_that_break(monkeypatch, name, remembers):
    if not remembers:  # as after a restart: the device brings its history
        monkeypatch.setattr(Session, "adopt", lambda *_: False)
    # All that is in flight is sent again each time, and breaks the link once more: often, before
    # anything moves. How long the device pauses meanwhile is not the question here.
    monkeypatch.setattr(patience, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(patience, "LONGEST_PAUSE_S", 0.01)
    with served(FakeTarget(TARGET)) as url:
        calm, _ = under(None, url, CASES[name], 4, 40)
        reconnects, seeds = 0, iter(range(5, 15))
        while reconnects < 10:  # where both ends write, how many frames there are is up to the time
            found, more = under(at_random(next(seeds), 0.05, 0.6), url, CASES[name], 4, 40)
            assert found == calm
            reconnects += more


def test_the_ledger_does_not_guess_what_crossed_a_connection_that_was_lost():
    async def run(url: str) -> list[list[str]]:
        async with fake_device(url, DRAFT) as device:
            kinds = []
            for lost in (False, True):
                stream = device.generate(
                    [1, 2, 3], max_tokens=40, mode="stop-and-wait", gamma=3, seed=1
                )
                async for _ in stream:
                    if lost and len(stream.tokens) == 20:
                        device.client.socket.transport.abort()
                assert stream.result.reconnects == lost
                kinds.append([entry.kind for entry in stream.result.ledger])
            return kinds

    with served(FakeTarget(TARGET)) as url:
        calm, wild = asyncio.run(run(url))
    assert calm.count(OTHER) == (2 if sys.platform == "linux" else 0)
    assert OTHER not in wild


def test_a_session_whose_base_station_never_comes_back_ends_in_an_error():
    breaking = {"now": False}

    async def run(url: str) -> None:
        device = fake_device(url, DRAFT)
        real = connector(lambda *_: breaking["now"])

        async def connect(url: str):
            if breaking["now"]:
                raise OSError("no route")
            return await real(url)

        device._connect = connect
        device.patience_s = 0.05
        async with device:
            stream = device.generate([1, 2, 3], max_tokens=40, mode="stop-and-wait", gamma=3)
            async for _ in stream:
                breaking["now"] = len(stream.tokens) > 9
        raise AssertionError("it came back")

    with (
        served(FakeTarget(TARGET)) as url,
        pytest.raises(ConnectionError, match=r"has gone .*no route.*the text so far is kept"),
    ):
        asyncio.run(run(url))


# --- The law, where every verdict that rejects is lost once ---

P = np.array([0.05, 0.40, 0.15, 0.25, 0.15])
Q = np.array([0.30, 0.14, 0.36, 0.12, 0.08])


def first_tokens(count: int) -> np.ndarray:
    """Counts of the first token of so many texts."""
    lost: set[int] = set()

    def breaks(direction: str, frame: frames.Frame, rejection: bool) -> bool:
        if not rejection or number in lost:
            return False
        lost.add(number)
        return True

    number = 0
    found = np.zeros(len(P), dtype=np.int64)

    async def run(url: str) -> None:
        nonlocal number
        device = fake_device(url, np.tile(np.log(Q), (len(Q), 1)))
        device._connect = connector(breaks)
        async with device:
            for number in range(count):
                stream = device.generate(
                    [1],
                    max_tokens=2,
                    mode="stop-and-wait",
                    gamma=1,
                    seed=number,
                    scheme=TopK(5, 100),
                    **AT_ONE,
                )
                async for _ in stream:
                    pass
                found[stream.tokens[0]] += 1

    with served(FakeTarget(np.tile(np.log(P), (len(P), 1)))) as url:
        asyncio.run(run(url))
    assert len(lost) > count * 0.2
    return found


COUNTS = pytest.mark.parametrize(
    "count", [2_000, pytest.param(50_000, marks=pytest.mark.full)], ids=["2k", "50k"]
)


@COUNTS
def test_the_law_holds_where_verdicts_that_reject_are_lost(count):
    assert chi_square(first_tokens(count), P) > ERROR_RATE


def test_a_base_station_that_draws_again_fails(monkeypatch):
    """A negative control: it forgets, and judges what is sent again with new random numbers."""
    monkeypatch.setattr(Session, "adopt", lambda *_: False)
    real = noise.key_from_seed

    def fresh(seed: int, role: str) -> bytes:
        return noise.fresh_key() if role == "bs" else real(seed, role)

    monkeypatch.setattr(generation.noise, "key_from_seed", fresh)
    accept = np.minimum(1.0, P / Q)
    twice = accept + (1.0 - accept) * accept  # a second chance for what was rejected
    rest = np.maximum(P - Q, 0.0)
    wrong = Q * twice + (Q * (1.0 - twice)).sum() * rest / rest.sum()
    assert power(wrong, P, 2_000) >= POWER
    found = first_tokens(2_000)
    assert chi_square(found, P) < ERROR_RATE
    assert chi_square(found, wrong) > ERROR_RATE


# --- Real processes ---


@pytest.mark.parametrize(
    "texts, tokens, kills, cuts",
    [(1, 40, 1, 4), pytest.param(10, 128, 5, 200, marks=pytest.mark.full)],
    ids=["short", "10 texts each"],
)
def test_texts_survive_a_base_station_that_is_killed(tmp_path, texts, tokens, kills, cuts):
    """With ``coupled``, greedy and ``topk``; the base station is killed in mid generation."""
    bundle = export_bundle(tinypair.DRAFT, tmp_path / "draft", "int8").path
    station = Station(tmp_path)
    plan = [
        (prompt, seed, options)
        for seed, prompt in enumerate(tinypair.prompts(texts))
        for options in (
            {"scheme": Coupled(), "gamma": 4, **AT_ONE},
            {"gamma": 4, **GREEDY},
            {"scheme": TopK(), "gamma": 4, **AT_ONE},
        )
    ]
    total = len(plan) * tokens
    chaos = at_random(3, cuts / total, 4 * cuts / total)

    async def write(breaks: Breaks, kill_at: list[int]) -> tuple[list[list[int]], int]:
        device = Device(bundle, f"ws://127.0.0.1:{station.port}")
        device._connect = connector(breaks)
        found, written = [], 0
        async with device:
            for prompt, seed, options in plan:
                stream = device.generate(
                    prompt, max_tokens=tokens, seed=seed, mode="stop-and-wait", **options
                )
                found.append([])
                async for token in stream:
                    found[-1].append(token.id)
                    written += 1
                    if kill_at and written >= kill_at[0]:
                        del kill_at[0]
                        station.kill()
                        await asyncio.to_thread(station.start)
            return found, device.client.reconnects

    station.start()
    try:
        calm, none = asyncio.run(write(lambda *_: False, []))
        wild, reconnects = asyncio.run(
            write(chaos, [total * (2 * i + 1) // (2 * kills) for i in range(kills)])
        )
    finally:
        station.kill()
    print(f"{total} tokens, {reconnects} reconnects, {kills} kills")
    assert none == 0 and reconnects >= kills + cuts // 2
    assert wild == calm
