"""``split``'s recovery by pairs, enumerated through both ends' real code: the target's law to 1e-9.

Each control is a mistake that is easily made, and that the same enumeration sees.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from bs_runtime.engine import corrections
from bs_runtime.verify import recovery
from draftlink.distribution import sampling
from draftlink.distribution.sampling import Sampling
from draftlink.schemes import split
from draftlink.schemes.split import Split
from tests.fake_models import random_logits
from tests.oracle import Oracle, install, write

PLAIN = Sampling()


@pytest.fixture
def oracle(monkeypatch):
    """All draws scripted, no p small enough to be sent whole, and one pair sent at first."""
    oracle = Oracle()
    install(monkeypatch, oracle)
    monkeypatch.setattr(split, "FEW", 1)
    monkeypatch.setattr(corrections, "pairs_at_first", lambda size, rejected: 1)
    return oracle


def worst(oracle: Oracle, size: int, pairs: int, params: Sampling = PLAIN) -> float:
    """The worst difference from the target's law of a token, whose draft is far from it.

    One more token follows, which each first one leaves no choice: a correction is sent with it.
    """
    target = np.full((size + 1, size + 1), -np.inf)
    target[:, 0] = 0.0
    target[0] = random_logits(1, size + 1, 1.0)[0]
    draft = np.tile(random_logits(2, size + 1, 1.0)[0], (size + 1, 1))
    target[0, 0] = draft[:, 0] = -np.inf  # which leaves ``size`` ids
    found = oracle.law(partial(write, target, draft, Split(2, 7, pairs), params, 1, 2))
    p = sampling.distribution(target[0], params, [0], 1)
    wanted = {(token, 0): p[token] for token in np.flatnonzero(p).tolist()}
    return max(abs(found.get(text, 0.0) - wanted.get(text, 0.0)) for text in {*found, *wanted})


CASES = [(4, 1), (4, 2), (4, 3), (5, 2), (6, 2)]


@pytest.mark.parametrize(("size", "pairs"), CASES)
def test_the_law_by_pairs_is_the_targets(oracle, size, pairs):
    """The first pair, then the others, then the row: each is come to."""
    assert worst(oracle, size, pairs) < 1e-9


@pytest.mark.parametrize("at_first", [1, 2, 3])
def test_how_many_are_sent_at_once_changes_nothing(oracle, monkeypatch, at_first):
    monkeypatch.setattr(corrections, "pairs_at_first", lambda size, rejected: at_first)
    assert worst(oracle, 4, 3) < 1e-9


@pytest.mark.parametrize("params", [PLAIN, Sampling(0.7, top_k=2), Sampling(top_p=0.8)], ids=str)
def test_the_law_by_all_of_p_is_the_targets(oracle, monkeypatch, params):
    monkeypatch.setattr(split, "FEW", 32)
    assert worst(oracle, 5, 256, params) < 1e-9


def in_order(draws):
    """The pairs in another order than they were drawn in: by id."""
    return sorted(draws)


def likeliest_first(draws):
    return sorted(draws, key=lambda pair: -pair[1])


def each_once(draws):
    """Repeated ids are dropped."""
    return list(dict.fromkeys(draws))


@pytest.mark.parametrize("changed", [in_order, likeliest_first, each_once])
def test_the_order_of_the_pairs_is_part_of_them(oracle, monkeypatch, changed):
    monkeypatch.setattr(corrections, "pairs_at_first", lambda size, rejected: 3)
    recover = split.recover
    monkeypatch.setattr(split, "recover", lambda draws, *rest: recover(changed(draws), *rest))
    assert worst(oracle, 4, 3) > 1e-3


def test_each_pair_is_judged_by_a_number_of_its_own(oracle, monkeypatch):
    """One number for all: a pair is then judged knowing that those before it did not stand."""
    monkeypatch.setattr(corrections, "pairs_at_first", lambda size, rejected: 3)
    monkeypatch.setattr(split, "recover", by_one_number(oracle))
    assert worst(oracle, 4, 3) > 1e-3


def by_one_number(oracle: Oracle):
    def recover(draws, begin, rejected, key, position):
        row = dict(zip(rejected.row.ids.tolist(), rejected.row.probabilities(), strict=True))
        chances = [max(0.0, 1.0 - row.get(token, 0.0) / share) for token, share in draws]
        edges = np.unique([0.0, *chances, 1.0])
        uniform = edges[oracle.choose(np.diff(edges))]
        standing = [token for (token, _), a in zip(draws, chances, strict=True) if uniform < a]
        return standing[0] if standing else None

    return recover


def test_pairs_are_drawn_from_p_and_not_from_what_is_likeliest(oracle, monkeypatch):
    monkeypatch.setattr(
        recovery, "draws", lambda p, us: [oracle.choose(p.numpy() ** 2) for _ in us]
    )
    assert worst(oracle, 4, 2) > 1e-3


def test_behind_the_last_pair_the_row_is_drawn_from_less_the_draft(oracle, monkeypatch):
    monkeypatch.setattr(split, "residual", lambda p, row: p)
    assert worst(oracle, 4, 2) > 1e-3


def test_a_pair_stands_as_often_as_p_exceeds_the_draft(oracle, monkeypatch):
    """Wherever it does, say, or as a drafted token is accepted."""
    for wrong in (
        lambda share, drafted, uniform: share > drafted,
        lambda share, drafted, uniform: uniform * drafted < share,
    ):
        monkeypatch.setattr(split, "stands", judged_by(oracle, wrong))
        assert worst(oracle, 4, 2) > 1e-3


def judged_by(oracle: Oracle, stands):
    def judge(share, drafted, _):
        taken = sum(stands(share, drafted, (i + 0.5) / 1000) for i in range(1000)) / 1000
        return oracle.choose([1.0 - taken, taken]) == 1

    return judge
