"""A base station that says nothing: what is due from it, and for how long it is waited for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from websockets.exceptions import ConnectionClosed

from device_runtime.transport.connecting import LinkError, Lost, Socket, close
from draftlink.protocol import frames
from draftlink.protocol.session import Session
from draftlink.protocol.states import State

# States in which something is due, however long the work for it takes; beside them GREETING, and
# drafts without a verdict.
OWES = (
    State.RESUMING,
    State.VERIFYING,
    State.STREAMING,
    State.SWITCHING,
    State.WRITING,
    State.FINISHING,
)


@dataclass(frozen=True)
class Deadlines:
    """Seconds for which a base station may say nothing while something is due from it.

    None is for its work: a long prompt takes as long as it takes, and Progress frames tell of it.
    ``silence_s`` is three of those missing, and the most that a message may take to be sent.
    """

    welcome_s: float = 15.0
    silence_s: float = 3 * frames.PROGRESS_S


class Silence:
    """How long nothing has been heard on a session's connection while something was due."""

    def __init__(self, session: Session, deadlines: Deadlines) -> None:
        self._session = session
        self._deadlines = deadlines
        self._limit_s: float | None = None  # None while nothing is due
        self._since_s = 0.0
        self._wait: asyncio.Timeout | None = None

    def begins(self) -> None:
        """It begins now: something was heard, or nobody listened before."""
        self._since_s = _now()
        self._look()

    def sends(self) -> None:
        """A frame is sent: it begins now, unless something was due before."""
        if self._limit_s is None:
            self._since_s = _now()
        self._look()

    async def hear(self, socket: Socket) -> str | bytes:
        """The next message. Raises Lost, also where none comes in time; LinkError if fenced.

        What is sent meanwhile makes a deadline, and what was due before keeps its own.
        """
        try:
            async with asyncio.timeout_at(self._until_s) as self._wait:
                return await socket.recv()
        except ConnectionClosed as error:
            if error.rcvd is not None and error.rcvd.code == frames.FENCED:
                raise LinkError("another connection has taken over this session") from None
            raise Lost(str(error)) from None
        except TimeoutError:
            await close(socket)  # whoever is sending on it is let go
            raise Lost(f"it said nothing for {self._limit_s:g} s") from None
        finally:
            self._wait = None

    @property
    def _until_s(self) -> float | None:
        return None if self._limit_s is None else self._since_s + self._limit_s

    def _look(self) -> None:
        state, deadlines = self._session.state, self._deadlines
        if state is State.GREETING:
            self._limit_s = deadlines.welcome_s
        elif state in OWES or (state is State.DRAFTING and self._session.progress.drafts):
            self._limit_s = deadlines.silence_s
        else:
            self._limit_s = None
        if self._wait is not None and not self._wait.expired():  # what is up stays up
            self._wait.reschedule(self._until_s)


def _now() -> float:
    return asyncio.get_running_loop().time()
