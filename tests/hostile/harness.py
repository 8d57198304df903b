"""Feeds mutated frames to either end, and holds what comes of each against what may."""

from __future__ import annotations

import copy
import gc
import logging
import random
import resource
import statistics
import time
from collections import Counter
from dataclasses import dataclass, field

from device_runtime.device import LinkError
from draftlink.protocol import frames
from draftlink.protocol.session import RemoteProtocolError, Session
from draftlink.protocol.states import State
from tests.hostile.conversations import (
    CONTEXT,
    MEMORY,
    STATION_TARGET,
    Recording,
    Script,
    Situation,
    Station,
    converse,
)
from tests.hostile.mutations import Mutator
from tests.hostile.plans import SIZE


class Raised(logging.Handler):
    """Keeps the last exception that the base station logged instead of showing to its peer."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last: BaseException | None = None

    def emit(self, entry: logging.LogRecord) -> None:
        self.last = entry.exc_info[1] if entry.exc_info else None


@dataclass
class Report:
    """What came of the frames, and what they cost."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    _resident: list[int] = field(default_factory=list)

    def add(self, outcome: str, begun: float) -> None:
        self.outcomes[outcome] += 1
        if len(self.seconds) < 100_000:
            self.seconds.append(time.perf_counter() - begun)

    def watch_memory(self) -> None:
        gc.collect()  # what waits to be collected is no leak
        self._resident.append(_resident_bytes())

    @property
    def growth(self) -> int:
        """Bytes that the second half of the run added to what was resident."""
        half = len(self._resident) // 2
        return max(self._resident[half:]) - max(self._resident[:half])

    def __str__(self) -> str:
        return (
            f"{dict(self.outcomes)}, median {statistics.median(self.seconds) * 1e6:.0f} µs,"
            f" grew {self.growth / 1e6:.1f} MB; MB resident:"
            f" {[size // 1_000_000 for size in self._resident]}"
        )


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def _corpus(recordings: list[Recording]) -> list[bytes]:
    return [d for r in recordings for said in (r.up, *r.down) for d in said]


async def against_station(situation: Situation, data: bytes, pauses: int, log: Raised) -> str:
    """Feed one frame to the base station; what became of it."""
    kept = situation.kept
    station = Station(kept)
    session, slot = station.connection._session, station.slot
    taken = _screened(session, data)
    cached, forwards, known = list(slot.cache), slot.forwards, len(MEMORY)
    log.last = None
    await station.feed([data], pauses)
    answers = [frames.decode(sent) for sent in station.sent]
    if answers and isinstance(answers[-1], frames.Refused):
        refused = answers.pop()
        assert refused.code != "internal", data.hex()[:2000]
        assert session.state is State.CLOSED
        if kept.quiet:
            assert not answers and slot.cache == cached and slot.forwards == forwards
        if station.conversation is not None:  # what was refused leaves nothing
            assert len(MEMORY) == known - 1
        outcome = "refused"
    else:
        assert taken or not kept.quiet
        outcome = type(frames.decode(data)).__name__
        _agree(station)
    assert log.last is None
    # One frame makes the base station feed a draft, or a prompt, or stream to its context's end.
    streamed = sum(isinstance(a, frames.Tokens | frames.Written) for a in answers)
    pending = bool(kept.fields["drafts"]) + kept.fields["_prompt"]
    assert slot.forwards - forwards <= 2 + pending + streamed
    assert len(slot.cache) <= CONTEXT and len(answers) <= 2 * CONTEXT
    assert len(MEMORY) <= known + 1
    assert len(session.progress.frames.kept) <= 2 * CONTEXT
    MEMORY._known.clear()
    STATION_TARGET.slots.clear()
    return outcome


def _agree(station: Station) -> None:
    """The session, the history and the cache of a conversation are of one mind."""
    here, session = station.conversation, station.connection._session
    if here is None:
        return
    assert here.slot.cache == here.history[: len(here.slot.cache)]
    if session.generation and session.state is not State.CLOSED:
        assert session.length == len(here.history)
        assert not session.progress.drafts and not station.connection._worker.drafts


async def run_station(recordings: list[Recording], count: int, seed: int, log: Raised) -> Report:
    report, chance = Report(), random.Random(seed)
    mutator = Mutator(seed, _corpus(recordings), SIZE)
    situations = [s for r in recordings for s in r.situations]
    kinds: dict[type, list[Situation]] = {}
    for situation in situations:
        kinds.setdefault(type(frames.decode(situation.next)), []).append(situation)
    by_kind = list(kinds.values())
    for i in range(count):
        # Every other time a kind of frame first, so that the rare ones have their share.
        situation = chance.choice(chance.choice(by_kind) if i % 2 else situations)
        # One in twenty is left as it was said: those must be taken, whatever becomes of the others.
        data = situation.next if i % 20 == 1 else mutator.mutate(situation.next)
        begun = time.perf_counter()
        try:
            outcome = await against_station(situation, data, chance.choice((0, 1, 9)), log)
        except BaseException as error:
            error.add_note(f"mutation {i} of seed {seed}: {data.hex()[:2000]}")
            if log.last is not None:
                raise error from log.last
            raise
        report.add(outcome, begun)
        if i % max(1, count // 20) == 0:
            report.watch_memory()
    return report


def _screened(session: Session, data: bytes) -> bool:
    """Whether a session takes the frame; where it does not, it stays as it was."""
    tried = copy.deepcopy(session)
    try:
        tried.receive(data)
    except RemoteProtocolError:
        assert vars(tried) == vars(session)
        return False
    return True


async def against_device(
    recording: Recording, connection: int, at: int, message: bytes | str
) -> str:
    """The device's whole run, with one message in the place of a connection's ``at``-th."""
    said: list[list[bytes | str]] = [list(down) for down in recording.down]
    said[connection][at] = message
    try:
        await converse(recording.plan, *map(Script, said, recording.after))
    except LinkError as error:
        return "broke" if "broke the protocol" in str(error) else "gone"
    return "went on"


async def run_device(recordings: list[Recording], count: int, seed: int) -> Report:
    """Frames that the session refuses need no device behind it; some of them get one all the same.

    What the device may show for it is a LinkError: anything else ends the test.
    """
    report, chance = Report(), random.Random(seed)
    mutator = Mutator(seed, _corpus(recordings), SIZE)
    for i in range(count):
        recording = chance.choice(recordings)
        connection = chance.randrange(len(recording.down))
        at = chance.randrange(len(recording.down[connection]))
        data = mutator.mutate(recording.down[connection][at])
        begun = time.perf_counter()
        try:
            session = recording.sessions[connection][at]
            if _screened(session, data) or chance.random() < 0.02:
                outcome = await against_device(recording, connection, at, data)
            else:
                outcome = "broke"
        except BaseException as error:
            error.add_note(
                f"mutation {i} of seed {seed}, {recording.plan.name}: {data.hex()[:2000]}"
            )
            raise
        report.add(outcome, begun)
        if i % max(1, count // 20) == 0:
            report.watch_memory()
    return report
