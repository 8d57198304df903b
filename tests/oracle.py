"""Exact laws: replay a random program once per outcome of its draws, each with its probability."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import torch

from bs_runtime.engine.generation import Generation, Round
from bs_runtime.verify import recovery, verify
from bs_runtime.verify.job import Outcome
from device_runtime.drafting.drafter import Drafter, Missed
from draftlink.distribution import gumbel, noise, sampling, sparse
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.schemes import AnyScheme, split
from tests.fake_models import FakeModel
from tests.fakes import FakeTarget, stepped


class Oracle:
    """Answers draws from a script, and goes through all scripts."""

    def __init__(self) -> None:
        self._script: list[list[tuple[int, float]]] = []  # per draw, the outcomes still to come
        self._at = 0
        self.probability = 1.0

    def choose(self, weights: Sequence[float] | np.ndarray) -> int:
        """An index, with its share of the weights."""
        if self._at == len(self._script):
            w = np.asarray(weights, dtype=np.float64)
            self._script.append([(int(i), float(w[i] / w.sum())) for i in np.flatnonzero(w)])
        outcome, share = self._script[self._at][0]
        self._at += 1
        self.probability *= share
        return outcome

    def law(self, program: Callable[[], tuple[int, ...]]) -> dict[tuple[int, ...], float]:
        """The probability of everything that ``program`` can return."""
        found: dict[tuple[int, ...], float] = {}
        while True:
            self._at, self.probability = 0, 1.0
            result = program()
            found[result] = found.get(result, 0.0) + self.probability
            while self._script and len(self._script[-1]) == 1:
                self._script.pop()
            if not self._script:
                return found
            self._script[-1].pop(0)


def accept_probability(p: float, drafted: sparse.Drafted, accepts: Callable) -> float:
    """The measure of the uniforms that the real test accepts, by bisection to the last bit."""
    at = torch.tensor([p], dtype=torch.float64)

    def stands(uniform: float) -> bool:
        return bool(accepts(at, [drafted], [uniform])[0])

    low, high = 0.0, 1.0
    if stands(np.nextafter(1.0, 0.0)):
        return 1.0
    while high - low > 1e-16 and (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if stands(middle) else (low, middle)
    return low


def install(monkeypatch, oracle: Oracle) -> None:
    """Put the oracle in the place of every random number; the code around them is the real one."""
    accepts = verify.accepts

    def scripted_accepts(p: torch.Tensor, drafted: Sequence[sparse.Drafted], uniforms: object):
        stands: list[bool] = []
        for value, token in zip(p.tolist(), drafted, strict=True):
            if not all(stands):  # behind a rejection nothing is looked at
                stands.append(False)
                continue
            a = accept_probability(value, token, accepts)
            stands.append(oracle.choose([1.0 - a, a]) == 1)
        return torch.tensor(stands)

    def pick(self: object, position: int, p: np.ndarray) -> int:
        # What the base station picks stands, whatever the device picked: no coupling is needed.
        return oracle.choose(p)

    monkeypatch.setattr(verify, "accepts", scripted_accepts)
    monkeypatch.setattr(
        verify, "draw", lambda weights, u: [oracle.choose(row) for row in weights.numpy()]
    )
    really = split.stands

    def stands(share: float, drafted: float, uniform: float) -> bool:
        low, high = 0.0, 1.0  # the measure of the uniforms that the real test takes
        while high - low > 1e-16 and (middle := (low + high) / 2) not in (low, high):
            taken = really(share, drafted, middle)
            low, high = (middle, high) if taken else (low, middle)
        return oracle.choose([1.0 - low, low]) == 1

    monkeypatch.setattr(split, "stands", stands)
    monkeypatch.setattr(
        recovery, "draws", lambda p, uniforms: [oracle.choose(p.numpy()) for _ in uniforms]
    )
    monkeypatch.setattr(sampling, "draw", lambda weights, u: oracle.choose(weights))
    monkeypatch.setattr(
        sparse.SparseRow, "draw", lambda row, number: oracle.choose([*row.counts, row.rest])
    )
    monkeypatch.setattr(gumbel.Race, "pick", pick)
    monkeypatch.setattr(
        verify, "pick_many", lambda keys, positions, p: np.array([oracle.choose(row) for row in p])
    )


def run(model: FakeTarget, round: Round) -> Outcome:
    """A round alone, in one step."""
    (outcome,) = stepped(model, [(round, round.left)])
    assert outcome is not None
    return outcome


def write(
    target: np.ndarray,
    draft: np.ndarray,
    scheme: AnyScheme,
    params: Sampling,
    gamma: int,
    length: int,
    seed: int = 0,
    suppressed: Sequence[int] = (),
) -> tuple[int, ...]:
    """A text of ``length`` tokens after token 0: both ends' real code, without a socket.

    ``target``, ``draft``: logits (V, V), which the last token chooses the row of.
    """
    size = len(target)
    start = frames.Start(
        *(1, 0, [0], params, scheme, "draft", length, [], seed),
        suppressed_ids=list(suppressed) or msgspec.UNSET,
    )
    model = FakeTarget(target)
    station = Generation(model.open(), start, [0], size, 1 << 20, bytes(32))
    role = "coupled" if scheme.shares_seed else "device"
    drafter = Drafter(FakeModel(draft, rows=False), start, size, noise.key_from_seed(seed, role))
    run(model, station.prompt())
    history, owed = [0], None
    while len(history) <= length:
        proposals = drafter.propose(list(history), min(gamma, length - len(history)), len(history))
        drafted = [proposal.drafted for proposal in proposals]
        payload, _ = drafter.encode(history, drafted)
        frame = frames.Draft(0, len(history), len(drafted), payload, owed)
        verdict = run(model, station.draft(station.decode([frame]), owed))
        history += [d.token for d in drafted[: verdict.accepted]]
        drafter.rollback(len(history))
        owed, following = None, verdict.next
        if verdict.row:
            rejected, row = drafted[verdict.accepted], verdict.row
            found = drafter.correct(history, rejected, row)
            while isinstance(found, Missed):
                row = run(model, station.draft([], had=found.had)).row
                found = drafter.correct(history, rejected, row, found.had)
            following = owed = found
        if following is not None:
            history.append(following)
    return tuple(history[1:])
