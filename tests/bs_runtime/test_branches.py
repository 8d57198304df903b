"""What a base station makes of a path whose tokens branch off."""

from __future__ import annotations

import random

import pytest

from bs_runtime.engine.late import Leaf
from bs_runtime.engine.paths import LEARNS, Paths
from draftlink.coding.ids import IdModel
from draftlink.coding.slices import whole
from draftlink.distribution.sparse import Drafted
from draftlink.protocol.frames import Propose
from draftlink.schemes.greedy import Greedy

SIZE = 12
GARBAGE = b"\xff" * 40


class Device:
    """What a device has proposed: of each token its text from the beginning, in order."""

    def __init__(self, history: list[int], path: int = 1) -> None:
        self.path, self.base = path, len(history)
        self.texts = [list(history)]  # behind what is before the path, and each token

    def propose(self, follows: int, ids: list[int], payload: bytes | None = None) -> Propose:
        """Tokens behind one of the path, by number; -1 for its beginning."""
        text, first = self.texts[1 + follows], len(self.texts) - 1
        model = IdModel(SIZE)
        model.extend(text)
        made, _ = Greedy().encode([Drafted(token) for token in ids], model)
        for place in range(len(ids)):
            self.texts.append([*text, *ids[: place + 1]])
        return Propose(
            self.path, self.base, self.base, first, len(ids), made if payload is None else payload,
            behind=first - 1 - follows,
        )  # fmt: skip


def opened(history: list[int]) -> Paths:
    return Paths(Greedy(), SIZE, history, branches=True)


def add(paths: Paths, frame: Propose) -> None:
    whole(paths.adding(frame))


def test_where_the_text_takes_a_branch_what_follows_it_is_next():
    history = [1, 2, 3]
    paths, device = opened(history), Device(history)
    add(paths, device.propose(-1, [4, 5, 6]))
    add(paths, device.propose(0, [7, 8]))  # beside 5
    add(paths, device.propose(3, [9]))  # beside 8
    assert paths.following(9) == [4, 5, 6]
    assert paths.beside(9) == [Leaf(1, 7)]
    history += [4, 7]
    assert paths.following(9) == [8] and paths.beside(9) == [Leaf(0, 9)] and paths.alive
    assert paths.met() == (2, 0)
    history += [9]
    assert paths.following(9) == [] and paths.alive
    add(paths, device.propose(5, [1, 1]))
    assert paths.following(9) == [1, 1]


def test_a_branch_that_comes_after_the_text_has_left_is_taken_up():
    history = [1, 2, 3]
    paths, device = opened(history), Device(history)
    add(paths, device.propose(-1, [4, 5, 6]))
    history += [4, 7]
    assert paths.following(9) == [] and not paths.alive and paths.met() == (1, 1)
    # Of what the text has left nothing is decoded, and it is numbered all the same.
    add(paths, device.propose(2, [2, 2], GARBAGE))
    add(paths, device.propose(-1, [8, 8], GARBAGE))
    add(paths, device.propose(0, [7, 8, 9]))
    assert paths.alive and paths.following(9) == [8, 9] and paths.met() == (1, 0)
    with pytest.raises(ValueError):  # the control: what follows the text is
        add(paths, device.propose(9, [1], GARBAGE))


def test_what_branches_off_is_not_what_goes_on_with_the_path():
    """Before it is decoded, and behind what the text has come to."""
    history = [1, 2, 3]
    paths, device = opened(history), Device(history)
    sent = [device.propose(*one) for one in (
        (-1, [4, 5]), (0, [7]), (1, [6]), (2, [8]), (3, [9]), (4, [2]),
    )]  # fmt: skip
    assert [paths.leads(one) for one in sent] == [True, False, True, False, True, False]
    for one in sent:
        add(paths, one)
    history += [4, 7]
    assert paths.leads(device.propose(6, [1])) and not paths.leads(device.propose(4, [1]))
    assert paths.leads(Device(history, 2).propose(-1, [3]))


def test_who_goes_from_branch_to_branch_pays_for_what_is_learned_anew():
    history = [1, 2, 3]
    paths, device = opened(history), Device(history)
    found = []
    for follows, ids in ((-1, [4] * 30), (-1, [5]), (29, [6]), (31, [7, 8]), (30, [9])):
        frame = device.propose(follows, ids)
        found.append(paths.costs(frame))
        add(paths, frame)
    assert found == [30, 1, 1 + 30 // LEARNS, 2, 1]  # the fourth goes on where the third was
    history += [5, 1]
    assert paths.costs(Device(history, 1).propose(-1, [3])) == 1


def test_siblings_are_different_tokens():
    history = [1, 2, 3]
    paths, device = opened(history), Device(history)
    add(paths, device.propose(-1, [4, 5]))
    with pytest.raises(ValueError, match="id 5 stands twice behind one token"):
        add(paths, device.propose(0, [5]))


def test_without_the_feature_a_path_that_is_left_stays_dead():
    history = [1, 2, 3]
    paths, device = Paths(Greedy(), SIZE, history), Device(history)
    add(paths, device.propose(-1, [4, 5]))
    history += [6]
    late = device.propose(1, [7])
    assert not paths.useful(late) and not paths.counts(late)


def walk(texts: list[list[int]], history: list[int]) -> int | None:
    """The number of the token whose text is the history, in its place behind the beginning."""
    return next((at for at, text in enumerate(texts) if text == history), None)


@pytest.mark.parametrize("seeds", [60, pytest.param(2000, marks=pytest.mark.full)])
def test_random_trees_and_texts(seeds):
    """Against a list of all texts that were proposed, path after path."""
    taken = revived = 0
    for seed in range(seeds):
        rng, history = random.Random(seed), [1, 2, 3]
        paths, device = opened(history), Device(history)
        for _ in range(30):
            if rng.random() < 0.1:
                device = Device(history, device.path + 1)
            choices = [
                (at - 1, [t for t in range(SIZE) if [*text, t] not in device.texts])
                for at, text in enumerate(device.texts)
            ]
            follows, free = rng.choice(choices[-4:])
            ids = [rng.choice(free), *(rng.randrange(SIZE) for _ in range(rng.randrange(3)))]
            dead = not paths.alive
            add(paths, device.propose(follows, ids))
            paths._stands()
            revived += dead and paths.alive and paths.number == device.path
            grown = [text for text in device.texts if text[: len(history)] == history]
            if rng.random() < 0.5:
                longer = [text for text in grown if len(text) > len(history)]
                if longer and rng.random() < 0.8:
                    goal = rng.choice(longer)
                    history += goal[len(history) : len(history) + rng.randrange(1, 3)]
                else:
                    history += [rng.randrange(SIZE)]
            following = paths.following(9)
            at = walk(device.texts, history)
            if at is None or paths.number != device.path:
                assert following == []
                continue
            here = [text[len(history) :] for text in device.texts if text[:-1] == history]
            assert following[:1] == (here[0] if here else [])
            assert [leaf.token for leaf in paths.beside(1)] == [one[0] for one in here[1:]]
            assert [*history, *following] in device.texts
            taken += len(here) > 1
    assert taken > seeds // 4 and revived > seeds // 20
