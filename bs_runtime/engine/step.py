"""One step: many rounds fed in one forward, and those that are done verified at once.

It is launched, and collected some time after: a model may have several in flight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bs_runtime.engine.generation import Round
from bs_runtime.engine.late import Late, joined
from bs_runtime.model.commands import Contents
from bs_runtime.model.kv import Slot
from bs_runtime.model.step import Step
from bs_runtime.verify import verify
from bs_runtime.verify.job import Job, Outcome


class Model(Protocol):
    """What steps need of a target. They come back in the order in which they were launched."""

    @property
    def in_flight(self) -> int:
        """How many steps it takes before the oldest is collected, at least 1."""

    def launch(self, step: Step) -> None:
        """Take a step, without waiting for anything: called on the event loop."""

    def collect(self) -> Tensor:
        """Wait for the oldest step; the rows (Σ rows, V) of its feeds, whose slots hold them now.

        Raises what it failed for; its slots are then as its commands made them, or empty. Called in
        a thread of its own, while others are launched.
        """


@dataclass(frozen=True)
class Failed:
    """The forward that a round was fed in failed, for that round or for another of the step."""

    error: Exception


Result = Outcome | Exception | Failed | None


@dataclass(eq=False)
class _Part:
    """A round's part of a step: it is fed ``count`` tokens."""

    round: Round
    count: int
    result: Result = None


def launch(
    model: Model, work: Sequence[tuple[Round, int]], dropped: Sequence[Slot] = ()
) -> set[Contents]:
    """Launch a step that feeds each round as many tokens as are beside it; the slots that it takes.

    ``dropped``: slots that were emptied; their memory is given back before others take more.
    """
    commands = [command for slot in dropped for command in slot.take_commands()]
    feeds = []
    for round, count in work:
        if count:
            commands += round.prepare()
            feeds.append(round.feed(count))
    step = Step(commands, feeds)
    model.launch(step)
    return step.slots.union(round.slot for round, _ in work)


def collect(model: Model, work: Sequence[tuple[Round, int]]) -> list[Result]:
    """Collect the oldest step, launched with ``work``, and verify the rounds that are done.

    What became of each, in order: what it came to; None where it has more to feed; an error where
    it, and no other, could not be verified or written; Failed for all that were fed where the step
    failed. Those are as before, or emptied, and can be fed again.
    """
    parts = [_Part(round, count) for round, count in work]
    _take(model, [part for part in parts if part.count])
    done = [part for part in parts if part.result is None and not part.round.left]
    jobs = [(part, job) for part in done if (job := part.round.job())]
    _verify(jobs)
    _follow(jobs)
    for part in done:
        if not isinstance(part.result, Exception | Failed):
            part.result = _commit(part.round, part.result)
    return [part.result for part in parts]


def _take(model: Model, parts: Sequence[_Part]) -> None:
    """Give each round its rows of the step."""
    try:
        rows = torch.as_tensor(model.collect())
    except Exception as error:
        failed = Failed(error)
        for part in parts:
            part.result = failed
        return
    begin = 0
    for part in parts:
        end = begin + part.round.asked
        part.round.take(rows[begin:end])
        begin = end


def _verify(parts: Sequence[tuple[_Part, Job]]) -> None:
    """Verify them together; where that fails each by itself, and note for which it did."""
    if not parts:
        return
    jobs = [job for _, job in parts]
    try:
        outcomes = verify.judge([_rows(part, job) for part, job in parts], jobs)
    except Exception:  # of one of them, or for want of memory for all: each from its own rows
        for part, job in parts:
            try:
                (part.result,) = verify.judge([_rows(part, job)], [job])
            except Exception as error:
                part.result = error
        return
    for (part, _), outcome in zip(parts, outcomes, strict=True):
        part.result = outcome


def _rows(part: _Part, job: Job) -> Tensor:
    """What a job is judged by: the last of the round's rows."""
    return part.round.rows()[-1 - len(job.drafted) :]


def _follow(parts: Sequence[tuple[_Part, Job]]) -> None:
    """Where the target writes a leaf in the place of a token, verify what is behind it, too."""
    behind: list[tuple[_Part, Job]] = []
    chains: list[Outcome] = []
    for part, job in parts:
        round, chain = part.round, part.result
        if not isinstance(round, Late) or not isinstance(chain, Outcome):
            continue
        more = round.follow(job, chain)
        if more is not None:
            behind.append((part, more))
            chains.append(chain)
    _verify(behind)
    for (part, _), chain in zip(behind, chains, strict=True):
        if isinstance(part.result, Outcome):
            part.result = joined(chain, part.result)


def _commit(round: Round, verified: Outcome | None) -> Outcome | Exception:
    try:
        return round.commit(verified)
    except Exception as error:
        return error
