"""Proposals without replacement, enumerated through both ends' code: the target's law to 1e-9.

Truncation, rounding, drawing, what is left of rows, judging and residuals are the real ones. A
random number is what it is in the real thing too: one for each key, of which an outcome tells no
more than the interval that it lies in; so mistakes that share a number are seen for what they do.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from bs_runtime.verify import nested
from bs_runtime.verify import siblings as judging
from draftlink.distribution import siblings as drawing
from draftlink.distribution.siblings import ROOT, Siblings, numbers, rebuilt, without
from draftlink.distribution.sparse import Drafted, SparseRow
from draftlink.schemes.topk import TopK
from tests.oracle import Oracle

REAL_STANDS = judging.stands


class Numbers:
    """Uniform numbers by key. Of each only the interval is known that it has been found in."""

    def __init__(self, oracle: Oracle) -> None:
        self._oracle = oracle
        self._known: dict[tuple, tuple[float, float]] = {}

    def part(self, key: tuple, edges: list[float]) -> int:
        """Which part of [0, 1), cut at ``edges``, holds the number."""
        low, high = self._known.get(key, (0.0, 1.0))
        parts = [(max(low, a), min(high, b)) for a, b in itertools.pairwise([0.0, *edges, 1.0])]
        index = self._oracle.choose([max(0.0, b - a) for a, b in parts])
        self._known[key] = parts[index]
        return index

    def below(self, device: Siblings, key: tuple) -> Callable[[int, int], int]:
        """Draws of one proposal, as ``Siblings.draw`` wants them."""

        def below(total: int, tier: int) -> int:
            edges = np.cumsum(device.left[tier].counts)
            part = self.part((*key, tier), [edge / total for edge in edges.tolist()])
            return int(edges[part - 1]) if part else 0

        return below

    def stands(self, wanted: float, drafted: Drafted, key: tuple) -> bool:
        """The real test, whose uniforms are scripted by their key."""
        low, high = 0.0, 1.0
        if REAL_STANDS(wanted, drafted, np.nextafter(1.0, 0.0)):
            low = 1.0
        while high - low > 1e-16 and (middle := (low + high) / 2) not in (low, high):
            taken = REAL_STANDS(wanted, drafted, middle)
            low, high = (middle, high) if taken else (low, middle)
        return self.part(key, [low]) == 0


@pytest.fixture(autouse=True)
def script(monkeypatch):
    """The oracle; ``stands`` asks it where it is given a key in the place of a number."""
    oracle = Oracle()
    held = {}

    def stands(wanted, drafted, key):
        return held["numbers"].stands(wanted, drafted, key)

    monkeypatch.setattr(judging, "stands", stands)
    return oracle, held


def law_of(script, program) -> dict[tuple[int, ...], float]:
    oracle, held = script

    def once() -> tuple[int, ...]:
        held["numbers"] = Numbers(oracle)
        return program(oracle, held["numbers"])

    return oracle.law(once)


def position(p, q, scheme, more, accept=lambda i: ("accept", i)):
    """One position: what both ends make of it. ``more(drafted)``: whether one more is drawn."""

    def program(oracle: Oracle, numbers: Numbers) -> tuple[int, ...]:
        device, drafted = Siblings(scheme.rows(q)), []
        while device.more and more(drafted):
            drafted.append(device.draw(numbers.below(device, ("draft", len(drafted)))))
        sent = rebuilt(device.known, [(len(one.above), one.token) for one in drafted])
        found, law = judging.judge(p, sent, [accept(i) for i in range(len(sent))])
        return (sent[found].token if found is not None else oracle.choose(law),)

    return program


def worst(found: dict, wanted: dict) -> float:
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-12)
    return max(abs(found.get(text, 0.0) - wanted.get(text, 0.0)) for text in {*found, *wanted})


def off(script, p, program) -> float:
    return worst(law_of(script, program), {(i,): float(each) for i, each in enumerate(p)})


def pair_of(seed: int, size: int):
    """p and q, unrelated; of some p an id has none, of some q the one before it."""
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(size)), rng.dirichlet(np.full(size, 0.7))
    if seed % 3 == 0:
        p[0] = 0.0
    if seed % 4 == 0:
        q[-1] = 0.0
    return p / p.sum(), q / q.sum()


def up_to(count: int):
    return lambda drafted: len(drafted) < count


def by_what_was_drawn(drafted) -> bool:
    """A rule that looks at all that is there: legal, as it comes before the draw."""
    return len(drafted) < (3 if not drafted or drafted[0].token % 2 else 2)


RULES = {"two": up_to(2), "three": up_to(3), "all": up_to(9), "by value": by_what_was_drawn}
ONE_ROW = [TopK(2, 5, tiers=1), TopK(6, 7, tiers=1), TopK(4, 64, tiers=1)]
TIERS = [TopK(1, 3, tiers=3), TopK(1, 8, tiers=3), TopK(2, 7, tiers=3), TopK(1, 4, tiers=2)]


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@pytest.mark.parametrize("scheme", [*ONE_ROW, *TIERS], ids=str)
def test_the_law_of_siblings_is_the_targets(script, scheme, rule):
    for seed, size in ((0, 4), (1, 5), (2, 4), (3, 6), (4, 5)):
        if rule is RULES["all"] and size == 6:
            continue  # seven hundred orders and more
        p, q = pair_of(seed, size)
        scheme.check(9)
        assert off(script, p, position(p, q, scheme, rule)) < 1e-9, (seed, size)


def test_the_law_where_the_prior_draws_too(script):
    """Behind the last row, of which a second may come."""
    scheme = TopK(1, 2, tiers=2)
    p, q = pair_of(5, 6)
    assert [len(row.ids) for row in scheme.rows(np.full(6, 1 / 6))] == [0, 2, 4]
    assert off(script, p, position(p, np.full(6, 1 / 6), scheme, up_to(3))) < 1e-9
    assert off(script, p, position(p, q, scheme, up_to(2))) < 1e-9


def test_a_target_like_its_draft_accepts_the_first(script):
    p = np.array([5, 2, 1]) / 8
    assert off(script, p, position(p, p, TopK(3, 8, tiers=1), up_to(2))) < 1e-9


# Mistakes that are easily made, each seen by the same enumeration.

WRONG = [(1, 4), (2, 5), (7, 4)]


def off_at_most(script, scheme, rule=RULES["three"], **options) -> float:
    found = []
    for seed, size in WRONG:
        p, q = pair_of(seed, size)
        found.append(off(script, p, position(p, q, scheme, rule, **options)))
    return max(found)


BOTH = pytest.mark.parametrize("scheme", [TopK(4, 16, tiers=1), TopK(1, 8, tiers=3)], ids=str)


@BOTH
def test_a_sibling_that_is_dropped_after_its_draw(script, monkeypatch, scheme):
    """The device sends no sibling that it thinks unlikely."""
    real = rebuilt

    def dropping(rows, drawn):
        sent = real(rows, drawn)
        return [one for i, one in enumerate(sent) if not i or one.token % 2]

    monkeypatch.setitem(globals(), "rebuilt", dropping)
    assert off_at_most(script, scheme) > 1e-3


@BOTH
def test_a_base_station_may_judge_fewer_by_count(script, monkeypatch, scheme):
    """The other side of it: not for what they are."""
    real = rebuilt
    monkeypatch.setitem(globals(), "rebuilt", lambda rows, drawn: real(rows, drawn)[:2])
    assert off_at_most(script, scheme) < 1e-9


def rebuilds_with(monkeypatch, kept) -> None:
    """The base station alone takes a token out of rows by ``kept``, a wrong way to do it."""
    rebuilt_really = rebuilt

    def sent(rows, drawn):
        with monkeypatch.context() as patch:
            patch.setattr(drawing, "without", kept)
            return rebuilt_really(rows, drawn)

    monkeypatch.setitem(globals(), "rebuilt", sent)


@BOTH
def test_rows_that_are_not_renormalised(script, monkeypatch, scheme):
    """The base station judges the second by the count it had, over the total of before."""

    def kept(rows, depth, token):
        left = [*without(rows, depth, token)]
        if depth < len(left):
            row, was = left[depth], rows[depth]
            left[depth] = SparseRow(row.ids, row.counts, was.total, row.rest)
        return tuple(left)

    rebuilds_with(monkeypatch, kept)
    assert off_at_most(script, scheme) > 1e-3


@BOTH
def test_one_accept_number_for_siblings(script, scheme):
    assert off_at_most(script, scheme, accept=lambda i: ("accept", 0)) > 1e-3


@BOTH
def test_a_residual_that_is_not_normalised(script, monkeypatch, scheme):
    def judge(p, drafted, uniforms):
        law = p
        for place, one in enumerate(drafted):
            if judging.stands(nested.wanted(law, one), one, uniforms[place]):
                return place, law
            law = nested.residual(law, one.path(len(p)))
        return None, law

    monkeypatch.setattr(judging, "judge", judge)
    assert off_at_most(script, scheme) > 1e-3


@BOTH
def test_siblings_that_are_judged_by_the_targets_own_law(script, monkeypatch, scheme):
    """Each by p, as if those before it had not been rejected."""

    def judge(p, drafted, uniforms):
        for place, one in enumerate(drafted):
            if judging.stands(nested.wanted(p, one), one, uniforms[place]):
                return place, p
        rest = nested.residual(p, drafted[-1].path(len(p)))
        return None, rest / rest.sum()

    monkeypatch.setattr(judging, "judge", judge)
    assert off_at_most(script, scheme) > 1e-3


def test_rows_below_that_are_drawn_from_as_if_there_were_some(script, monkeypatch):
    """A rest is not 0 where the row below it is empty: who judges it by that is wrong."""

    def kept(rows, depth, token):
        row = rows[depth]
        there = row.ids != token
        left = list(rows)
        total = int(row.counts[there].sum()) + row.rest
        left[depth] = SparseRow(row.ids[there], row.counts[there], total, row.rest)
        return tuple(left)

    rebuilds_with(monkeypatch, kept)
    scheme = TopK(1, 3, tiers=2)
    p, q = np.array([0.6, 0.1, 0.1, 0.2]), np.array([0.45, 0.35, 0.2, 0.0])
    assert [len(row.ids) for row in scheme.rows(q)] == [1, 2]
    assert off(script, p, position(p, q, scheme, up_to(3))) > 1e-3


# Trees: positions behind one another, proposals that follow others.

PLAIN = TopK(2, 4, tiers=1)


def walked(p, q, scheme, rule, numbered=numbers, judged=lambda depth, number: number):
    """Two positions and one behind them; p and q (V, V), by the last token, 0 at first.

    ``rule(drafted, parents)``: which proposal gets one more child, or ``ROOT``; None for no more.
    """

    def program(oracle: Oracle, uniforms: Numbers) -> tuple[int, ...]:
        parents, devices, drafted = [], {}, []
        while (parent := rule(drafted, parents)) is not None:
            parents.append(parent)
            last = 0 if parent == ROOT else drafted[parent].token
            device = devices.setdefault(parent, Siblings(scheme.rows(q[last])))
            depth, number = numbered(parents)[-1]
            drafted.append(device.draw(uniforms.below(device, ("draft", depth, number))))
        places = numbered(parents)

        def law(node: int):
            return p[0 if node == ROOT else drafted[node].token]

        keys = [("accept", depth, judged(depth, number)) for depth, number in places]
        path, behind = judging.walk(law, parents, drafted, keys)
        text = [*(drafted[node].token for node in path), oracle.choose(behind)]
        while len(text) < 3:
            text.append(oracle.choose(p[text[-1]]))
        return tuple(text)

    return program


def off_tree(script, seed: int, size: int, scheme=PLAIN, rule=None, **options) -> float:
    rng = np.random.default_rng(seed)
    p, q = rng.dirichlet(np.ones(size), size), rng.dirichlet(np.full(size, 0.8), size)
    program = walked(p, q, scheme, rule or cousins, **options)
    found = law_of(script, program)
    wanted = {
        (a, b, c): float(p[0, a] * p[a, b] * p[b, c])
        for a, b, c in itertools.product(range(size), repeat=3)
    }
    return worst(found, wanted)


def cousins(drafted, parents):
    """Two for the first position, one behind the first, and two or none behind the second.

    Which it is is decided by what the first's came to be: legal with numbers of its own alone.
    """
    if len(drafted) < 2:
        return ROOT if not drafted or drafted[0].row.counts.size > 1 else None
    if len(drafted) == 2:
        return 0
    behind = 2 if drafted[2].count * 2 > drafted[2].total else 0
    room = 1  # of the second's rows no more is known than that they list an id
    return 1 if len(drafted) - 3 < min(behind, room) else None


def by_rank(parents):
    """The mistake: a proposal's number is its rank among its siblings."""
    found = []
    for node, (depth, _) in enumerate(numbers(parents)):
        found.append((depth, parents[:node].count(parents[node])))
    return found


@pytest.mark.parametrize("scheme", [PLAIN, TopK(3, 5, tiers=1), TopK(1, 3, tiers=2)], ids=str)
def test_the_law_of_a_tree_with_cousins_is_the_targets(script, scheme):
    for seed, size in ((1, 3), (2, 3), (3, 4)):
        assert off_tree(script, seed, size, scheme) < 1e-9


def test_cousins_that_are_drawn_with_one_number(script):
    """Where one is drawn if the other was the rarer id, .72 is written in the place of .6.

    With p = (.4, .6) and q = (.7, .3) everywhere. Behind the second of the first position's, which
    is come to with .3, its own number has then decided that the cousin is drawn.
    """
    p, q = np.array([[0.4, 0.6]] * 2), np.array([[0.7, 0.3]] * 2)

    def rule(drafted, parents):
        if len(drafted) < 3:
            return (ROOT, ROOT, 0)[len(drafted)]
        return 1 if len(drafted) == 3 and drafted[2].token == 1 else None

    def both_rarer(numbered) -> float:
        found = law_of(script, walked(p, q, TopK(2, 10, tiers=1), rule, numbered))
        return sum(share for text, share in found.items() if text[:2] == (1, 1))

    assert both_rarer(numbers) == pytest.approx(0.6 * 0.6, abs=1e-9)
    assert both_rarer(by_rank) == pytest.approx(0.3 * 0.6 + 0.3 * 0.72, abs=1e-9)


def test_one_accept_number_for_the_siblings_of_a_tree(script):
    wrong = {"judged": lambda depth, number: 0}
    assert max(off_tree(script, seed, 3, **wrong) for seed in (1, 2, 3)) > 1e-3


def test_numbers_count_a_positions_proposals():
    parents = [ROOT, ROOT, 0, 1, 1, 2]
    assert numbers(parents) == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 0)]
