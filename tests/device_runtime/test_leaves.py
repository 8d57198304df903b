"""Which candidates a device proposes beside its tokens."""

from __future__ import annotations

import pytest

from device_runtime.drafting import leaves
from device_runtime.drafting.controller import Controller
from device_runtime.drafting.drafter import Proposal
from device_runtime.drafting.estimators import Estimates
from device_runtime.drafting.leaves import Leaves
from draftlink.distribution.sparse import Drafted

NEAR = Proposal(Drafted(5, beside=(6, 7)), 0.5, (1.1, 1.4))
FAR = Proposal(Drafted(5, beside=(6, 7)), 0.9, (300.0, 500.0))


@pytest.fixture(autouse=True)
def two(monkeypatch):
    monkeypatch.setattr(leaves, "MOST", 2)


def fresh() -> Leaves:
    return Leaves(Controller(Estimates()))


def counts(here: Leaves, proposals, ahead=0, alpha=0.8, row=0.0, most=64):
    return [len(one.beside) for one in here.chosen(proposals, ahead, alpha, row, most)]


def test_who_arrives_shortly_behind_the_first_is_proposed():
    assert counts(fresh(), [NEAR, FAR]) == [2, 1]
    assert counts(fresh(), [NEAR, FAR], ahead=40) == [
        0,
        0,
    ]  # the text hardly ever comes there


def test_a_row_has_its_price_and_a_message_its_room():
    assert counts(fresh(), [NEAR, FAR], row=0.08) == [1, 0]
    assert counts(fresh(), [NEAR] * 4, most=7) == [2, 1, 0, 0]


def test_what_the_text_says_is_learned():
    here = fresh()
    for _ in range(100):
        here.met(NEAR, 5)
        here.met(FAR, 6)
    assert counts(here, [NEAR, FAR], row=0.08) == [0, 1]
