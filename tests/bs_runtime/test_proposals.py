"""A stream's text is the same whatever is proposed for it, and by whom; only it comes faster."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from bench.virtual.loop import run
from bs_runtime.engine.lookup import Nothing
from bs_runtime.engine.scheduler import Scheduler
from bs_runtime.serving.connection import Connection
from bs_runtime.serving.conversations import Conversations
from bs_runtime.serving.tickets import Sealer
from bs_runtime.verify.job import Job
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.schemes.base import MAX_DRAFT
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.dense import Dense
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK
from tests.bs_runtime.tiny import CONFIGS, VOCAB, build, take
from tests.fake_models import HASH, random_logits
from tests.fakes import FakeTarget

Propose = Callable[[Sequence[int]], Sequence[int]]
PROMPT = [3, 1, 4, 1, 5]
TOKENS = 120
CASES = {
    "topk": (TopK(4, 16), Sampling()),
    "dense": (Dense(), Sampling(0.8, top_p=0.9, repetition_penalty=1.2)),
    "split": (Split(4, 16), Sampling(top_k=8)),
    "coupled": (Coupled(), Sampling()),
    "greedy": (TopK(4, 16), Sampling(temperature=0.0)),
}
# Peaked, so that a text comes back to what it has been through, and random all the same.
TABLE = random_logits(3, VOCAB, 3.0)


class NGrams:
    """Proposes what followed the last two tokens before, and each token wrong by a random chance.

    ``text``: the whole text, from which all that follows is proposed.
    """

    def __init__(self, seed: int, wrong: float, text: Sequence[int] = ()) -> None:
        self._rng = np.random.default_rng(seed)
        self._wrong = wrong
        self._text = text

    def __call__(self, history: Sequence[int]) -> Sequence[int]:
        known, at = list(history[:-1]), None
        if self._text:
            known, at = list(self._text), len(history)
        for i in range(2, len(known)):
            if not self._text and known[i - 2 : i] == history[-2:]:
                at = i
        if at is None:
            return []
        found = known[at : at + int(self._rng.integers(1, 8))]
        spoilt = self._rng.random(len(found)) < self._wrong
        wrong = self._rng.integers(VOCAB, size=len(found)).tolist()
        return np.where(spoilt, wrong, found).tolist()


class Proposed:
    """A generation's proposer, of ids that a function gives for a history."""

    rate = 0.0

    def __init__(self, propose: Propose) -> None:
        self._propose = propose

    def proposed(
        self, history: Sequence[int], held: Sequence[int] = (), alpha: float = 1.0
    ) -> Sequence[int]:
        return self._propose(history)


def streamed(
    target: Any, case: str, propose: Propose | None, eos: Sequence[int] = (), count: int = TOKENS
) -> tuple[list[int], list[frames.Tokens]]:
    """The text that a connection streams, and its frames."""
    scheme, sampling = CASES[case]
    hello = frames.Hello(frames.VERSION, HASH, VOCAB, [scheme.name.split(",")[0]], "test")
    start = frames.Start(1, 0, PROMPT, sampling, scheme, "stream", count, list(eos), 7)

    async def main() -> list[frames.Tokens]:
        up: asyncio.Queue[bytes | None] = asyncio.Queue()
        down: asyncio.Queue[bytes] = asyncio.Queue()
        scheduler = Scheduler(target)
        memory = Conversations(target.open, scheduler.close, Sealer(bytes(32)))
        proposers = Nothing if propose is None else lambda _: Proposed(propose)
        connection = Connection(target, scheduler, memory, up.get, down.put, proposers=proposers)
        serving = asyncio.create_task(connection.serve())
        up.put_nowait(frames.encode(hello))
        assert isinstance(frames.decode(await down.get()), frames.Welcome)
        up.put_nowait(frames.encode(start))
        found: list[frames.Tokens] = []
        while not (found and found[-1].ended):
            frame = frames.decode(await down.get())
            assert isinstance(frame, frames.Tokens), frame
            found.append(frame)
        up.put_nowait(None)
        await serving
        return found

    found = run(main())
    ids = [i for frame in found for i in frame.ids]
    bases = [frame.base for frame in found]
    assert bases == [len(PROMPT) + sum(len(f.ids) for f in found[:n]) for n in range(len(found))]
    return ids, found


@pytest.mark.parametrize("case", CASES)
def test_proposals_right_or_wrong_leave_the_text_as_it_is(case):
    target = FakeTarget(TABLE)
    target.tokenizer_hash = HASH
    alone, plain = streamed(target, case, None)
    assert len(alone) == len(plain) == TOKENS
    whole = [*PROMPT, *alone]
    for seed, wrong in enumerate([0.0, 0.3, 0.9]):
        found, sent = streamed(target, case, NGrams(seed, wrong, whole))
        assert found == alone
        assert len(sent) < TOKENS and max(len(f.ids) for f in sent) > 1
        assert wrong or len(sent) < TOKENS / 3
    for seed in range(3):  # what a base station can look up in the history alone
        found, _ = streamed(target, case, NGrams(seed, 0.2))
        assert found == alone
    found, sent = streamed(target, case, lambda history: [7] * 1000)
    assert found == alone and max(len(f.ids) for f in sent) <= MAX_DRAFT + 1


@pytest.mark.parametrize("case", CASES)
def test_over_a_transformer(case):
    target = take(build(CONFIGS["llama"]))
    target.tokenizer_hash = HASH
    alone, _ = streamed(target, case, None, count=40)
    found, sent = streamed(target, case, NGrams(1, 0.3, [*PROMPT, *alone]), count=40)
    assert found == alone and len(sent) < 40


@pytest.mark.parametrize("case", CASES)
def test_a_text_ends_where_it_does_without_proposals(case):
    """At the first EOS, though it was proposed, and more behind it."""
    target = FakeTarget(TABLE)
    target.tokenizer_hash = HASH
    free, _ = streamed(target, case, None)
    eos = [free[50]]
    alone, _ = streamed(target, case, None, eos)
    assert alone == free[: free.index(eos[0]) + 1]
    for seed in range(5):
        found, sent = streamed(target, case, NGrams(seed, 0.1, [*PROMPT, *free]), eos)
        assert found == alone and sent[-1].ended


def test_control_a_block_that_is_judged_as_a_draft_changes_the_text(monkeypatch):
    """Rejection sampling keeps the law, but not the text: the right rule is what makes it equal."""
    target = FakeTarget(TABLE)
    target.tokenizer_hash = HASH
    alone, _ = streamed(target, "topk", None)
    monkeypatch.setattr(Job, "rule", property(lambda job: job.scheme.rule))
    found, _ = streamed(target, "topk", NGrams(1, 0.3, [*PROMPT, *alone]))
    assert found != alone
