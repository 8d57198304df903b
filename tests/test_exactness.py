"""The text is distributed exactly as the target's own: enumerated, and drawn.

Enumeration goes through the real truncation, rounding, coding, accept and residual code. Each wrong
variant, the mistakes of published systems, must fail the drawn test at a configuration whose power
is computed from the variant's own enumerated law.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bs_runtime.generation import Generation
from device_runtime.drafter import Drafter
from draftlink import frames, noise, sampling, sparse
from draftlink.sampling import Sampling
from draftlink.schemes import topk
from draftlink.schemes.topk import TopK
from tests.fakes import FakeModel, FakeTarget, fake_device, random_logits, served, softmax

AT_ONE = Sampling()
ERROR_RATE = 1e-6  # of each drawn test of the true code; seeds are fixed, so it is paid once


def accept_probability(p: np.ndarray, drafted: topk.Drafted) -> float:
    """The measure of the uniforms that the real test accepts, by bisection to the last bit."""
    low, high = 0.0, 1.0
    if topk.accepted(p, drafted, np.nextafter(1.0, 0.0)):
        return 1.0
    while high - low > 1e-16 and (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if topk.accepted(p, drafted, middle) else (low, middle)
    return low


def position_law(p: np.ndarray, q: np.ndarray, scheme: TopK) -> np.ndarray:
    """The law of the token at a drafted position, through the bytes of the frame."""
    row = topk.propose(q, scheme)
    law = np.zeros(len(p))
    for index in range(len(row.ids)):
        payload, _ = topk.encode([topk.Drafted(row, index)], scheme, len(p))
        (drafted,) = topk.decode(payload, 1, scheme, len(p))
        share = row.counts[index] / row.total
        accept = accept_probability(p, drafted)
        law[drafted.token] += share * accept
        if accept < 1.0:
            rest = topk.residual(p, drafted)
            law += share * (1.0 - accept) * rest / rest.sum()
    return law


def cases():
    for seed in range(40):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(2, 7))
        target, draft = random_logits(seed, size, 3.0), random_logits(seed + 1000, size, 3.0)
        if seed % 4 == 0:  # mass on one side where the other has none
            target[:, 0] = -np.inf
            draft[:, -1] = -np.inf
        coding = ("lattice", "fp16")[seed % 2]
        total = int(rng.choice([1, 2, 7, 64, 1000]))
        yield (
            target,
            draft,
            TopK(int(rng.integers(1, size + 1)), total, coding),
            float(rng.choice([0.3, 0.7, 1.0, 2.0])),
        )


@pytest.mark.parametrize("target, draft, scheme, temperature", list(cases()))
def test_the_law_of_two_tokens_is_the_targets(target, draft, scheme, temperature):
    params = Sampling(temperature=temperature)
    size = len(target)
    worst = 0.0
    for start in range(size):
        p1 = sampling.distribution(target[start], params, ())
        first = position_law(p1, sampling.distribution(draft[start], params, ()), scheme)
        for token in np.flatnonzero(first > 0):
            p2 = sampling.distribution(target[token], params, ())
            second = position_law(p2, sampling.distribution(draft[token], params, ()), scheme)
            worst = max(worst, float(np.abs(first[token] * second - p1[token] * p2).max()))
        worst = max(worst, float(np.abs(first - p1).max()))
    assert worst < 1e-9


def test_the_enumeration_can_fail():
    """Negative control: an inverted ratio is far from the target's law."""
    p, q = softmax(random_logits(1, 5)[0]), softmax(random_logits(2, 5)[0])
    right = topk.accepted
    try:
        topk.accepted = lambda p, d, u: u * p[d.token] * d.row.total < d.row.counts[d.index]
        assert np.abs(position_law(p, q, TopK(3, 16)) - p).max() > 1e-2
    finally:
        topk.accepted = right


# --- Drawn: the device's and the base station's code, without the socket between them ---


def draw_pairs(p: np.ndarray, q: np.ndarray, scheme: TopK, count: int) -> np.ndarray:
    """Counts (V, V) of two-token texts after token 0, at γ = 1, every token after an equal row."""
    size = len(p)
    target = np.tile(np.log(p), (size, 1))
    draft = np.tile(np.log(q), (size, 1))
    found = np.zeros((size, size), dtype=np.int64)
    for seed in range(count):
        start = frames.Start(1, 0, [0], AT_ONE, scheme, "stop-and-wait", 2, [], seed)
        slot = FakeModel(target, rows=True)
        station = Generation(slot, start, [0], size, 1 << 20)
        key = noise.key_from_seed(seed, "device")
        drafter = Drafter(FakeModel(draft, rows=False), AT_ONE, scheme, size, key)
        history = [0]
        station.prefill()
        while len(history) < 3:
            block = drafter.draft(history, min(1, 2 - len(history)))
            frame = frames.Draft(0, len(history), len(block.tokens), block.payload)
            verdict = station.judge(station.decode(frame))
            history += block.tokens[: verdict.accepted]
            drafter.settle(len(history))
            if verdict.next is not None:
                history.append(verdict.next)
        found[history[1], history[2]] += 1
    return found


def chi_square(found: np.ndarray, law: np.ndarray) -> float:
    """The p-value of counts against a law, cells pooled to an expected count of 10 or more."""
    expected = law.ravel() * found.sum()
    order = np.argsort(expected)
    expected, found = expected[order], found.ravel()[order]
    edges = np.searchsorted(np.cumsum(expected), 10.0) + 1  # the smallest cells become one
    e = np.concatenate([[expected[:edges].sum()], expected[edges:]])
    f = np.concatenate([[found[:edges].sum()], found[edges:]])
    keep = e >= 10.0
    e = np.concatenate([e[keep], [e[~keep].sum()]]) if not keep.all() else e
    f = np.concatenate([f[keep], [f[~keep].sum()]]) if not keep.all() else f
    f, e = f[e > 0], e[e > 0]
    return float(stats.chi2.sf(((f - e) ** 2 / e).sum(), len(e) - 1))


def power(wrong: np.ndarray, right: np.ndarray, count: int) -> float:
    """Chance that ``count`` draws from ``wrong`` fail the test against ``right`` at ERROR_RATE."""
    freedom = right.size - 1
    limit = stats.chi2.isf(ERROR_RATE, freedom)
    distance = count * float(((wrong - right) ** 2 / right).sum())
    return float(stats.ncx2.sf(limit, freedom, distance))


P = np.array([0.05, 0.40, 0.15, 0.25, 0.15])
Q = np.array([0.30, 0.14, 0.36, 0.12, 0.08])
SCHEME = TopK(4, 5)  # cuts target mass off, and rounds coarsely
DRAWS = 4000


def test_drawn_pairs_follow_the_target():
    found = draw_pairs(P, Q, SCHEME, DRAWS)
    assert chi_square(found, np.outer(P, P)) > ERROR_RATE


def zeroed(p: np.ndarray, drafted: topk.Drafted) -> np.ndarray:
    """Wrong: the residual only zeroes the rejected token."""
    rest = p.copy()
    rest[drafted.token] = 0.0
    return rest


def residual_law(residual: Callable, q: np.ndarray) -> np.ndarray:
    """The law of the first token, drawn from ``q`` over the row's ids, judged by the row."""
    row = topk.propose(Q, SCHEME)
    law = np.zeros(len(P))
    for index, token in enumerate(row.ids):
        drafted = topk.Drafted(row, index)
        accept = accept_probability(P, drafted)
        law[token] += q[index] * accept
        rest = residual(P, drafted)
        law += q[index] * (1 - accept) * rest / rest.sum()
    return law


def unrounded() -> np.ndarray:
    row = topk.propose(Q, SCHEME)
    return Q[row.ids] / Q[row.ids].sum()


def test_zeroing_the_rejected_token_fails(monkeypatch):
    wrong = residual_law(zeroed, topk.propose(Q, SCHEME).probabilities())
    assert power(np.outer(wrong, P), np.outer(P, P), DRAWS) >= 0.999
    monkeypatch.setattr(topk, "residual", zeroed)
    assert chi_square(draw_pairs(P, Q, SCHEME, DRAWS), np.outer(P, P)) < ERROR_RATE


def test_drawing_first_and_rounding_afterwards_fails(monkeypatch):
    wrong = residual_law(topk.residual, unrounded())
    count = 3 * DRAWS
    assert power(np.outer(wrong, P), np.outer(P, P), count) >= 0.999
    edges = np.cumsum(unrounded())
    monkeypatch.setattr(
        sparse.SparseRow,
        "draw",
        lambda row, number: min(
            int(np.searchsorted(edges, (number + 0.5) / row.total, side="right")), len(edges) - 1
        ),
    )
    # More numbers than ℓ, so that the unrounded distribution can be drawn from.
    fine = noise.below
    monkeypatch.setattr(
        noise, "below", lambda key, at, why, total: fine(key, at, why, 1 << 20) * total / (1 << 20)
    )
    assert chi_square(draw_pairs(P, Q, SCHEME, count), np.outer(P, P)) < ERROR_RATE


def test_withholding_an_unlikely_drawn_token_fails(monkeypatch):
    row = topk.propose(Q, SCHEME)
    q = row.probabilities()
    withheld = q < 0.25
    assert withheld.any()
    kept = residual_law(topk.residual, np.where(withheld, 0.0, q))
    wrong = kept + q[withheld].sum() * P
    assert power(np.outer(wrong, P), np.outer(P, P), DRAWS) >= 0.999
    honest = Drafter.draft

    def shy(self, history, count):
        block = honest(self, history, count)
        if count and q[list(row.ids).index(block.tokens[0])] < 0.25:
            self.settle(len(history))
            return replace(block, tokens=[], payload=b"", bits=0)
        return block

    monkeypatch.setattr(Drafter, "draft", shy)
    assert chi_square(draw_pairs(P, Q, SCHEME, DRAWS), np.outer(P, P)) < ERROR_RATE


# --- Drawn: over real sockets ---


def transitions(size: int, scheme: TopK, gamma: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Counts (V, V) of token after token in ``count`` tokens written over a socket; the law."""
    table = random_logits(7, size, 1.0)
    draft = table + np.random.default_rng(8).normal(0.0, 0.7, table.shape)
    found = np.zeros((size, size), dtype=np.int64)

    async def run(url: str) -> None:
        async with fake_device(url, draft) as device:
            for seed in range(count // 200):
                generation = device.generate(
                    [0], max_tokens=200, scheme=scheme, gamma=gamma, seed=seed
                )
                tokens = [0, *[token.id async for token in generation]]
                np.add.at(found, (tokens[:-1], tokens[1:]), 1)

    with served(FakeTarget(table)) as url:
        asyncio.run(run(url))
    return found, softmax(table)


@pytest.mark.parametrize(
    "count", [20_000, pytest.param(200_000, marks=pytest.mark.full)], ids=["20k", "200k"]
)
def test_what_comes_over_sockets_follows_the_target(count):
    found, law = transitions(6, TopK(3, 16), 4, count)
    for before in range(len(law)):
        assert chi_square(found[before], law[before]) > ERROR_RATE


def test_the_same_over_sockets_fails_with_a_wrong_residual(monkeypatch):
    monkeypatch.setattr(topk, "residual", zeroed)
    found, law = transitions(6, TopK(3, 16), 4, 20_000)
    assert min(chi_square(found[b], law[b]) for b in range(len(law))) < ERROR_RATE
