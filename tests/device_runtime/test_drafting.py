"""Which drafted tokens are sent must not depend on which they are."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from device_runtime.drafting.controller import Plan
from device_runtime.drafting.drafter import Proposal
from device_runtime.drafting.estimators import Estimates
from device_runtime.writers.drafting import Drafting
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames


class Link(SimpleNamespace):
    """A ``Writing`` without a draft: what is sent, and nothing else."""

    def __init__(self, corrects: str) -> None:
        estimates = Estimates()
        estimates.draft.took(0.01, beside=False)
        for _ in range(200):  # a likely token stands, an unlikely one does not
            estimates.acceptance.foretold(0.99, True)
            estimates.acceptance.foretold(0.05, False)
        plan = Plan(2, waits=False, sure=0.75, window=8)
        scheme = SimpleNamespace(
            longest=lambda size, room, entries: 64,
            deepest=lambda size, entries: 256,
            corrects=corrects,
        )
        super().__init__(
            estimates=estimates,
            controller=SimpleNamespace(plan=lambda mode: plan),
            history=[1, 2, 3], left=50, room=97, owed=None, job=None, alone=None, sent=[],
            now=lambda: 0.0, begin=lambda *_: None,
            start=SimpleNamespace(eos_ids=[], generation=1),
            session=SimpleNamespace(epoch=1, progress=SimpleNamespace(expected=3)),
            drafter=SimpleNamespace(
                scheme=scheme, encode=lambda past, drafted: (b"", 0), propose=None
            ),
            device=SimpleNamespace(
                model=SimpleNamespace(length=3),
                client=SimpleNamespace(
                    welcome=SimpleNamespace(vocab_size=10, frame_entries=64, flight_entries=256)
                ),
            ),
        )  # fmt: skip

    async def send(self, frame: frames.Frame, bits: int | None = None) -> None:
        self.sent.append((type(frame).__name__, getattr(frame, "length", None)))


@pytest.mark.parametrize("corrects", ["bs", "device"])
def test_tokens_held_back_are_judged_before_the_stream_begins(corrects):
    """A likely token waits for others, an unlikely one is sent: to drop the first would choose.

    Where it was dropped, the target wrote its position afresh, and likely tokens were too rare.
    """

    async def leaving(chance: float) -> list[tuple[str, int | None]]:
        link = Link(corrects)
        drafting = Drafting(link, "run-ahead", auto=True)
        drafting._append([Proposal(Drafted(5), chance)])
        await drafting._advance()
        held = not link.sent
        assert held == (chance > 0.5)
        drafting._wants_out = True  # what a verdict on earlier ones may bring about
        while await drafting._advance():
            pass
        return link.sent

    likely, unlikely = asyncio.run(leaving(0.99)), asyncio.run(leaving(0.05))
    switch = [("Switch", None)] if corrects == "bs" else []  # else once it has been judged
    assert likely == unlikely == [("Draft", 1), *switch]
