"""The transition table: which frame is allowed where, who sends it, and where it leads."""

from __future__ import annotations

from enum import Enum, auto
from typing import Literal

from draftlink.protocol.frames import (
    Done,
    Draft,
    Finish,
    Frame,
    Hello,
    Progress,
    Propose,
    Refused,
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


class State(Enum):
    """Where a session is."""

    OPENED = auto()  # nothing said
    GREETING = auto()  # the device has said hello
    READY = auto()  # no generation
    RESUMING = auto()  # the device has asked to go on with one
    REPLAYING = auto()  # the base station needs its history
    DRAFTING = auto()  # the device may draft; verdicts may be under way
    VERIFYING = auto()  # the device waits for the verdicts of all its drafts
    STREAMING = auto()  # the base station writes alone
    SWITCHING = auto()  # and has been asked to stop
    WRITING = auto()  # both ends write
    FINISHING = auto()  # the device has ended the generation, and Done is owed
    CLOSED = auto()


Role = Literal["device", "bs"]
SENDER: dict[type[Frame], Role] = {
    Hello: "device",
    Start: "device",
    Resume: "device",
    Replay: "device",
    Draft: "device",
    Switch: "device",
    Finish: "device",
    Propose: "device",
    Welcome: "bs",
    Resumed: "bs",
    Refused: "bs",
    Verdict: "bs",
    Tokens: "bs",
    Switched: "bs",
    Done: "bs",
    Progress: "bs",
    Written: "bs",
}

UNDER_WAY = (
    State.DRAFTING,
    State.VERIFYING,
    State.STREAMING,
    State.SWITCHING,
    State.WRITING,
)

# Where a frame is allowed, and where it leads; None: that depends on the frame (see ``Session``).
TABLE: dict[tuple[State, type[Frame]], State | None] = {
    (State.OPENED, Hello): State.GREETING,
    (State.GREETING, Welcome): State.READY,
    (State.READY, Start): None,
    (State.READY, Resume): State.RESUMING,
    (State.RESUMING, Resumed): None,
    (State.REPLAYING, Replay): None,
    (State.DRAFTING, Draft): None,
    (State.DRAFTING, Verdict): None,
    (State.VERIFYING, Verdict): None,
    (State.DRAFTING, Switch): None,
    (State.VERIFYING, Switch): None,
    (State.STREAMING, Tokens): None,
    (State.STREAMING, Switch): State.SWITCHING,
    (State.SWITCHING, Tokens): None,
    (State.SWITCHING, Switched): State.DRAFTING,
    (State.WRITING, Propose): State.WRITING,
    (State.WRITING, Written): None,
    (State.DRAFTING, Finish): State.FINISHING,
    (State.VERIFYING, Finish): State.FINISHING,
    (State.STREAMING, Finish): State.FINISHING,
    (State.SWITCHING, Finish): State.FINISHING,
    (State.WRITING, Finish): State.FINISHING,
    # The base station had already ended the generation when Finish reached it.
    (State.READY, Finish): State.FINISHING,
    (State.FINISHING, Done): State.READY,
    **{(state, Progress): state for state in (*UNDER_WAY, State.FINISHING)},
    **{(state, Refused): State.CLOSED for state in State if state is not State.CLOSED},
}
# Where a generation goes on, by who writes.
WRITES = {"draft": State.DRAFTING, "stream": State.STREAMING, "both": State.WRITING}
NUMBERED = (Draft, Switch, Verdict, Tokens, Switched)  # sent again after a lost connection
