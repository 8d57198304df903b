"""One step: feed many rounds in one forward, and verify at once those that are done."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bs_runtime.engine.generation import Round
from bs_runtime.model.kv import Feed
from bs_runtime.verify import verify
from bs_runtime.verify.job import Job, Outcome


class Model(Protocol):
    """What a step needs of a target."""

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Feed many slots at once: see ``Engine.forward``."""


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


def step(model: Model, work: Sequence[tuple[Round, int]]) -> list[Result]:
    """Feed each round as many tokens as are beside it, and verify those that are done.

    What became of each, in order: what it came to; None where it has more to feed; an error where
    it, and no other, could not be verified or written; Failed for all that were fed where the
    forward failed. Those are as before, or emptied, and can be fed again.
    """
    parts = [_Part(round, count) for round, count in work]
    _feed(model, [part for part in parts if part.count])
    done = [part for part in parts if part.result is None and not part.round.left]
    _verify([(part, job) for part in done if (job := part.round.job())])
    for part in done:
        if not isinstance(part.result, Exception | Failed):
            part.result = _commit(part.round, part.result)
    return [part.result for part in parts]


def _feed(model: Model, parts: Sequence[_Part]) -> None:
    """Feed them in one forward, and give each its rows."""
    if not parts:
        return
    try:
        for part in parts:
            part.round.prepare()
        feeds = [part.round.feed(part.count) for part in parts]
        rows = torch.as_tensor(model.forward(feeds))
    except Exception as error:
        failed = Failed(error)
        for part in parts:
            part.result = failed
        return
    ends = itertools.accumulate(feed.rows for feed in feeds)
    for part, feed, end in zip(parts, feeds, ends, strict=True):
        part.round.take(rows[end - feed.rows : end])


def _verify(parts: Sequence[tuple[_Part, Job]]) -> None:
    """Verify them together; where that fails each by itself, and note for which it did."""
    if not parts:
        return
    jobs = [job for _, job in parts]
    try:
        outcomes = verify.judge([part.round.rows() for part, _ in parts], jobs)
    except Exception:  # of one of them, or for want of memory for all: each from its own rows
        for part, job in parts:
            try:
                (part.result,) = verify.judge([part.round.rows()], [job])
            except Exception as error:
                part.result = error
        return
    for (part, _), outcome in zip(parts, outcomes, strict=True):
        part.result = outcome


def _commit(round: Round, verified: Outcome | None) -> Outcome | Exception:
    try:
        return round.commit(verified)
    except Exception as error:
        return error
