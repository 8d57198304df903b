"""What a frame that is allowed, and has no fault, changes of a session beside its state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from draftlink.protocol.frames import (
    Done,
    Draft,
    Finish,
    Frame,
    Hello,
    Propose,
    Replay,
    Resume,
    Resumed,
    Start,
    Switch,
    Switched,
    Tokens,
    Verdict,
    Welcome,
    Written,
)
from draftlink.protocol.progress import Progress
from draftlink.protocol.standing import Standing
from draftlink.protocol.states import WRITES, State


def apply(session: Standing, frame: Frame) -> None:
    """Carry a frame out, at the end that sends it as at the end that receives it."""
    if (effect := _EFFECTS.get(type(frame))) is not None:
        effect(session, frame)


def _hello(session: Standing, frame: Hello) -> None:
    session.hello = frame


def _welcome(session: Standing, frame: Welcome) -> None:
    session.welcome = frame


def _start(session: Standing, frame: Start) -> None:
    path = session.progress.path
    session.progress = Progress(
        frame.generation, session.epoch + 1, frame.begins, start=frame, path=path
    )


def _resume(session: Standing, frame: Resume) -> None:
    session.resuming = frame


def _resumed(session: Standing, frame: Resumed) -> None:
    session.progress.leave_path()
    if session.role == "device":
        session.progress.frames.go_on_from(frame.handled)


def _replay(session: Standing, frame: Replay) -> None:
    """Both ends are where the device was; frames are numbered from 0 again."""
    asked, progress = session.resuming, session.progress
    assert asked is not None
    if session.role == "bs":
        start = asked.start
        session.progress = Progress(
            start.generation, asked.epoch, asked.length, asked.length - start.base, start
        )
        session.progress.owed = asked.owes
        session.stopped_at = WRITES[start.mode]
        return
    if session.stopped_at in (State.STREAMING, State.SWITCHING):
        # A switch that led here is done.
        progress.frames.keep_last(int(session.stopped_at is State.SWITCHING))
    progress.frames.restart()


def _draft(session: Standing, frame: Draft) -> None:
    session.progress.draft(frame)


def _verdict(session: Standing, frame: Verdict) -> None:
    session.progress.judge(frame)


def _tokens(session: Standing, frame: Tokens) -> None:
    session.progress.grow(len(frame.ids))


def _propose(session: Standing, frame: Propose) -> None:
    session.progress.propose(frame)


def _written(session: Standing, frame: Written) -> None:
    session.progress.grow(len(frame.ids))


def _switch(session: Standing, frame: Switch) -> None:
    progress = session.progress
    if frame.mode != "stream":
        return
    if progress.drafts:
        progress.switching = True
    else:
        progress.epoch += 1


def _switched(session: Standing, frame: Switched) -> None:
    session.progress.epoch += 1


def _finish(session: Standing, frame: Finish) -> None:
    session.kept = frame.keep
    session.late = 0


def _done(session: Standing, frame: Done) -> None:
    start, path = session.progress.start, session.progress.path
    session.progress = Progress(frame.generation, frame.epoch, frame.length, start=start, path=path)


_EFFECTS: dict[type[Frame], Callable[[Standing, Any], None]] = {
    Hello: _hello,
    Welcome: _welcome,
    Start: _start,
    Resume: _resume,
    Resumed: _resumed,
    Replay: _replay,
    Draft: _draft,
    Propose: _propose,
    Verdict: _verdict,
    Tokens: _tokens,
    Written: _written,
    Switch: _switch,
    Switched: _switched,
    Finish: _finish,
    Done: _done,
}
