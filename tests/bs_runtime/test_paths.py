"""What a base station decodes of what it is proposed, and what it drops unread."""

from __future__ import annotations

import random

import pytest

from bs_runtime.engine.paths import FAR, Paths
from draftlink.coding.ids import IdModel
from draftlink.coding.slices import whole
from draftlink.distribution.sparse import Drafted
from draftlink.protocol.frames import Propose
from draftlink.schemes.greedy import Greedy

SIZE = 100
GARBAGE = b"\xff" * 40


def proposal(path: int, context: list[int], ids: list[int], base: int | None = None) -> Propose:
    """Tokens of a path from ``base`` on; without one they are its first."""
    model = IdModel(SIZE)
    model.extend(context)
    base = len(context) if base is None else base
    payload, _ = Greedy().encode([Drafted(token) for token in ids], model)
    return Propose(path, base, base, len(context) - base, len(ids), payload)


def feed(paths: Paths, frame: Propose) -> bool:
    """Whether the frame was decoded."""
    before = paths.number, paths.end
    whole(paths.adding(frame))
    return (paths.number, paths.end) != before


def test_a_path_is_what_may_come_next_until_the_text_differs():
    history = [1, 2, 3]
    paths = Paths(Greedy(), SIZE, history)
    assert feed(paths, proposal(1, [1, 2, 3], [4, 5])) and paths.following(9) == [4, 5]
    assert feed(paths, proposal(1, [1, 2, 3, 4, 5], [6], base=3))
    history += [4, 5]
    assert paths.following(9) == [6] and paths.met() == (2, 0)
    history += [7]
    assert paths.following(9) == [] and not paths.alive and paths.met() == (0, 1)


def test_candidates_are_judged_whether_a_step_was_given_them_or_not():
    history = [1, 2, 3]
    paths = Paths(Greedy(), SIZE, history)
    drafted = [Drafted(4, beside=(7,)), Drafted(5, beside=(8, 9)), Drafted(6, beside=(10,))]
    model = IdModel(SIZE)
    model.extend(history)
    payload, _ = Greedy().encode(drafted, model)
    assert feed(paths, Propose(1, 3, 3, 0, 3, payload, beside=(1, 2, 1)))
    history += [4, 9]
    assert paths.met_beside() == (3, 1) and paths.left_at == 4
    history += [10]
    assert paths.met_beside() == (0, 0) and paths.left_at == 4  # what is behind is of no account


def test_a_path_that_the_text_has_overtaken_is_not_left():
    history = [1, 2, 3]
    paths = Paths(Greedy(), SIZE, history)
    feed(paths, proposal(1, [1, 2, 3], [4, 5]))
    assert (paths.behind, paths.left_at) == (0, None)
    history += [4, 5, 6]
    assert (paths.behind, paths.left_at) == (1, None)
    assert feed(paths, proposal(1, [1, 2, 3, 4, 5], [7], base=3))
    assert (paths.behind, paths.left_at) == (0, 5)


def test_what_comes_of_a_dead_path_is_dropped_unread():
    """However much of it: none of these bytes would decode."""
    history = [1, 2, 3]
    paths = Paths(Greedy(), SIZE, history)
    feed(paths, proposal(4, [1, 2, 3], [4, 5]))
    garbage = Propose(4, 3, 3, 2, 64, GARBAGE)
    with pytest.raises(ValueError):  # the control: while it is alive
        feed(paths, garbage)
    history += [9]
    for path in (4, 3, 1):
        assert not feed(paths, Propose(path, 3, 4, 2, 64, GARBAGE))
    assert feed(paths, proposal(5, [1, 2, 3, 9], [8])) and paths.following(9) == [8]


def test_what_begins_far_behind_the_text_is_dropped_unread():
    history = [1] * (FAR + 4)
    paths = Paths(Greedy(), SIZE, history)
    for path in range(1, 50):
        assert not feed(paths, Propose(path, 3, len(history), 0, 64, GARBAGE))
    with pytest.raises(ValueError):  # the control
        feed(paths, Propose(50, 4, len(history), 0, 64, GARBAGE))


def test_a_flood_of_new_paths_holds_the_last_alone():
    """Each is decoded in its own context, wherever the last one was, and whatever is written."""
    chance, history = random.Random(1), [1, 2, 3]
    paths = Paths(Greedy(), SIZE, history)
    for path in range(1, 200):
        base = chance.randint(max(3, len(history) - 9), len(history))
        ids = [chance.randrange(SIZE) for _ in range(chance.randint(1, 64))]
        ids[: len(history) - base] = history[base : base + len(ids)]
        assert feed(paths, proposal(path, history[:base], ids))
        assert paths.end == base + len(ids)
        assert paths.following(64) == ids[len(history) - base :]
        if chance.random() < 0.5:
            history.append(chance.randrange(SIZE))
