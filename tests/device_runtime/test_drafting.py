"""Which drafted tokens are sent must not depend on which they are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from device_runtime.drafting.actions import Draft, Send, Switch
from device_runtime.drafting.blocks import Judged, Proposed
from device_runtime.drafting.controller import DraftPlan
from device_runtime.drafting.counts import Counts, Limits
from device_runtime.drafting.epochs import Epochs
from device_runtime.drafting.estimators import Estimates
from device_runtime.drafting.offline import Offline

AHEAD = DraftPlan(2, waits=False, sure=0.75, window=8)


def drafting(
    *, corrects: bool = False, plan: DraftPlan = AHEAD, opens: bool = False, length: int = 3
) -> Epochs:
    """A window that drafts by a plan, ahead in blocks of two: what it asks for, and no more."""
    estimates = Estimates()
    estimates.draft.took(0.01, beside=False)
    for _ in range(200):  # a likely token stands, an unlikely one does not
        estimates.acceptance.foretold(0.99, True)
        estimates.acceptance.foretold(0.05, False)
    controller: Any = SimpleNamespace(
        estimates=estimates, plan=lambda mode: plan, drafts="run-ahead", opens=opens
    )
    limits = Limits(
        begins=3, ends=53, context=100, message=64, flight=256, foretells=False, corrects=corrects
    )
    return Epochs(controller, Counts(limits, length), Offline(None), 0.0, auto=True)


@pytest.mark.parametrize("corrects", [False, True], ids=["bs", "device"])
def test_on_one_machine_the_base_station_reads_the_prompt_first(corrects):
    """Its first token needs no draft, and both reading at once would be late for it and the next.

    Nothing of what that took counts as a verification: it would make a step look short.
    """
    epochs = drafting(corrects=corrects, opens=True)
    assert epochs.due(0.0, 0) == [Send(0, True)]
    assert epochs.due(0.1, 0) == []
    epochs.verdict(0.2, Judged(0, True, True, False, 0.001, 0.0))
    epochs._counts.length += 1
    assert not len(epochs._estimates.verify) and not epochs._estimates.rows.tokens
    # In the middle of a text, where the device takes over, there is nothing to read.
    for begun in (epochs, drafting(corrects=corrects, opens=True, length=4)):
        assert begun.due(0.2, 0) == [Draft(1, begun.begins, True)]


@pytest.mark.parametrize("corrects", [False, True], ids=["bs", "device"])
def test_tokens_held_back_are_judged_before_the_stream_begins(corrects):
    """A likely token waits for others, an unlikely one is sent: to drop the first would choose.

    Where it was dropped, the target wrote its position afresh, and likely tokens were too rare.
    """

    def leaving(chance: float) -> list[Send | Switch]:
        epochs = drafting(corrects=corrects)
        assert epochs.due(0.0, 3) == [Draft(1, 3, True)]
        epochs.drafted(0.0, [Proposed(chance, False)])
        sent = [action for action in epochs.due(0.0, 4) if isinstance(action, Send | Switch)]
        assert bool(sent) == (chance < 0.5)
        epochs._forward = None
        epochs._wants_stream = True  # what a verdict on earlier ones may bring about
        while actions := epochs.due(0.0, 4):
            assert all(isinstance(action, Send | Switch) for action in actions)
            sent += actions
        return sent

    likely, unlikely = leaving(0.99), leaving(0.05)
    switch = [Switch("stream")] if not corrects else []  # else once it has been judged
    assert likely == unlikely == [Send(1, False), *switch]


def block(chances: list[float], *, sure: float) -> int:
    """Tokens of a block that waits, where those drafted have these chances."""
    epochs = drafting(plan=DraftPlan(6, waits=True, sure=sure, window=6))
    left, cached = list(chances), 3
    while True:
        actions = epochs.due(0.0, cached)
        if sent := [action for action in actions if isinstance(action, Send)]:
            assert sent[0].waits and len(actions) == 1  # nothing is drafted behind it
            return sent[0].tokens
        (draft,) = actions
        assert isinstance(draft, Draft) and draft.tokens == (1 if sure else 6)
        epochs.drafted(0.0, [Proposed(left.pop(0), False) for _ in range(draft.tokens)])
        cached += draft.tokens


def test_a_block_that_waits_ends_behind_a_token_that_hardly_stands():
    """What is drafted behind it would be drafted for nothing."""
    likely, unlikely = 0.99, 0.05
    assert block([likely] * 6, sure=0.5) == 6
    assert block([likely, likely, unlikely, *[likely] * 3], sure=0.5) == 3
    assert block([unlikely, *[likely] * 5], sure=0.5) == 1
    assert block([likely, likely, unlikely, *[likely] * 3], sure=0.0) == 6  # a fixed length
