"""A generation decodes drafts in slices: left at any of them, nothing of the draft stays behind."""

from __future__ import annotations

import random

import numpy as np
import pytest

from bs_runtime.engine.generation import Generation
from draftlink import schemes
from draftlink.coding.ids import SLICE, IdModel
from draftlink.distribution import noise
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.schemes import AnyScheme, Coupled, Dense, Split, TopK
from tests.fake_models import random_logits
from tests.fakes import FakeTarget

SIZE = 40
KEY = noise.key_from_seed(3, "device")
HISTORY = random.Random(1).choices(range(SIZE), k=3 * SLICE + 7)
SCHEMES: list[AnyScheme] = [Coupled(), Split(8, 64), TopK(8, 64), TopK(8, coding="fp16"), Dense()]
ALL = pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)


def generation(scheme: AnyScheme, history: list[int], **before: object) -> Generation:
    start = frames.Start(1, 0, list(history), Sampling(), scheme, "draft", 500, [], 5)
    slot = FakeTarget(random_logits(1, SIZE)).open()
    return Generation(slot, start, history, SIZE, 1 << 20, bytes(32), **before)


def drafts(scheme: AnyScheme, history: list[int], first: int | None = None) -> list[frames.Draft]:
    """Three drafts of 20 tokens that follow one another."""
    ids, rng = IdModel(SIZE), np.random.default_rng(2)
    past = [*history, *([] if first is None else [first])]
    sent = []
    for i in range(3):
        ids.extend(past[ids.length :])
        block = [
            scheme.propose(rng.dirichlet(np.full(SIZE, 0.3)), KEY, len(past) + j) for j in range(20)
        ]
        payload, _ = scheme.encode(block, ids)
        sent.append(frames.Draft(1, len(past), 20, payload, None if i else first, waits=i == 2))
        past += [d.token for d in block]
    return sent


def ids_of(drafted) -> list[int]:
    return [d.token for d in drafted]


@ALL
def test_left_at_any_slice_it_decodes_the_same_afterwards(scheme):
    """A Finish or a verdict voids the round, and the text goes on otherwise."""
    first = 7 if scheme.corrects == "device" else None
    here = generation(scheme, list(HISTORY))
    sent = drafts(scheme, HISTORY, first)
    expected = ids_of(generation(scheme, list(HISTORY)).decode(sent))
    slices = sum(1 for _ in generation(scheme, list(HISTORY)).decoding(sent))
    assert slices >= 3
    for stop in range(slices):
        under_way = here.decoding(sent)
        for _ in range(stop + 1):
            next(under_way, None)  # of a history that is known by then there are fewer
        under_way.close()
        assert here._decoder._ids.length <= len(HISTORY) == len(here.history)
        assert ids_of(here.decode(sent)) == expected
    here.decoding(sent).close()
    here.history += [1, 2, 3]  # of the target's
    assert ids_of(here.decode(drafts(scheme, here.history, first))) == ids_of(
        generation(scheme, list(here.history)).decode(drafts(scheme, here.history, first))
    )


@ALL
def test_damaged_drafts_leave_nothing_behind(scheme):
    here = generation(scheme, list(HISTORY))
    first = 7 if scheme.corrects == "device" else None
    good = drafts(scheme, HISTORY, first)
    last = good[2]
    for payload in (last.payload + b"\x01", last.payload[:-1], b"\xff" * 40):
        bad = frames.Draft(1, last.base, 20, payload, None, waits=True)
        try:
            here.decode([*good[:2], bad])
        except ValueError:
            assert here._decoder._ids.length <= len(HISTORY)
    assert ids_of(here.decode(good)) == ids_of(generation(scheme, list(HISTORY)).decode(good))


@pytest.mark.parametrize("same", [0, 3, SLICE, len(HISTORY)])
def test_the_next_turn_s_model_goes_on_from_the_one_before(same):
    """What both histories begin with is not learned again, and the rest is forgotten in slices."""
    scheme = Coupled()
    before = generation(scheme, list(HISTORY))
    before.decode(drafts(scheme, HISTORY))
    assert before._decoder._ids.length > 3 * SLICE
    history = [*HISTORY[:same], *random.Random(2).choices(range(SIZE), k=50)]
    here = generation(scheme, history, before=before, same=same)
    sent = drafts(scheme, history)
    left = here.decoding(sent)
    if same < SLICE:
        next(left)
        assert here._decoder._ids.length == len(HISTORY) - SLICE  # and not more in one go
    left.close()
    known = here._decoder._ids.length
    found = ids_of(here.decode(sent))
    assert found == ids_of(generation(scheme, list(history)).decode(sent))
    assert here._decoder._ids is before._decoder._ids and known >= same


def test_a_history_that_was_cut_back_is_not_taken_for_what_it_was():
    scheme = schemes.Coupled()
    before = generation(scheme, list(HISTORY))
    before.decode(drafts(scheme, HISTORY))
    before.rollback(5)
    before.history += [1, 2, 3, 4]
    here = generation(scheme, before.history, before=before, same=len(before.history))
    sent = drafts(scheme, here.history)
    expected = ids_of(generation(scheme, list(here.history)).decode(sent))
    assert ids_of(here.decode(sent)) == expected == ids_of(before.decode(sent))
