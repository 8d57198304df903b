"""The law of texts, enumerated through both ends' real code, equals the target's to 1e-9.

Truncation, rounding, coding, judging, residual, rollback and correction are the real ones; only the
random numbers are scripted, so that every outcome is seen with its exact probability.
"""

from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest
import torch

from bs_runtime.verify import distribution, verify
from draftlink.distribution import sampling
from draftlink.distribution.sampling import Sampling
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.dense import Dense
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK
from tests.fake_models import random_logits
from tests.oracle import Oracle, install, write

LENGTH = 3


def target_law(table: np.ndarray, params: Sampling) -> dict[tuple[int, ...], float]:
    """The law of ``LENGTH`` tokens after token 0, by the definition."""
    law = {}
    for text in itertools.product(range(len(table)), repeat=LENGTH):
        probability, past = 1.0, [0]
        for token in text:
            probability *= sampling.distribution(table[past[-1]], params, past, 1)[token]
            past.append(token)
        law[text] = probability
    return law


def scheme_for(kind: str, rng: np.random.Generator, size: int):
    k, total = int(rng.integers(1, size + 1)), int(rng.choice([1, 2, 7, 64, 1000]))
    if kind == "topk-nested":  # from the first row to the prior, which 6 ids seldom leave room for
        return TopK(int(rng.integers(1, 3)), total, tiers=int(rng.integers(2, 4)))
    if kind == "topk-top-p":
        return TopK(size, total, mass=float(rng.uniform(0.3, 0.95)))
    if kind == "split":
        return Split(k, total)
    if kind.startswith("topk"):
        return TopK(k, total, kind.removeprefix("topk-"), tiers=1)  # type: ignore[arg-type]
    return {"dense": Dense, "coupled": Coupled}[kind]()


KINDS = ["topk-lattice", "topk-fp16", "topk-top-p", "dense", "split", "coupled", "topk-nested"]


def case(kind: str, seed: int):
    rng = np.random.default_rng([seed, KINDS.index(kind)])
    gamma = 1 + seed % 3
    size = int(rng.integers(2, 7 if gamma == 1 else 5 if gamma == 2 else 4))
    target = random_logits(seed, size, 3.0)
    draft = random_logits(seed + 1000, size, 3.0)  # unrelated: far from the target
    if seed % 4 == 0:  # mass on one side where the other has none
        target[:, 0] = -np.inf
        draft[:, -1] = -np.inf
    params = Sampling(
        temperature=float(rng.choice([0.3, 0.7, 1.0, 2.0])),
        top_p=float(rng.choice([1.0, 0.8])),
        top_k=int(rng.choice([0, 2])),
        min_p=float(rng.choice([0.0, 0.1])),
        repetition_penalty=float(rng.choice([1.0, 1.3])),
    )
    return target, draft, scheme_for(kind, rng, size), params, gamma


def worst_difference(found: dict, wanted: dict) -> float:
    return max(abs(found.get(text, 0.0) - wanted.get(text, 0.0)) for text in {*found, *wanted})


@pytest.mark.parametrize(
    "seeds",
    [range(9), pytest.param(range(9, 90), marks=pytest.mark.full)],
    ids=["9 cases", "81 cases"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_law_of_three_tokens_is_the_targets(monkeypatch, kind, seeds):
    oracle = Oracle()
    install(monkeypatch, oracle)
    for seed in seeds:
        arguments = case(kind, seed)
        found = oracle.law(partial(write, *arguments, LENGTH))
        target, _, _, params, _ = arguments
        assert sum(found.values()) == pytest.approx(1.0, abs=1e-12)
        assert worst_difference(found, target_law(target, params)) < 1e-9, (seed, arguments)


def suppressing(seed: int, size: int) -> list[int]:
    """Some of the ids, but not all."""
    rng = np.random.default_rng(seed)
    return sorted(rng.choice(size, rng.integers(1, size), replace=False).tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_suppressed_ids_are_not_in_the_law(monkeypatch, kind):
    """The target's law without them; where either end forgot them it would be another."""
    oracle = Oracle()
    install(monkeypatch, oracle)

    def found(arguments, ids) -> dict:
        return oracle.law(partial(write, *arguments, LENGTH, suppressed=ids))

    cases = []
    for seed in (1, 2, 3, 5, 6):
        arguments = case(kind, seed)
        target, _, _, params, _ = arguments
        ids = suppressing(seed, len(target))
        left = target.copy()
        left[:, ids] = -np.inf
        cases.append((arguments, ids, target_law(left, params)))

    def worst() -> float:
        return max(worst_difference(found(given, ids), wanted) for given, ids, wanted in cases)

    assert worst() < 1e-9
    with monkeypatch.context() as patch:  # control: the base station forgets them
        patch.setattr(verify, "_suppress", lambda *_: False)
        assert worst() > 1e-2
    if kind == "split":  # and the device, which corrects
        monkeypatch.setattr(sampling, "without", lambda logits, ids: logits)
        assert worst() > 1e-2


def changing(seed: int, size: int) -> Sampling:
    """A bias, and penalties over what is written, but not over the prompt."""
    rng = np.random.default_rng(seed)
    ids = sorted(rng.choice(size, min(2, size), replace=False).tolist())
    return Sampling(
        temperature=float(rng.choice([0.7, 1.0])),
        repetition_penalty=1.3,
        frequency_penalty=float(rng.choice([-1.0, 0.7])),
        presence_penalty=float(rng.choice([-0.8, 1.5])),
        logit_bias=tuple((i, float(rng.normal(0.0, 2.0))) for i in ids),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_bias_and_penalties_are_in_the_law(monkeypatch, kind):
    """The target's law with them; where either end forgot one it would be another."""
    oracle = Oracle()
    install(monkeypatch, oracle)
    cases = []
    most = 2 if kind == "coupled" else 3  # whose draws are many
    small = [seed for seed in range(1, 20) if len(case(kind, seed)[0]) <= most]
    for seed in small[:6]:
        target, draft, scheme, _, gamma = case(kind, seed)
        target = target / 3.0  # flat enough for every change to tell
        params = changing(seed, len(target))
        cases.append(((target, draft, scheme, params, gamma), target_law(target, params)))

    def worst() -> float:
        laws = ((oracle.law(partial(write, *given, LENGTH)), wanted) for given, wanted in cases)
        return max(worst_difference(found, wanted) for found, wanted in laws)

    assert worst() < 1e-9
    for name in ("_biased", "_lessened", "_penalised"):  # controls: the base station forgets one
        with monkeypatch.context() as patch:
            patch.setattr(distribution, name, lambda scores, jobs: scores)
            assert worst() > 1e-3, name
    if kind == "split":  # and the device, which corrects
        monkeypatch.setattr(sampling, "penalised", lambda logits, *_: logits)
        assert worst() > 1e-3


def test_the_enumeration_can_fail(monkeypatch):
    """Negative control: an inverted ratio is far from the target's law."""
    monkeypatch.setattr(
        verify,
        "accepts",
        lambda p, d, u: p.new_tensor(u) * p < p.new_tensor(d[0].count / d[0].total),
    )
    oracle = Oracle()
    install(monkeypatch, oracle)
    tables = random_logits(1, 4), random_logits(2, 4)
    found = oracle.law(lambda: write(*tables, TopK(3, 16), Sampling(), 1, LENGTH))
    assert worst_difference(found, target_law(tables[0], Sampling())) > 1e-2


@pytest.mark.parametrize("wrong", ["unscaled", "only the row", "nothing from above"])
def test_nested_rows_are_exact_for_a_reason(monkeypatch, wrong):
    """Negative controls: what each part of judging nested rows is for."""
    residuals = verify.residuals

    def or_the_target(p, rest):
        return torch.where(rest.sum(-1, keepdim=True) > 0, rest, p)

    def unscaled(p, rows, drafted):
        return p[rows, [d.token for d in drafted]]

    def only_the_row(p, drafted):
        """max(0, p − q̂) of what is known of q̂, the rests spread over nothing."""
        rest = p.clone()
        for i, token in enumerate(drafted):
            reach = 1.0
            for row in () if token is None else token.path(p.shape[1]):
                rest[i, row.ids] -= torch.from_numpy(reach * row.probabilities())
                reach *= row.rest / row.total
        return or_the_target(p, rest.clamp(min=0.0))

    def nothing_from_above(p, drafted):
        """An inner row's own residual, though the rows above lack something."""
        rest = residuals(p, drafted)
        for i, token in enumerate(drafted):
            for row in () if token is None else token.above:
                rest[i, row.ids] = 0.0
        return or_the_target(p, rest)

    patches = {
        "unscaled": ("wanted", unscaled),
        "only the row": ("residuals", only_the_row),
        "nothing from above": ("residuals", nothing_from_above),
    }
    oracle = Oracle()
    install(monkeypatch, oracle)
    scheme = TopK(1, 7, tiers=2)
    differences = {False: 0.0, True: 0.0}
    for patched in differences:
        if patched:
            monkeypatch.setattr(verify, *patches[wrong])
        for seed in range(4):
            tables = random_logits(seed, 4), random_logits(seed + 9, 4) / 4  # flat: large rests
            found = oracle.law(partial(write, *tables, scheme, Sampling(), 1, LENGTH))
            difference = worst_difference(found, target_law(tables[0], Sampling()))
            differences[patched] = max(differences[patched], difference)
    assert differences[False] < 1e-9 and differences[True] > 1e-2
