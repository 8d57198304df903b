"""One attack, turn by turn with its control: what devices saw, and what the base station did."""

from __future__ import annotations

import asyncio
import json
import math
import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.hostile.attacks import Attack
from bench.hostile.devices import Devices, One, Seen, Seven, greeted_s
from bench.hostile.place import SOURCES
from bench.hostile.station import Station, station
from bs_runtime.serving.listener import listen
from draftlink.host import children

TURNS = 3  # of an attack, and of its control
WARM_S = 1.5
LEAD_S = 0.3  # that an attack is under way before a turn begins
GREETINGS = 5
HOLDING_S = 4.0  # in which 5,000 connections are made

MOST_RATIO = 2.0  # the device's p99 delay beside the attack, over that beside its control
LEAST_RATE = 0.8  # the tokens/s of those who share steps with the attacker, likewise
MOST_CALLBACK_MS = 20.0
MOST_LOG_MB = 1.0  # a minute
MOST_GROWTH = 0.05
MOST_GREETED_S = 1.0
MOST_REFUSED_S = 2.0  # until whoever spoils his own round is refused


@dataclass
class Outcome:
    """What an attack came to. Delays in milliseconds, medians over the turns."""

    name: str
    p50_ms: tuple[float, float] = (0.0, 0.0)  # beside the control, and beside the attack
    p99_ms: tuple[float, float] = (0.0, 0.0)
    ratio: float = 0.0  # of p99
    rate: float = 0.0  # of tokens/s
    attacker_cores: float = 0.0
    callback: dict[str, Any] = field(default_factory=dict)
    control_callback_ms: float = 0.0
    lost: int = 0
    log_mb: float = 0.0  # a minute
    growth: float = 0.0  # of resident memory, beyond the control's
    greeted_s: dict[str, float] = field(default_factory=dict)  # by the attacker's addresses
    notes: dict[str, float] = field(default_factory=dict)
    exit_code: int | None = 0
    shares: bool = False  # the devices share steps with the attacker

    def faults(self) -> list[str]:
        """The bounds that do not hold."""
        greeted = max(self.greeted_s.values(), default=0.0)
        bounds = {
            "p99": self.ratio <= MOST_RATIO,
            "rate": self.rate >= LEAST_RATE or not self.shares,
            "callback": self.callback["callback_ms"] <= MOST_CALLBACK_MS,
            "lost": not self.lost,
            "log": self.log_mb <= MOST_LOG_MB,
            "memory": self.growth < MOST_GROWTH,
            "greeting": greeted <= MOST_GREETED_S,
            "refusal": self.notes.get("refused_s", 0.0) <= MOST_REFUSED_S,
            "SIGTERM": self.exit_code == 0,
        }
        return [name for name, holds in bounds.items() if not holds]


class Peer:
    """An attacker's process, or its control's."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def ask(self, line: str) -> None:
        """Begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(line.encode() + b"\n")

    async def answer(self) -> dict[str, Any]:
        """What came of it, at the end."""
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the attacker's process has ended; its own message is above")
        found: dict[str, Any] = json.loads(line)
        return found


@asynccontextmanager
async def peer(*arguments: str) -> AsyncIterator[Peer]:
    """``bench.hostile.attacker``, ready; it ends with the block."""
    command = children.python("-m", "bench.hostile.attacker", *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=pipe, stdout=pipe, limit=1 << 24, env=children.environment()
    )
    try:
        found = Peer(process)
        await found.answer()
        yield found
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Side(NamedTuple):
    """A base station, its devices, and who is busy beside them: the attacker or its control."""

    station: Station
    devices: Devices
    peer: Peer
    kernel: bool = False  # see ``Attack``


class Measurement:
    """An attack and its control, which has a base station of its own, that was never attacked."""

    def __init__(self, outcome: Outcome, attacked: Side, control: Side) -> None:
        self._outcome, self._control = outcome, control
        self._station, self._devices, self._attacker, _ = attacked

    async def run(self, attack: Attack, seconds: float) -> None:
        """All of it; ``seconds`` of each side in all."""
        outcome, here = self._outcome, self._station
        for devices in (self._control.devices, self._devices):
            await devices.write(WARM_S)
        await self._beside_attack(WARM_S)
        here.longest()
        there = self._control.station
        memory = here.memory_bytes(), there.memory_bytes()
        turns: list[tuple[Seen, Seen]] = []
        most, logged, attacked_s = 0, 0, 0.0
        for _ in range(TURNS):
            before = here.log_bytes()
            seen, found = await self._beside_attack(seconds / TURNS)
            logged += here.log_bytes() - before
            most = max(most, here.memory_bytes())
            self._watched(found)
            attacked_s += seen.seconds
            with here.halted():  # what an attack leaves behind is no part of its control
                turns.append((await self._beside_control(found["trace"], seconds / TURNS), seen))
        # Devices that come anew, text for text, leave caches behind for a while: there, too.
        outcome.growth = most / memory[0] - there.memory_bytes() / memory[1]
        outcome.log_mb = logged / 1e6 * 60.0 / attacked_s
        self._compare(turns)
        if attack.holds:
            await self._greet()
        await self._stop()

    async def _beside_attack(self, seconds: float) -> tuple[Seen, dict[str, Any]]:
        self._attacker.ask(f"many {seconds + LEAD_S + 0.2}")
        await asyncio.sleep(LEAD_S)
        seen = await self._devices.write(seconds)
        return seen, await self._attacker.answer()

    async def _beside_control(self, trace: list[float], seconds: float) -> Seen:
        station, devices, burner, kernel = self._control
        station.longest()
        burner.ask(f"many {seconds + LEAD_S + 0.2}" if kernel else json.dumps(trace))
        await asyncio.sleep(LEAD_S)
        seen = await devices.write(seconds)
        await burner.answer()
        self._outcome.control_callback_ms = max(
            self._outcome.control_callback_ms, station.longest()["callback_ms"]
        )
        return seen

    def _watched(self, found: dict[str, Any]) -> None:
        outcome, longest = self._outcome, self._station.longest()
        if longest["callback_ms"] > outcome.callback.get("callback_ms", -1.0):
            outcome.callback = longest
        cores = sum(found["trace"]) / (0.02 * len(found["trace"]))
        outcome.attacker_cores = max(outcome.attacker_cores, cores)
        for name, value in found["notes"].items():
            outcome.notes[name] = max(value, outcome.notes.get(name, value))

    def _compare(self, turns: list[tuple[Seen, Seen]]) -> None:
        outcome = self._outcome
        delays = [
            [np.quantile(seen.delays_s or [math.inf], [0.5, 0.99]) for seen in turn]
            for turn in turns
        ]
        median = statistics.median
        outcome.p50_ms, outcome.p99_ms = (
            (
                1e3 * median(float(turn[0][which]) for turn in delays),
                1e3 * median(float(turn[1][which]) for turn in delays),
            )
            for which in (0, 1)
        )
        outcome.ratio = median(float(turn[1][1] / turn[0][1]) for turn in delays)
        outcome.rate = median(
            (seen.tokens / seen.seconds) / max(1e-9, control.tokens / control.seconds)
            for control, seen in turns
        )
        outcome.lost = sum(seen.lost for _, seen in turns)

    async def _greet(self) -> None:
        for sources in SOURCES:
            self._attacker.ask(f"{sources} {HOLDING_S + 2.0}")
            await asyncio.sleep(HOLDING_S)
            worst = 0.0
            for _ in range(GREETINGS):
                worst = max(worst, await greeted_s(self._station))
                if worst == math.inf:
                    break
            self._outcome.greeted_s[sources] = worst
            notes = (await self._attacker.answer())["notes"]
            self._outcome.notes[f"held_{sources}"] = notes.get("held", 0.0)

    async def _stop(self) -> None:
        self._attacker.ask("many 3")
        await asyncio.sleep(1.0)
        self._outcome.exit_code = await asyncio.to_thread(self._station.stop)


async def measure(name: str, attack: Attack, bundle: Path, seconds: float) -> Outcome:
    """An attack on a base station of its own."""
    outcome = Outcome(name, shares=bool(attack.poison))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        here, control = [
            stack.enter_context(station(attack, folder / side)) for side in ("attacked", "control")
        ]
        both: list[Devices]
        if attack.poison:
            recordings = await Seven.record(control, bundle)
            both = [Seven(one, recordings) for one in (here, control)]
        else:
            both = [One(one, bundle) for one in (here, control)]
        for devices in both:
            stack.push_async_callback(devices.close)
        attacker = await stack.enter_async_context(peer(name, here.url))
        beside = ["burn"]
        if attack.kernel:
            nobody = stack.enter_context(listen("127.0.0.1", 0))
            beside = [name, "ws://{}:{}".format(*nobody.getsockname())]
        burner = await stack.enter_async_context(peer(*beside))
        await Measurement(
            outcome,
            Side(here, both[0], attacker),
            Side(control, both[1], burner, kernel=attack.kernel),
        ).run(attack, seconds)
    return outcome
