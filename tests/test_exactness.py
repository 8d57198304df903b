"""What is drawn follows the target's law; the mistakes of published systems do not.

Each wrong variant must fail the same test as the true code passes, at a configuration whose power
is computed from the variant's own law.
"""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from scipy import stats

from bs_runtime.verify import verify
from device_runtime.drafting.drafter import Drafter
from draftlink.distribution import noise, sparse
from draftlink.distribution.noise import Purpose
from draftlink.distribution.sampling import Sampling
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.dense import Dense
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK
from tests.fake_models import fake_device, random_logits, softmax
from tests.fakes import FakeTarget, served
from tests.oracle import Oracle, install, write

AT_ONE = Sampling()
ERROR_RATE = 1e-6  # of each drawn test of the true code; seeds are fixed, so it is paid once
POWER = 0.999

SCHEMES = {
    "topk": TopK(4, 5, tiers=1),  # cuts target mass off, and rounds coarsely
    "topk-nested": TopK(1, 3, tiers=2),  # a row of one, a row of two, and the prior of the others
    "topk-fp16": TopK(3, 1, "fp16"),
    "topk-top-p": TopK(5, 16, mass=0.6),
    "dense": Dense(),
    "split": Split(4, 5),
    "coupled": Coupled(),
}


def chi_square(found: np.ndarray, law: np.ndarray) -> float:
    """The p-value of counts against a law, cells pooled to an expected count of 10 or more."""
    expected, found = law.ravel() * found.sum(), found.ravel()
    order = np.argsort(expected)
    expected, found = expected[order], found[order]
    small = int(np.searchsorted(np.cumsum(expected), 10.0)) + 1  # the smallest cells become one
    small = max(small, int((expected < 10.0).sum()))
    expected = np.concatenate([[expected[:small].sum()], expected[small:]])
    found = np.concatenate([[found[:small].sum()], found[small:]])
    return float(stats.chi2.sf(((found - expected) ** 2 / expected).sum(), len(expected) - 1))


def power(wrong: np.ndarray, right: np.ndarray, count: int) -> float:
    """Chance that ``count`` draws from ``wrong`` fail the test against ``right`` at ERROR_RATE."""
    freedom = right.size - 1
    limit = stats.chi2.isf(ERROR_RATE, freedom)
    distance = count * float(((wrong - right) ** 2 / right).sum())
    return float(stats.ncx2.sf(limit, freedom, distance))


# --- Both ends' code, without the socket between them ---

P = np.array([0.05, 0.40, 0.15, 0.25, 0.15])
Q = np.array([0.30, 0.14, 0.36, 0.12, 0.08])
SIZE = len(P)
PAIRS = np.outer(P, P)
WRONG = TopK(4, 5, tiers=1)  # what the wrong variants are shown with
DRAWS = 4000


def tables(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits of a target and a draft to which every token is followed by the same row."""
    return np.tile(np.log(p), (len(p), 1)), np.tile(np.log(q), (len(q), 1))


def draw_pairs(p, q, scheme, count: int, gamma: int = 1) -> np.ndarray:
    """Counts (V, V) of two-token texts."""
    found = np.zeros((len(p), len(p)), dtype=np.int64)
    both = tables(p, q)
    for seed in range(count):
        found[write(*both, scheme, AT_ONE, gamma, 2, seed)] += 1
    return found


def enumerated(monkeypatch, scheme=WRONG) -> np.ndarray:
    """The law (V, V) of two tokens at γ = 1, through whatever is patched."""
    law = np.zeros((SIZE, SIZE))
    with monkeypatch.context() as patch:
        oracle = Oracle()
        install(patch, oracle)
        both = tables(P, Q)
        for text, share in oracle.law(lambda: write(*both, scheme, AT_ONE, 1, 2)).items():
            law[text] = share
    return law


def must_fail(wrong: np.ndarray, count: int = DRAWS, scheme=WRONG) -> None:
    assert power(wrong, PAIRS, count) >= POWER
    found = draw_pairs(P, Q, scheme, count)
    assert chi_square(found, PAIRS) < ERROR_RATE
    assert chi_square(found, wrong) > ERROR_RATE  # it fails for the reason that was computed


@pytest.mark.parametrize(
    "count", [DRAWS, pytest.param(200_000, marks=pytest.mark.full)], ids=["4k", "200k"]
)
@pytest.mark.parametrize("name", SCHEMES)
def test_drawn_pairs_follow_the_target(name, count):
    for gamma in (1, 2):
        found = draw_pairs(P, Q, SCHEMES[name], count // 2, gamma)
        assert chi_square(found, PAIRS) > ERROR_RATE


def test_an_inverted_ratio_fails(monkeypatch):
    def inverted(p, drafted, uniforms):
        q = p.new_tensor([d.count / d.total for d in drafted])
        return p.new_tensor(uniforms) * p < q

    monkeypatch.setattr(verify, "accepts", inverted)
    must_fail(enumerated(monkeypatch))


def test_zeroing_the_rejected_token_fails(monkeypatch):
    following = verify._following

    def remembering(p, jobs, accepted, ends, picked):
        rejected = [
            job.drafted[n].token if n < len(job.drafted) else None
            for job, n in zip(jobs, accepted, strict=True)
        ]

        def rest(p, rows):
            (token,) = rejected
            out = p.clone()
            if token is not None:
                out[0, token] = 0.0
            return out

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(verify, "residuals", rest)
            return following(p, jobs, accepted, ends, picked)

    monkeypatch.setattr(verify, "_following", remembering)
    must_fail(enumerated(monkeypatch))


def unrounded(row: sparse.SparseRow) -> np.ndarray:
    return Q[row.ids] / Q[row.ids].sum()


def test_drawing_first_and_rounding_afterwards_fails(monkeypatch):
    with monkeypatch.context() as patch:
        oracle = Oracle()
        install(patch, oracle)
        patch.setattr(sparse.SparseRow, "draw", lambda row, _: oracle.choose(unrounded(row)))
        wrong = np.zeros((SIZE, SIZE))
        for text, share in oracle.law(lambda: write(*tables(P, Q), WRONG, AT_ONE, 1, 2)).items():
            wrong[text] = share
    below = noise.below  # more numbers than ℓ, so that the unrounded row can be drawn from
    monkeypatch.setattr(noise, "below", lambda key, at, why, *_: below(key, at, why, 1 << 20))

    def draw(row, number):
        edges = np.cumsum(unrounded(row))
        return min(int(np.searchsorted(edges, number / (1 << 20), "right")), len(edges) - 1)

    monkeypatch.setattr(sparse.SparseRow, "draw", draw)
    must_fail(wrong, 3 * DRAWS)


def test_verifying_against_the_untruncated_row_fails(monkeypatch):
    def untruncated(p, drafted, uniforms):
        q = p.new_tensor([Q[d.token] for d in drafted])
        return p.new_tensor(uniforms) * q < p

    monkeypatch.setattr(verify, "accepts", untruncated)
    short = TopK(2, 7, tiers=1)  # the more is cut off, the more it shows
    must_fail(enumerated(monkeypatch, short), scheme=short)


def test_one_random_stream_for_drawing_and_accepting_fails(monkeypatch):
    row = WRONG.row(Q)
    q, edges = row.probabilities(), np.cumsum(row.probabilities())
    law = np.zeros(SIZE)
    rest = np.maximum(P - np.bincount(row.ids, q, SIZE), 0.0)
    for token, share, end in zip(row.ids, q, edges, strict=True):
        # The number that drew the token lies in its own stretch of [0, 1), and is used again.
        accept = np.clip(P[token] / share - (end - share), 0.0, share)
        law[token] += accept
        law += (share - accept) * rest / rest.sum()
    key_from_seed, bits64 = noise.key_from_seed, noise.bits64
    monkeypatch.setattr(noise, "key_from_seed", lambda seed, role: key_from_seed(seed, "one"))
    monkeypatch.setattr(noise, "key_of_epoch", lambda key, position: key)
    monkeypatch.setattr(
        noise,
        "bits64",
        lambda key, at, why, tier=0, candidate=0: bits64(
            key, at, Purpose.DRAFT if why is Purpose.ACCEPT else why, tier, candidate
        ),
    )
    must_fail(np.outer(law, P))


def test_each_draw_of_a_nested_row_has_a_number_of_its_own(monkeypatch):
    """Where the rest's number were used again, the inner row would be drawn from its upper end."""
    nested = SCHEMES["topk-nested"]
    law, reach = np.zeros(SIZE), 1.0
    for row in nested.rows(Q):
        law[row.ids] = reach * row.probabilities()
        reach *= row.rest / row.total
    assert law.sum() == pytest.approx(1.0)
    key, bits64 = noise.key_from_seed(1, "device"), noise.bits64

    def drawn() -> np.ndarray:
        tokens = [nested.propose(Q, key, position).token for position in range(DRAWS)]
        return np.bincount(tokens, minlength=SIZE)

    assert chi_square(drawn(), law) > ERROR_RATE
    monkeypatch.setattr(
        noise, "bits64", lambda key, at, why, tier=0, candidate=0: bits64(key, at, why)
    )
    assert chi_square(drawn(), law) < ERROR_RATE


def test_withholding_an_unlikely_drawn_token_fails(monkeypatch):
    row = WRONG.row(Q)
    share = dict(zip(row.ids.tolist(), row.probabilities(), strict=True))
    assert 0.2 in share.values()
    honest = Drafter.propose

    def shy(self, past, count, begins):
        length = len(past)
        drafted = honest(self, past, count, begins)
        if count and share[drafted[0].drafted.token] < 0.25:
            self.rollback(length)
            return []
        return drafted

    monkeypatch.setattr(Drafter, "propose", shy)
    must_fail(enumerated(monkeypatch))


# --- Over real sockets ---


def transitions(
    size: int, scheme, gamma: int, count: int, **options: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Counts (V, V) of token after token in ``count`` tokens written over a socket; the law."""
    table = random_logits(7, size, 1.0)
    draft = table + np.random.default_rng(8).normal(0.0, 0.7, table.shape)
    found = np.zeros((size, size), dtype=np.int64)

    async def run(url: str) -> None:
        async with fake_device(url, draft) as device:
            for seed in range(count // 200):
                generation = device.generate(
                    [0],
                    max_tokens=200,
                    scheme=scheme,
                    mode="stop-and-wait",
                    gamma=gamma,
                    seed=seed,
                    **options,
                )
                tokens = [0, *[token.id async for token in generation]]
                np.add.at(found, (tokens[:-1], tokens[1:]), 1)

    with served(FakeTarget(table)) as url:
        asyncio.run(run(url))
    return found, softmax(table)


OVER_SOCKETS = {
    "topk": TopK(3, 16),
    "topk-flat": TopK(3, 16, tiers=1),
    "topk-fp16": TopK(3, 1, "fp16"),
    "dense": Dense(),
    "split": Split(3, 16),
    "coupled": Coupled(),
}


@pytest.mark.parametrize(
    "count", [10_000, pytest.param(200_000, marks=pytest.mark.full)], ids=["10k", "200k"]
)
@pytest.mark.parametrize("size", [6, 50])
@pytest.mark.parametrize("name", OVER_SOCKETS)
def test_what_comes_over_sockets_follows_the_target(name, size, count):
    found, law = transitions(size, OVER_SOCKETS[name], 4, count)
    before = found.sum(1)
    for token in np.flatnonzero(before >= 20):
        assert chi_square(found[token], law[token]) > ERROR_RATE
    # First tokens, too: each text began after token 0.
    assert before[0] >= count // 200


def test_a_draft_temperature_that_is_learned_changes_nothing_of_the_law():
    found, law = transitions(6, TopK(6, 256), 4, 10_000, learn_temperature=True)
    assert min(chi_square(found[b], law[b]) for b in range(len(law))) > ERROR_RATE


def test_the_same_over_sockets_fails_with_a_wrong_residual(monkeypatch):
    monkeypatch.setattr(verify, "residuals", lambda p, rows: p)
    found, law = transitions(6, TopK(3, 16), 4, 10_000)
    assert min(chi_square(found[b], law[b]) for b in range(len(law))) < ERROR_RATE
