"""Random conversations for the JVM's session: what one end hears and says, and what comes of it.

A walk goes on with frames whose numbers fit, and mixes in those that do not: of other states,
epochs, positions, lengths and ids. The reference's own verdict on each is written beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.protocol.control import digest
from draftlink.protocol.session import ProtocolError, Session
from draftlink.protocol.states import SENDER, Role, State
from draftlink.schemes import AnyScheme
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK

Entry = dict[str, Any]
WALKS, STEPS = 300, 50
V = 40
HASH = "5a" * 32
# The Kotlin client does not ask for branches, and refuses them as who has not agreed on them does.
FEATURES = [name for name in frames.FEATURES if name != frames.BRANCHES]
SCHEMES: tuple[AnyScheme, ...] = (
    TopK(k=2, total=8, tiers=1), Coupled(), Split(4, 16), Split(4, 16, 2),
)  # fmt: skip
HELLO = frames.Hello(6, HASH, V, ["topk", "split", "coupled"], "walk", b"", 6, FEATURES)
WELCOME = frames.Welcome(6, HASH, V, 60, ["topk", "split", "coupled"], "m", "float32",
                         features=FEATURES, frame_entries=400, flight_entries=800)  # fmt: skip


def talks(rng: np.random.Generator) -> Iterator[Entry]:
    """Walks: of each step what was done, and state and numbers after it."""
    for number in range(WALKS):
        role: Role = "device" if number % 2 else "bs"
        yield {"role": role, "vocab_size": V, "steps": list(_walk(rng, role))}


def _walk(rng: np.random.Generator, role: Role) -> Iterator[Entry]:
    session = Session(role, V)
    history: list[int] = rng.integers(0, V, 200).tolist()
    for _ in range(STEPS):
        if role == "device" and rng.random() < 0.03 and session.state is not State.CLOSED:
            session.reopen()
            yield {"lost": True, **_stands(session)}
            continue
        frame = _next(rng, session, history)
        if rng.random() < 0.3:
            frame = _spoilt(rng, frame)
        try:
            data = frames.encode(frame)
            assert frames.decode(data) == frame
        except (ValueError, OverflowError, AssertionError, msgspec.MsgspecError):
            continue
        sends = SENDER[type(frame)] == role
        try:
            came = session.send(frame) if sends else session.receive(data)
            outcome = "overtaken" if came is None else "taken"
        except ProtocolError:
            outcome = "refused"
        verb = "send" if sends else "receive"
        yield {"hex": data.hex(), "verb": verb, "outcome": outcome, **_stands(session)}
        if session.state is State.CLOSED:
            return


def _stands(session: Session) -> Entry:
    """The numbers of docs/protocol.md, 4 and 4.8."""
    progress = session.progress
    return {
        "state": session.state.name, "generation": session.generation, "epoch": session.epoch,
        "length": session.length, "written": progress.written, "drafts": list(progress.drafts),
        "flags": [progress.waits, progress.first, progress.owed, progress.switching],
        "path": [progress.path, progress.path_base, progress.proposed, progress.known],
        "frames": [progress.frames.sent, progress.frames.received],
        "again": [data.hex() for data in session.resend(0)],
    }  # fmt: skip


def _next(rng: np.random.Generator, session: Session, history: list[int]) -> frames.Frame:
    """A frame that may come now, of either end."""
    state, progress = session.state, session.progress
    if state is State.OPENED:
        return HELLO
    if state is State.GREETING:
        return WELCOME
    if state is State.READY:
        if session.stopped and session.role == "device":
            return session.resume(history)
        if session.role == "bs" and not session.generation and rng.random() < 0.3:
            return _resume(rng, history)
        if session.generation and rng.random() < 0.2:
            return frames.Finish(session.generation, int(rng.integers(0, session.length + 1)))
        return _start(rng, session)
    if state is State.RESUMING:
        asked = session.resuming
        assert asked is not None
        known = int(rng.integers(0, progress.frames.sent + 1))
        return frames.Resumed(asked.start.generation, known, bool(rng.random() < 0.5))
    if state is State.REPLAYING:
        asked = session.resuming
        assert asked is not None
        return frames.Replay(asked.start.generation, history[: asked.length])
    if state is State.FINISHING:
        if session.progress.start is not None and rng.random() < 0.5:
            return _written(rng, session, [State.STREAMING, State.WRITING][int(rng.integers(2))])
        ahead = int(rng.integers(1, 3))
        return frames.Done(session.generation, session.kept, session.epoch + ahead)
    return _under_way(rng, session)


def _under_way(rng: np.random.Generator, session: Session) -> frames.Frame:
    state, generation, chance = session.state, session.generation, rng.random()
    if chance < 0.05:
        return frames.Finish(generation, int(rng.integers(0, session.length + 1)))
    if chance < 0.1:
        return frames.Progress(generation, int(rng.integers(3)), int(rng.integers(2, 5)), 0)
    if chance < 0.2 and state is not State.WRITING:
        return frames.Switch(generation, "draft" if state is State.STREAMING else "stream")
    if state is State.SWITCHING and chance < 0.5:
        return frames.Switched(generation, session.epoch + 1, session.length)
    if state is State.DRAFTING and (not session.progress.drafts or chance < 0.6):
        return _draft(rng, session)
    if state is State.WRITING and chance < 0.6:
        return _propose(rng, session)
    return _written(rng, session, state)


def _start(rng: np.random.Generator, session: Session) -> frames.Start:
    scheme = SCHEMES[int(rng.integers(len(SCHEMES)))]
    mode: Any = ["draft", "stream", "both"][int(rng.integers(3))]
    base = int(rng.integers(0, session.length + 1))
    return frames.Start(
        session.generation + int(rng.integers(1, 3)), base,
        rng.integers(0, V, int(rng.integers(1, 5))).tolist(), Sampling(float(rng.integers(2))),
        scheme, mode, int(rng.integers(1, 20)), [int(rng.integers(V))], 7,
        surprisals=bool(rng.random() < 0.3), streamed_surprisals=bool(rng.random() < 0.3),
    )  # fmt: skip


def _resume(rng: np.random.Generator, history: list[int]) -> frames.Resume:
    base = int(rng.integers(1, 10))
    length = base + int(rng.integers(0, 5))
    mode: Any = ["draft", "stream"][int(rng.integers(2))]
    start = frames.Start(3, base, [], Sampling(), SCHEMES[2], mode, 10, [], 7)
    owes = bool(rng.random() < 0.3)
    return frames.Resume(start, 4, length, digest(history[:length]), owes, 2)


def _draft(rng: np.random.Generator, session: Session) -> frames.Draft:
    progress = session.progress
    length = int(rng.integers(0, 6))
    where = session.epoch, progress.expected
    if progress.owed and progress.scheme is not None and rng.random() < 0.4:
        return frames.Draft(*where, 0, b"", had=int(rng.integers(1, 4)))
    first = int(rng.integers(V)) if progress.owed else None
    payload = rng.bytes(int(rng.integers(1, 4))) if length else b""
    return frames.Draft(*where, length, payload, first, bool(rng.random() < 0.5))


def _propose(rng: np.random.Generator, session: Session) -> frames.Propose:
    progress = session.progress
    known, length = int(rng.integers(progress.known, session.length + 1)), int(rng.integers(1, 5))
    if progress.proposed >= 0 and rng.random() < 0.6:
        path, base, first = progress.path, progress.path_base, progress.proposed
    else:
        path, base, first = progress.path + int(rng.integers(1, 3)), session.length, 0
        known = session.length
    beside = tuple(rng.integers(0, 4, length).tolist()) if rng.random() < 0.3 else ()
    return frames.Propose(
        path, base, max(known, base), first, length, b"\x00", bool(rng.random() < 0.5),
        beside if any(beside) else (),
    )  # fmt: skip


def _written(rng: np.random.Generator, session: Session, state: State) -> frames.Frame:
    """What a base station writes."""
    progress, start = session.progress, session.progress.start
    assert start is not None
    where = session.epoch, session.length
    left = max(1, start.max_tokens - progress.written)
    told = start.surprisals
    if state is State.WRITING:
        count = min(left, int(rng.integers(1, 4)))
        ids = tuple(rng.integers(0, V, count).tolist())
        accepted = int(rng.integers(0, count + 1))
        rows = [None, count + 2][int(rng.integers(2))]
        ended = count == left or rng.random() < 0.1
        return frames.Written(
            session.length, ids, accepted, bool(ended), 1, 2, bytes(count * told), rows
        )
    if state in (State.STREAMING, State.SWITCHING):
        count = min(left, int(rng.integers(1, 3)))
        ids = tuple(rng.integers(0, V, count).tolist())
        ended = bool(count == left or rng.random() < 0.1)
        return frames.Tokens(*where, ids, ended, b"", bytes(count * start.streams_surprisals))
    flight = sum(progress.drafts)
    if progress.asks:
        return frames.Verdict(*where, 0, None, False, 1, 2, b"\x01\x02")
    accepted = int(rng.integers(0, flight + 1))
    whole = accepted == flight
    corrects = progress.scheme is not None and progress.scheme.corrects == "device"
    if not whole and corrects:
        return frames.Verdict(*where, accepted, None, False, 1, 2, b"\x01", bytes(accepted * told))
    own = not whole or progress.waits
    new = accepted + own
    ended = bool(new >= left or rng.random() < 0.1)
    next_ = int(rng.integers(V)) if own else None
    return frames.Verdict(*where, accepted, next_, ended, 1, 2, b"", bytes(new * told))


def _spoilt(rng: np.random.Generator, frame: frames.Frame) -> frames.Frame:
    """One of its numbers is another, or one of its flags."""
    hot = not isinstance(frame, msgspec.Struct)
    names = frame.__dataclass_fields__ if hot else frame.__struct_fields__
    name = list(names)[int(rng.integers(len(names)))]
    value, changed = getattr(frame, name), None
    if isinstance(value, bool):
        changed = not value
    elif isinstance(value, int):
        changed = max(0, value + int(rng.choice([-1, 1, 2, 70, 1 << 31])))
    elif isinstance(value, list | tuple) and value and isinstance(value[0], int):
        changed = type(value)([*value[:-1], int(rng.choice([V - 1, V, 1 << 30]))])
    elif isinstance(value, bytes):
        changed = value + b"\x00"
    if changed is None:
        return frame
    return (
        replace(frame, **{name: changed})
        if hot
        else msgspec.structs.replace(frame, **{name: changed})
    )  # type: ignore[type-var]


def mixed(entries: list[Entry]) -> dict[str, int]:
    """How often each outcome, and each state, is in the walks: all should be."""
    counts: dict[str, int] = {}
    for entry in entries:
        for step in entry["steps"]:
            for key in (step.get("outcome", "lost"), step["state"]):
                counts[key] = counts.get(key, 0) + 1
    return counts
