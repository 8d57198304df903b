"""One step: feed many rounds in one forward, and judge at once those that are done."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bs_runtime.engine.generation import Judgement, Round
from bs_runtime.model.kv import Feed
from bs_runtime.verify import verify


class Model(Protocol):
    """What a step needs of a target."""

    def forward(self, feeds: Sequence[Feed]) -> Tensor:
        """Feed many slots at once: see ``Engine.forward``."""


@dataclass(frozen=True)
class Failed:
    """The forward that a round was fed in failed, for that round or for another of the step."""

    error: Exception


Result = Judgement | Exception | Failed | None


def step(model: Model, work: Sequence[tuple[Round, int]]) -> list[Result]:
    """Feed each round as many tokens as stand beside it, and judge those that are done.

    What became of each, in order: its judgement; None where it has more to feed; an error where it,
    and no other, could not be judged or written; Failed for all that were fed where the forward
    failed. Those are as before, or emptied, and can be fed again.
    """
    failed = _feed(model, [(round, count) for round, count in work if count])
    done = [round for round, count in work if not round.left and not (count and failed)]
    judged = _judge(done)
    return [
        failed if failed and count else _settle(round, judged[round]) if round in judged else None
        for round, count in work
    ]


def _feed(model: Model, work: Sequence[tuple[Round, int]]) -> Failed | None:
    if not work:
        return None
    try:
        for round, _ in work:
            round.prepare()
        feeds = [round.feed(count) for round, count in work]
        rows = torch.as_tensor(model.forward(feeds))
    except Exception as error:
        return Failed(error)
    ends = itertools.accumulate(feed.rows for feed in feeds)
    for (round, _), feed, end in zip(work, feeds, ends, strict=True):
        round.take(rows[end - feed.rows : end])
    return None


def _judge(done: Sequence[Round]) -> dict[Round, verify.Outcome | Exception | None]:
    """What is made of each round; None where nothing is to be judged."""
    judged: dict[Round, verify.Outcome | Exception | None] = dict.fromkeys(done)
    jobs = {round: job for round in done if (job := round.job())}
    if not jobs:
        return judged
    try:
        outcomes = verify.judge([round.rows() for round in jobs], list(jobs.values()))
        return judged | dict(zip(jobs, outcomes, strict=True))
    except (
        Exception
    ):  # of one of them, or for want of memory for all: each by itself, from its rows
        for round, job in jobs.items():
            try:
                (judged[round],) = verify.judge([round.rows()], [job])
            except Exception as error:
                judged[round] = error
    return judged


def _settle(round: Round, judged: verify.Outcome | Exception | None) -> Judgement | Exception:
    if isinstance(judged, Exception):
        return judged
    try:
        return round.settle(round.rows(), judged)
    except Exception as error:
        return error
