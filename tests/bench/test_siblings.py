"""``bench.siblings`` grows what the real schemes draw, and counts what it is worth."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from bench.siblings import __main__ as siblings
from bench.siblings import trees
from bench.siblings.trees import Chances, Tree
from draftlink.coding.ids import IdModel
from draftlink.distribution import noise
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.siblings import ROOT
from draftlink.planning.theory import Costs
from draftlink.schemes.topk import TopK

SIZE = 40
SCHEME = TopK(2, 16, tiers=3)
KEY = noise.key_from_seed(3, "device")


def law(path: list[int]) -> np.ndarray:
    """The draft's, of the last token alone."""
    return np.random.default_rng([1, *path[-1:]]).dirichlet(np.full(SIZE, 0.3))


def grown(most: int, **options) -> Tree:
    return trees.grow(law, SCHEME, Chances(), most, KEY, 5, **options)


def test_a_chain_is_what_the_scheme_drafts():
    chain, path = grown(12, siblings=False), list[int]()
    for position in range(5, 17):
        path.append(SCHEME.propose(law(path), KEY, position).token)
    assert [one.token for one in chain.drafted] == path
    assert chain.parents == [ROOT, *range(11)] and chain.forwards() == [*range(1, 13)]


def test_its_bits_are_the_coders():
    chain = grown(12, siblings=False)
    paths = [chain.path(node) for node in range(ROOT, 11)]
    same = [SCHEME.propose(law(path), KEY, 5 + at) for at, path in enumerate(paths)]
    _, bits = SCHEME.encode(same, IdModel(SIZE))
    assert sum(chain.bits) == pytest.approx(bits, rel=0.1)  # each apart ends in whole bits


@pytest.mark.parametrize("forward", [0.0, 7.0])
def test_smaller_trees_are_what_comes_first(forward):
    tree = grown(24, siblings=True, forward=forward)
    small = grown(10, siblings=True, forward=forward)
    assert tree.parents[:10] == small.parents and max(map(tree.parents.count, tree.parents)) > 1
    assert [one.token for one in tree.drafted[:10]] == [one.token for one in small.drafted]
    for parent in set(tree.parents):  # without replacement
        tokens = [tree.drafted[i].token for i, of in enumerate(tree.parents) if of == parent]
        assert len(set(tokens)) == len(tokens)


class Chunked:
    """A draft whose rows differ by how what stands before them was fed, as real ones' do."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, ...]] = []

    def rollback(self, length: int) -> None:
        kept: list[tuple[int, ...]] = []
        for chunk in self.chunks:
            left = length - sum(map(len, kept))
            kept += [chunk[:left]] if left > 0 else []
        self.chunks = kept

    def forward(self, ids) -> np.ndarray:
        self.chunks.append(tuple(ids))
        return np.random.default_rng([*ids, *map(len, self.chunks)]).normal(size=SIZE)


def test_a_path_has_the_same_row_whatever_was_asked_before_it():
    """A chain's and a tree's own: where they drew from other rows their lines were noise."""
    text, path = [3, 1, 4, 1, 5], [9, 2, 6]
    behind = siblings.Behind(Chunked(), Sampling(), SIZE)
    rows = [behind.law(text, path[:n]) for n in range(4)]
    behind.law(text, [7, 7])
    assert np.array_equal(behind.law(text, path), rows[3])  # all of it at once
    assert np.array_equal(behind.law(text, path[:1]), rows[1])
    # Control: this model tells one way to feed a path from another.
    one, other = Chunked(), Chunked()
    one.forward(text), other.forward(text[:-1])
    one.forward(path[:1]), other.forward([text[-1]])
    assert not np.array_equal(one.forward(path[1:]), other.forward(path[:2]))


def test_where_a_forward_costs_more_there_are_fewer():
    few, many = (grown(24, siblings=True, forward=forward) for forward in (7.0, 0.0))
    assert few.forwards()[-1] < many.forwards()[-1]


def test_chances_are_of_what_the_target_says():
    """All of the first path, where it says the same; nothing, where it never says its first."""
    tree = grown(24, siblings=True)
    paths = [tree.path(node) for node in (ROOT, *range(24))]
    leading = [node for node in range(24) if all(map(partial(is_first, tree), line(tree, node)))]
    found = trees.accepted(tree, [sent(path) for path in paths], Chances())
    assert [found[node] for node in leading] == pytest.approx([1.0] * len(leading))
    assert sum(found) == pytest.approx(len(leading)) and 1 < len(leading) < 24
    never = np.where(np.arange(SIZE) == tree.drafted[0].token, 0.0, 1.0 / (SIZE - 1))
    found = trees.accepted(tree, [never] * len(paths), Chances())
    assert found[0] == found[leading[-1]] == 0.0 and sum(found) > 0.0


def sent(path: list[int]) -> np.ndarray:
    """q̂, (V,)."""
    q, reach = np.zeros(SIZE), 1.0
    for row in SCHEME.rows(law(path)):
        q[row.ids] = reach * row.probabilities()
        reach *= row.rest / row.total
    return q


def is_first(tree: Tree, node: int) -> bool:
    return tree.parents.index(tree.parents[node]) == node


def line(tree: Tree, node: int) -> list[int]:
    """A proposal, and all that it follows."""
    found = []
    while node != ROOT:
        found.append(node)
        node = tree.parents[node]
    return found


def test_the_fastest_size_is_found():
    means = {"tokens": [1.5, 2.0, 2.1], "forwards": [1.0, 2.0, 2.0], "bits": [10.0, 20.0, 30.0]}
    costs = Costs(0.1, 1.0, 1.0, rtt_s=0.5, uplink_s=0.01)
    rate, rows = siblings.fastest(means, costs, row_s=0.05)
    assert rows == 2 and rate == pytest.approx(2.0 / (0.2 + 0.2 + 1.5 + 0.1))


def test_a_gain_is_of_all_texts_together():
    kinds = {name: siblings.Kind() for name in siblings.KINDS}
    for name, tokens in (("chain", (2.0, 4.0)), ("tree", (3.0, 4.0))):
        kinds[name].tokens = [[np.array([0.0, each])] for each in tokens]
    gain, error = siblings.gains(kinds, "tree", 2)
    assert gain == pytest.approx(7 / 6 - 1) and error > 0.0
