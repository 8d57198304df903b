"""What is drafted on several paths: which token is next, and what of the cache stands."""

from __future__ import annotations

import itertools
import random

import pytest

from device_runtime.drafting import tree
from device_runtime.drafting.drafter import Proposal
from device_runtime.drafting.tree import ROW, Tree, worth
from device_runtime.model.block import ROOT, Block
from draftlink.distribution.sparse import Drafted

EOS, FAR = 9, 100


def drawn(*ids: int) -> Proposal:
    return Proposal(Drafted(ids[0], beside=ids[1:]), 0.5, (1.0,) * (len(ids) - 1))


def chances(proposal: Proposal) -> list[float]:
    return [0.7, 0.2, 0.1][: 1 + len(proposal.drafted.beside)]


def grow(one: Tree, *rows: tuple[int, ...], most: int = 2):
    made = one.next(most, FAR, FAR)
    one.grown(made, [drawn(*ids) for ids in rows], chances)
    return made


def trunk(one: Tree) -> list[int]:
    return [node.token for node in one.trunk]


def test_a_forward_takes_as_many_as_make_the_most_of_its_price():
    rng = random.Random(5)
    for _ in range(500):
        first = rng.random()
        others = sorted((rng.random() ** 3 for _ in range(rng.randrange(6))), reverse=True)
        rates = [
            (first + sum(others[:count])) / (1.0 + ROW * count) for count in range(len(others) + 1)
        ]
        best = max(range(len(rates)), key=lambda count: (rates[count], -count))
        assert worth(first, others, 10, 0.0) == best
        assert worth(first, others, 2, 0.0) == min(best, 2)
    assert worth(0.0, [0.5, 0.1, 0.01], 9, 0.05) == 2
    assert worth(0.5, [0.5], 0, 0.0) == 0


def test_the_most_probable_go_on_beside_the_trunk():
    one = Tree([EOS], 0.0)
    assert grow(one, (1, 2)).parents == ()  # the text itself
    made = grow(one, (3, 4), (5, 6))
    assert made.paths == ((1,), (2,)) and made.parents == (ROOT, ROOT)
    made = grow(one, (7, 8), (0, 1), (0, 1), most=3)
    assert made.paths[0] == (1, 3) and set(made.paths[1:]) == {(1, 4), (2, 5)}
    assert [made.parents[made.paths.index(path)] for path in ((1, 4), (2, 5))] == [0, 1]
    one = Tree([EOS], 0.0)
    for rows in (((1, 2),), ((3, 4), (5, 6))):
        grow(one, *rows)
    one._root.children[1].chance = 0.01
    assert one.next(2, FAR, FAR).paths == ((1, 3), (1, 4))


def test_where_the_text_takes_what_stood_beside_it_goes_on_there():
    one = Tree([EOS], 0.0)
    grow(one, (1, 2))
    grow(one, (3, 4), (5, 6))
    assert one.written([2]) and trunk(one) == [5]
    made = grow(one, (7, 8), (0, 1))
    assert made.paths == ((5,), (6,)) and made.chain == (1,) and made.rest == ()
    assert made.parents[0] == ROOT
    assert not one.written([5, 3]) and trunk(one) == []
    made = one.next(2, FAR, FAR)
    assert made.parents == () and made.chain == (0,)


def test_what_came_too_late_for_the_text_is_of_no_account():
    one = Tree([EOS], 0.0)
    grow(one, (1, 2))
    made = one.next(2, FAR, FAR)
    assert one.written([1]) and not one.written([4])
    one.grown(made, [drawn(3, 4), drawn(5, 6)], chances)
    assert trunk(one) == [] and one.next(2, FAR, FAR).parents == ()


def test_nothing_goes_on_behind_an_end_the_limit_or_for_too_little():
    one = Tree([EOS], 0.0)
    grow(one, (1, EOS))
    assert one.next(3, FAR, FAR).paths == ((1,),)
    for room, least, wanted in ((2, 0.0, 2), (1, 0.0, 1), (FAR, 0.3, 1), (FAR, 0.1, 2)):
        one = Tree([EOS], least)
        grow(one, (1, 2))
        assert len(one.next(3, room, FAR).paths) == wanted
    one = Tree([EOS], 0.0)
    grow(one, (1, 2))
    grow(one, (3, 4), (5, 6))
    assert set(one.next(4, 2, FAR).paths) == {(1, 3)}  # two tokens behind the text, and no third


def test_a_cache_without_room_has_a_trunk_alone():
    one = Tree([EOS], 0.0)
    grow(one, (1, 2))
    grow(one, (3, 4), (5, 6))
    made = one.next(3, FAR, 4)
    assert made.rest == (0,) and made.paths == ((1, 3),)
    one.grown(made, [drawn(7, 8)], chances)
    assert trunk(one) == [1, 3, 7]
    assert one.written([2]) and trunk(one) == []
    assert one.next(3, FAR, FAR).parents == ()  # its row has to be asked for anew


class Cache:
    """What a model would do: it feeds what it is told, and knows what each token sees."""

    def __init__(self) -> None:
        self.chain: list[int] = []
        self.block, self.held = Block(), list[int]()

    def run(self, made, text: list[int]) -> None:
        order = self.block.keep(made.chain, made.rest)
        moved = [self.held[at] for at in order]
        self.chain += moved[: len(made.chain)]
        self.held = moved[len(made.chain) :]
        assert self.chain == text[: len(self.chain)]
        if not made.parents:
            assert not self.held
            self.chain = list(text)
            return
        assert self.chain == text
        self.held += [path[-1] for path in made.paths]
        for path, sight in zip(made.paths, self.block.extend(made.parents), strict=True):
            assert [token for at, token in enumerate(self.held) if sight >> at & 1] == list(path)


@pytest.mark.parametrize("most", [1, 2, 4])
@pytest.mark.parametrize("entries", [FAR, 9])
def test_random_texts_leave_the_cache_what_it_says(most, entries):
    """Through the trunk, beside it, and anywhere, also while a forward is under way."""
    through = 0
    for seed in range(60):
        rng, one, cache, text = random.Random(seed), Tree([EOS], 0.0), Cache(), [0]
        for _ in range(40):
            if len(one.trunk) < 6:
                made = one.next(most, FAR, entries)
                cache.run(made, text)
                assert one.fed(len(text), len(cache.chain)) >= len(text)
            else:
                made = None
            for late in range(2):
                if made is not None and late:
                    rows = [drawn(*rng.sample(range(9), 3)) for _ in made.paths]
                    one.grown(made, rows, chances)
                if rng.random() < 0.4:
                    ids = []
                    at = one._root
                    for _ in range(rng.randrange(1, 4)):
                        if at is not None and at.children and rng.random() < 0.9:
                            at = rng.choice(at.children)
                        else:
                            at = None
                        ids.append(rng.randrange(9) if at is None else at.token)
                    through += one.written(ids) and bool(one.trunk)
                    text += ids
    assert through > 20 or most == 1


def test_a_trunk_as_long_as_a_block_goes_on_alone(monkeypatch):
    monkeypatch.setattr(tree, "MOST", 6)
    one = Tree([EOS], 0.0)
    grow(one, (0, 1))
    for number in range(12):
        made = one.next(3, FAR, FAR)
        one.grown(made, [drawn(*ids) for ids in itertools.repeat((1, 2), len(made.paths))], chances)
        assert len(one.trunk) == number + 2
    assert len(made.paths) == 1
