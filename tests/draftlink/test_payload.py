"""Bits in closed form: against enumeration, against what is sent, against published figures."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from draftlink.coding.ids import IdModel
from draftlink.distribution.sparse import Drafted
from draftlink.planning import payload
from draftlink.schemes.topk import TopK


def test_a_lattice_row_s_bits_count_the_rows_that_there_are():
    for vocab, total, entries in [(5, 4, 2), (6, 7, 3), (4, 3, 3), (7, 5, 1)]:
        sets = list(itertools.combinations(range(vocab), entries))
        parts = range(1, total + 1)
        counts = [c for c in itertools.product(parts, repeat=entries) if sum(c) == total]
        found = payload.lattice_bits(vocab, entries, total, k=1, drawn_bits=0.0)
        assert found == pytest.approx(math.log2(len(sets) * len(counts)))
    # K_j out of min(K, ℓ, V), and which of its entries was drawn.
    assert payload.lattice_bits(9, 4, 8, k=4) - payload.lattice_bits(
        9, 4, 8, k=1, drawn_bits=0.0
    ) == pytest.approx(2 + 2)


def test_published_figures():
    assert payload.dense_bits(32_000) == 512_000
    assert payload.id_bits(32_000) == 15
    assert payload.split_bits(32_000) == 31
    assert payload.topk_bits(32_000, 320, "paper") == 5120
    # 9,920 bits of ids and values; K_j and the drawn entry come on top.
    assert payload.topk_bits(32_000, 320, "fp16") == 9920 + 18
    assert payload.topk_bits(32_000, 16, "lattice", 100) == pytest.approx(261, abs=1)


@pytest.mark.parametrize("k", [1, 3, 16, 100])
def test_fp16_is_what_the_scheme_sends(k):
    q = np.random.default_rng(k).dirichlet(np.ones(300))
    scheme = TopK(k, 256, "fp16")
    row = scheme.row(q)
    assert len(row.ids) == k
    _, bits = scheme.encode([Drafted.of(row, 0)], IdModel(300))
    assert bits == payload.topk_bits(300, k, "fp16")


def test_impossible_parameters():
    for vocab, k, total, words in [(9, 0, 4, "k must"), (9, 10, 4, "k must"), (9, 3, 0, "total")]:
        with pytest.raises(ValueError, match=words):
            payload.topk_bits(vocab, k, "lattice", total)
    with pytest.raises(ValueError, match="cannot choose"):
        payload.log2_choose(3, 4)
