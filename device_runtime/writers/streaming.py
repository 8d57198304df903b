"""Reading a stream: carries out what the window asks for while the base station writes alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from device_runtime.drafting.actions import Follow, Guess, Show, Switch, Wait
from device_runtime.drafting.drafter import Proposal
from device_runtime.result import Came
from device_runtime.transport.client import LinkError
from device_runtime.writers.told import came
from device_runtime.writers.writing import Writing
from draftlink.protocol import frames

BESIDE = 1 << 61  # a position with it: numbers of no epoch, which may begin where a stream did
EIGHTHS = 8  # of a bit: what a surprisal is told in


class Streaming:
    """Reads a stream, and lets the draft follow it as the window says."""

    def __init__(self, writing: Writing) -> None:
        self._writing = writing
        self._proposals: dict[int, Proposal] = {}  # by position, of tokens that have not come yet
        self._rows: dict[int, NDArray[np.float32]] = {}  # likewise: the draft's, (V,)
        self._surprisals: dict[int, int] = {}  # of tokens whose row is not there yet

    async def more(self) -> list[Came]:
        """The next tokens; nothing if the device drafts from here on.

        While nothing is heard of the base station, provisional tokens.
        """
        writing = self._writing
        while True:
            for action in writing.due():
                if isinstance(action, Guess):
                    action = action._replace(begins=action.begins | BESIDE)
                if isinstance(action, Show | Guess):
                    return await writing.show(action, ())
                if isinstance(action, Follow):
                    past = writing.history[: action.until]
                    writing.begin(writing.drafter.proposing, past, 1, action.begins | BESIDE)
                else:
                    assert isinstance(action, Wait)
                    batch = await self._wait(action)
                    if batch is not None:
                        return batch

    async def _wait(self, action: Wait) -> list[Came] | None:
        """Until something has come, or a time; the tokens of a frame, if one has."""
        writing = self._writing
        await writing.event(action.until_s)
        if writing.job is not None and writing.job.done():
            await self._collect()
        if not writing.incoming().done():
            return None
        frame = await writing.receive()
        if isinstance(frame, frames.Switched):
            if writing.job is not None:
                await self._collect()
            writing.window.switched(writing.now())
            return []
        if not isinstance(frame, frames.Tokens):
            raise LinkError(f"the base station sent {type(frame).__name__}, not Tokens")
        return await self._take(frame)

    async def _take(self, frame: frames.Tokens) -> list[Came]:
        writing, now = self._writing, self._writing.now()
        writing.tally.streamed(len(frame.ids))
        begin = len(writing.history)
        self._surprisals.update(enumerate(frame.surprisals, begin))
        place = writing.commit(frame.ids)
        if place is not None and writing.job is None:  # a job has no more than history before it
            writing.drafter.rollback(begin + place)
        self._compare()
        await self._switch(writing.window.streamed(now, len(frame.ids), ended=frame.ended))
        return came(writing, frame.ids, ["stream"] * len(frame.ids), frame.logprobs)

    async def _collect(self) -> None:
        """The draft has proposed a token; the target's own may be there already."""
        writing = self._writing
        (proposal,) = await writing.done()
        await self._switch(writing.window.followed(writing.now(), writing.waited_s))
        if writing.drafter.foretells:
            self._proposals[writing.device.model.length] = proposal
        elif writing.start.streams_surprisals:
            self._rows[writing.device.model.length] = writing.drafter.row()
        self._compare()

    async def _switch(self, asked: Switch | None) -> None:
        """Tell the base station to stop, if that is due."""
        if asked is not None:
            await self._writing.send(frames.Switch(self._writing.start.generation, asked.mode))

    def _compare(self) -> None:
        """Hold proposals against the tokens that have come."""
        history, window = self._writing.history, self._writing.window
        for position in [p for p in self._proposals if p < len(history)]:
            proposal = self._proposals.pop(position)
            window.foretold(proposal.chance, accepted=proposal.drafted.token == history[position])
        for position in sorted(self._rows.keys() & self._surprisals.keys()):
            q = float(self._rows.pop(position)[history[position]])
            window.told(min(1.0, q * 2.0 ** (self._surprisals[position] / EIGHTHS)))
            # The draft goes forward alone.
            self._surprisals = {p: said for p, said in self._surprisals.items() if p > position}
