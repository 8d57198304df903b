"""Estimates, schedules and the choice of a mode by ``docs/window.md`` alone: nothing of draftlink.

Part of the second reader of the golden window (see ``window_reader``). Every comparison on which a
decision hangs goes through ``less``, ``floor`` or ``nearest``, which note how near to a tie it was.
"""

from __future__ import annotations

import math
from typing import Any


class Ties:
    """The relative distance from a tie of the comparison that came nearest to one."""

    least = math.inf

    @classmethod
    def note(cls, distance: float, scale: float) -> None:
        if scale > 0.0:
            cls.least = min(cls.least, abs(distance) / scale)


def less(a: float, b: float) -> bool:
    if math.isfinite(a) and math.isfinite(b):
        Ties.note(a - b, max(abs(a), abs(b)))
    return a < b


def floor(x: float) -> int:
    Ties.note(x - round(x), max(abs(x), 1.0))
    return math.floor(x)


def nearest(x: float) -> int:
    """The nearest whole number."""
    return floor(x + 0.5)


def smallest(costs: dict[int, float]) -> int:
    """The key with the least cost."""
    best = min(costs, key=lambda key: costs[key])
    assert all(less(costs[best], cost) for key, cost in costs.items() if key != best)
    return best


# Section 2: estimates.

M = 1.0 - 1.0 / 150.0
EDGES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97, 1.0)


class Level:
    """Section 2.1."""

    def __init__(self, punctual: int = 0) -> None:
        self.samples: list[float] = []
        self.punctual = punctual
        self.typical = self.mean = 0.0
        self.beyond, self.weight = 0.0, 8.0

    def add(self, sample: float) -> None:
        sample = max(sample, 1e-6)
        self.samples = [*self.samples, sample][-31:]
        before, last = self.samples[:-3], self.samples[-3:]
        if len(before) >= 3 and (
            less(max(last), min(before) / 2.0) or less(2.0 * max(before), min(last))
        ):
            self.samples = last
        ordered = sorted(self.samples)
        self.typical = self.mean = ordered[(len(ordered) - 1) // 2]
        if len(ordered) >= 8:
            counted = [min(s, 8.0 * self.typical) for s in ordered] + self.punctual * [self.typical]
            self.mean = sum(counted) / len(counted)
        excess = max(min(sample, 8.0 * self.typical) - self.typical, 0.0)
        self.beyond = M * self.beyond + excess
        self.weight = M * self.weight + 1.0


class Work(Level):
    """Section 2.2."""

    def __init__(self) -> None:
        super().__init__()
        self.alone, self.beside = Level(), Level()

    def took(self, sample: float, beside: bool | None) -> None:
        self.add(sample)
        if beside is not None:
            (self.beside if beside else self.alone).add(sample)

    def slowdown(self) -> float:
        number = min(len(self.alone.samples), len(self.beside.samples))
        least = 1.25 if number >= 8 else 1.6
        if number < 3 or less(self.beside.typical, least * self.alone.typical):
            return 1.0
        return self.beside.typical / self.alone.typical

    def lacks(self) -> bool:
        alone, beside = len(self.alone.samples), len(self.beside.samples)
        if beside < 3 or beside > 8 or alone >= beside:
            return False
        if alone < 3:
            return True
        above = not less(self.beside.typical, 1.25 * self.alone.typical)
        return above and less(self.beside.typical, 1.6 * self.alone.typical)

    def cost(self, beside: bool, slowdown: float) -> float:
        if slowdown == 1.0:
            return self.mean
        apart = self.beside if beside else self.alone
        if len(apart.samples) >= 8:
            return apart.mean
        return self.mean * slowdown if beside else self.mean / slowdown


class Estimates:
    """Section 2."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.rtt, self.queue, self.target = Level(8), Level(), Level()
        self.draft, self.verify = Work(), Work()
        self.waited: list[tuple[int, float]] = []
        self.lone: list[tuple[int, float]] = []
        self.stood, self.seen = [0] * 11, [0] * 11
        self.accepted = self.rejected = self.squares = 0.0
        self.doubt = 0.0
        self.doubted: list[bool] = []  # whether each token since it was 0 was accepted
        self.step_s = given.get("step", 0.0)
        for name in ("rtt", "queue", "target"):
            for sample in given.get(name, []):
                getattr(self, name).add(sample)
        for name in ("draft", "verify"):
            for sample, beside in given.get(name, []):
                getattr(self, name).took(sample, beside)
        for tokens, sample in given.get("rows", []):
            self.row(tokens, sample)
        for chance, accepted, rejected in given.get("acceptance", []):
            for i in range(accepted + rejected):
                self.judge(chance, i < accepted)
        self.begin()

    def judge(self, chance: float, accepted: bool) -> None:
        """Section 2.3."""
        i = self.bucket(chance)
        self.stood[i] += accepted
        self.seen[i] += 1
        self.tell(float(accepted))

    def tell(self, share: float) -> None:
        """Section 2.3."""
        self.accepted = M * self.accepted + share
        self.rejected = M * self.rejected + 1.0 - share
        self.squares = M * self.squares + share * share

    def begin(self) -> None:
        """Section 2.3: a generation begins."""
        all_ = self.accepted + self.rejected + 4.0
        if less(34.0, all_):
            self.accepted = 34.0 * (self.accepted + 3.0) / all_ - 3.0
            self.rejected = 34.0 * (self.rejected + 1.0) / all_ - 1.0
            self.squares = 34.0 * (self.squares + 3.0) / all_ - 3.0

    def judge_block(self, chances: list[float], accepted: int, own: bool) -> None:
        """Section 2.4."""
        judged = [(chance, i < accepted) for i, chance in enumerate(chances[: accepted + own])]
        for chance, stands in judged:
            foretold = self.stands(chance)
            foretold = 0.95 if less(0.95, foretold) else foretold
            self.doubt += math.log(0.5 if stands else (1.0 - foretold / 2.0) / (1.0 - foretold))
            self.doubted = [*self.doubted, stands]
            if not less(0.0, self.doubt):
                self.doubt, self.doubted = 0.0, []
        for chance, stands in judged:
            self.judge(chance, stands)
        if less(self.doubt, math.log(100.0)):
            return
        self.stood, self.seen = [0] * 11, [0] * 11
        last, weight = len(self.doubted), self.accepted + self.rejected
        kept = last / weight if less(last, weight) else 1.0
        self.accepted = kept * self.accepted + sum(self.doubted)
        self.rejected = kept * self.rejected + last - sum(self.doubted)
        self.squares = kept * self.squares + sum(self.doubted)
        self.doubt, self.doubted = 0.0, []

    def bucket(self, chance: float) -> int:
        return sum(not less(chance, edge) for edge in EDGES[1:-1])

    def stands(self, chance: float) -> float:
        i = self.bucket(chance)
        unsure = 1.0 - (EDGES[i] + EDGES[i + 1]) / 2.0
        stands = 1.0 - min(1.5 * unsure * (1.0 - self.alpha), 1.0)
        return (self.stood[i] + 4.0 * stands) / (self.seen[i] + 4.0)

    @property
    def alpha(self) -> float:
        return (self.accepted + 3.0) / (self.accepted + self.rejected + 4.0)

    @property
    def error(self) -> float:
        total = self.accepted + self.rejected + 4.0
        return math.sqrt(((self.squares + 3.0) / total - self.alpha**2) / (total + 1.0))

    @property
    def stream_s(self) -> float:
        tokens, mean_s, row_s = self.blocks()
        lone_s = mean_s - min(tokens * row_s, mean_s)
        return self.target.typical or max(self.step_s, lone_s) or self.verify.mean

    @property
    def verify_s(self) -> float:
        return self.verify.mean if self.verify.samples else self.stream_s

    @property
    def stall_s(self) -> float:
        return self.rtt.beyond / self.rtt.weight / 2.0

    def costs(self, beside: bool) -> tuple[float, float]:
        """Section 2.2: a draft forward and a verification."""
        slowdown = self.draft.slowdown()
        return (
            self.draft.cost(beside, slowdown),
            self.verify.cost(beside, slowdown) or self.verify_s,
        )

    def undisturbed(self) -> None:
        """Section 8.2: turns begin."""
        mean, self.verify.samples = self.verify.mean, []
        self.waited, self.lone = [], []
        if mean:
            self.verify.add(self.verify.alone.typical or mean / self.draft.slowdown())

    def row(self, tokens: int, sample: float) -> None:
        """Section 2.2: a block that waited has been verified, or a step has ended without one."""
        if tokens:
            self.waited = [*self.waited, (tokens, sample)][-31:]
        else:
            self.lone = [*self.lone, (tokens, sample)][-8:]

    def rows(self, told_s: float = 0.0) -> tuple[float, float]:
        """Section 2.2: their mean number of tokens, and what each of them adds."""
        tokens, _, row_s = self.blocks(told_s)
        return tokens, row_s

    def blocks(self, told_s: float = 0.0) -> tuple[float, float, float]:
        """Section 2.2: the same, and between the two their mean time."""
        found = [*self.lone, *self.waited]
        number = len(found)
        if not number:
            return 0.0, 0.0, told_s
        most = 2.0 * sorted(s for _, s in found)[(number - 1) // 2]
        found = [(n, min(s, most)) for n, s in found]
        mean_n, mean_s = (sum(each) / number for each in zip(*found, strict=True))
        spread = sum((n - mean_n) ** 2 for n, _ in found) + number
        product = sum((n - mean_n) * (s - mean_s) for n, s in found) + number * told_s
        return mean_n, mean_s, max(0.0, product / spread)

    def round(self) -> tuple[float, float]:
        """Section 3.1: what a round costs, and each of its tokens."""
        draft_s, verify_s = self.costs(False)
        tokens, row_s = self.rows()
        return self.rtt.mean + verify_s - min(tokens * row_s, verify_s), draft_s + row_s


# Section 3: what drafting costs.


def expected(alpha: float, gamma: int) -> float:
    return (1.0 - alpha ** (gamma + 1)) / (1.0 - alpha)


def best_gamma(alpha: float, fixed_s: float, draft_s: float, longest: int = 16) -> int:
    """Section 3.1, by trying them all."""
    lengths = range(1, longest + 1)
    return smallest({g: (fixed_s + g * draft_s) / expected(alpha, g) for g in lengths})


def microseconds(seconds: float) -> int:
    """Section 3.2: to two digits."""
    whole = max(1, nearest(seconds * 1e6))
    unit = 10 ** max(0, len(str(whole)) - 2)
    half, odd = divmod(2 * whole + unit, 2 * unit)
    return (half - (odd == 0 and half % 2)) * unit  # a half goes to the even one


class Schedule:
    """Section 3.2: an epoch of run-ahead."""

    def __init__(self, alpha: float, draft: float, verify: float, rtt: float, stall: float) -> None:
        self.alpha = nearest(100.0 * alpha) / 100.0
        self.draft_s, self.verify_s = microseconds(draft) * 1e-6, microseconds(verify) * 1e-6
        self.back_s = microseconds(rtt) * 1e-6 + self.draft_s / 2.0
        self.stall_s = microseconds(stall) * 1e-6 if stall > 0.0 else 0.0
        times = {first: self.token(first) for first in range(1, 17)}
        self.first = smallest(times)
        self.token_s = times[self.first]

    def token(self, first: int) -> float:
        seconds = tokens = free_s = 0.0
        reached, drafted, count = 1.0, 0, first
        while True:
            free_s = max(free_s, (drafted + count) * self.draft_s) + self.verify_s
            whole = self.alpha**count
            tokens += reached * (expected(self.alpha, count) - whole)
            seconds += reached * (1.0 - whole) * (free_s + self.back_s)
            reached *= whole
            seconds += reached * self.stall_s
            drafted += count
            if less(reached, 1e-4) or drafted > 1000:
                return (seconds + reached * (free_s + self.back_s)) / (tokens + reached)
            count = min(max(floor(free_s / self.draft_s + 1e-9) - drafted, 1), 64)


def epoch_s(
    tokens: int, first: int, draft_s: float, verify_s: float, back_s: float, stall_s: float
) -> float:
    """Section 3.3: an epoch whose token number ``tokens`` is rejected."""
    drafted, count, free_s, stalls_s = 0, first, 0.0, 0.0
    while True:
        free_s = max(free_s, (drafted + count) * draft_s) + verify_s
        drafted += count
        if drafted >= tokens:
            return free_s + back_s + draft_s / 2.0 + stalls_s
        stalls_s += stall_s
        count = min(max(floor(free_s / draft_s + 1e-9) - drafted, 1), 64)


# Section 4: the controller.

PLAIN = 12


class Controller:
    """Section 4."""

    def __init__(self, here: Estimates, given: dict[str, Any], foretells: bool) -> None:
        self.here, self.foretells = here, foretells
        self.gamma: int | None = given.get("gamma")
        self.writer: str = given["writer"]
        self.since, self.dwell = given.get("since", 0), given.get("dwell", PLAIN)
        self.measured, self.foretold = given.get("record", [0.0, 0.0])
        self.is_here, self.near = given.get("here", False), given.get("near", False)

    def known(self) -> bool:
        here = self.here
        return bool(here.rtt.samples and here.draft.samples and here.stream_s)

    def schedule(self, alpha: float) -> Schedule:
        here = self.here
        return Schedule(alpha, *here.costs(True), here.rtt.mean, here.stall_s)

    def plan(self, mode: str) -> tuple[int, bool, float, int]:
        """Section 4.1: first, waits, sure, window."""
        here = self.here
        if mode == "stop-and-wait":
            first, sure = self.gamma, 0.0
            if not first and not (here.draft.samples and here.rtt.samples):
                first = 5
            if not first:
                first = 16
                sure = here.round()[1] / (here.alpha * self.token_s(mode, here.alpha))
                sure = 1.0 if less(1.0, sure) else sure
            return first, True, sure, first
        draft_s, verify_s = here.draft.typical, here.verify_s
        if not draft_s:
            return 2, False, 0.75, 32
        first = self.schedule(here.alpha).first
        until = first + floor((here.rtt.typical + 2.0 * verify_s) / draft_s) + 1
        deep = floor(math.log(0.01) / math.log(here.alpha)) + 1
        window = max(first, min(until, deep))
        load = here.queue.typical / verify_s if verify_s else 0.0
        if load > 0.0:
            window = max(first, floor(window / (1.0 + load)))
        return first, False, here.alpha ** (first - 0.5), window

    def token_s(self, writer: str, alpha: float) -> float:
        """Section 4.2."""
        here = self.here
        if writer == "stream":
            return here.stream_s
        if writer == "run-ahead":
            return self.schedule(alpha).token_s
        fixed_s, draft_s = here.round()
        gamma = self.gamma or best_gamma(alpha, fixed_s, draft_s)
        return (gamma * draft_s + fixed_s) / expected(alpha, gamma)

    def corrected_s(self, writer: str, alpha: float) -> float:
        """Section 4.3."""
        foretold = self.token_s(writer, alpha)
        trust = 60.0 * foretold
        return foretold * (self.measured + trust) / (self.foretold + trust)

    def drafted(self, mode: str, tokens: int, seconds: float, length: int) -> None:
        """Section 4.3."""
        self.since += tokens
        if not self.known():
            return
        here = self.here
        if mode == "stop-and-wait":
            fixed_s, draft_s = here.round()
            foretold = length * draft_s + fixed_s
        else:
            draft_s, verify_s = here.costs(True)
            first = self.schedule(here.alpha).first
            foretold = epoch_s(tokens, first, draft_s, verify_s, here.rtt.mean, here.stall_s)
        self.measured = 0.95 * self.measured + min(seconds, 2.0 * foretold)
        self.foretold = 0.95 * self.foretold + foretold

    def better(self, alpha: float) -> str:
        """Sections 4.4 and 4.6."""
        draft = self.here.draft
        compared = min(len(draft.alone.samples), len(draft.beside.samples)) >= 3
        shares = 1.5 if self.near and not compared else 1.0
        ahead_s = 0.95 * shares * self.token_s("run-ahead", alpha)
        waits = less(self.token_s("stop-and-wait", alpha), ahead_s)
        return "stop-and-wait" if waits else "run-ahead"

    def choose(self, left: int) -> str:
        """Section 4.4."""
        if not self.known():
            return self.writer
        here, alpha = self.here, self.here.alpha
        drafting = self.better(alpha)
        stream_s = self.token_s("stream", alpha)
        change_s = here.rtt.mean + here.draft.mean
        if self.writer == "stream":
            draft_s = self.corrected_s(drafting, alpha)
            pays = (
                less(draft_s, 0.95 * stream_s)
                and less(2.0 * change_s, (stream_s - draft_s) * left)
                and (self.dwell == PLAIN or self.since >= self.dwell)
            )
            if pays or (not self.foretells and self.try_it(left)):
                self.change(drafting)
        else:
            lasted = self.since >= self.dwell
            crowded = self.writer == "run-ahead" and here.draft.slowdown() > 1.0
            hoped = min(alpha + (0.6 if lasted else 1.0) * here.error, 0.98)
            if less(stream_s, 0.95 * self.corrected_s(self.writer, hoped)):
                self.change("stream")
            elif drafting != self.writer and (self.since >= PLAIN or crowded):
                self.change(drafting)
        return self.writer

    def looks(self) -> int:
        """Section 6.1."""
        here = self.here
        if not self.is_here or not self.known() or less(here.accepted + here.rejected, 8.0):
            return 1
        hope = min(here.alpha + here.error, 0.98)
        hoped_s = self.corrected_s(self.better(hope), hope)
        return 8 if less(hoped_s, 0.95 * self.token_s("stream", hope)) else 64

    def try_it(self, left: int) -> bool:
        """Section 4.5."""
        here, alpha = self.here, self.here.alpha
        hope = min(alpha + here.error, 0.98)
        stream_s = self.token_s("stream", hope)
        probe_s = (self.token_s("run-ahead", alpha) - stream_s) / (1.0 - alpha) + here.rtt.mean
        return (
            self.dwell == PLAIN
            and less(self.token_s("run-ahead", hope), 0.95 * stream_s)
            and less(probe_s, 0.03 * left * stream_s)
        )

    def change(self, writer: str) -> None:
        self.dwell *= 2 if writer == "stream" else 1
        self.writer, self.since = writer, 0
