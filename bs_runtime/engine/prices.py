"""What the base station's time costs, as its own steps tell: one account for all conversations.

A step of many rows takes ``step_s`` and ``row_s`` for each of them, by least squares over the last
steps; prompts are left out. Where others are at work, too, a row delays all of them: a second of it
is worth the tokens that they write in one, and more (``SPARING``). So the price of a row rises with
the load, and nobody sets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bs_runtime.engine.flight import Launched
from bs_runtime.engine.step import Result
from bs_runtime.verify.job import Outcome
from draftlink.protocol.control import MOST_US

MEMORY = 0.97  # what a step weighs after the next one
FAR = 4.0  # times the mean: as much of a step's time counts, at the most
STEADY = 1.0  # rows², as if the rows of steps had differed so much more, and times had not
LEAST_S = 1e-6
# Times what a row costs the others it must bring. What is foretold of rows is too much: those are
# picked of which too much is foretold. And where a row is refused nobody is served by it, while
# prompts and newcomers wait: at 1, 32 devices have twice the rows of a stream, and fewer tokens/s.
SPARING = 3.5
LEAST_GAIN = 0.01  # by how much more tokens a second a look-up must promise
DEAR = 0.1  # of a step, what a row is taken to add where nothing is known
DOUBT = 0.1  # rows², by which the rows of steps must differ to outweigh what was known
KEEN, FORGETS = 0.1, 1e-3  # of what is known, for each step


class Prices:
    """Running means over steps. ``tariff``: tokens that a second of the model is worth besides."""

    def __init__(self, tariff: float = 0.0) -> None:
        self.tariff = tariff
        self._weight = 0.0
        self._rows = self._seconds = self._squares = self._products = 0.0  # weighted means
        self._rounds = self._tokens = 0.0
        self._known_s: float | None = None  # what a row has been found to add
        self._every_s = 0.0  # between the ends of two steps
        self._ended_s: float | None = None

    def ran(
        self, step: Launched, results: Sequence[Result], seconds: float, ended_s: float
    ) -> None:
        """A step has ended; it counts if all of it was verified, and none of it a prompt."""
        outcomes = [result for result in results if isinstance(result, Outcome)]
        rounds = [request.round for request, _ in step.batch]
        if len(outcomes) == len(rounds) and all(round.purpose is not None for round in rounds):
            rows = sum(count for _, count in step.batch)
            tokens = sum(one.accepted + (one.next is not None) for one in outcomes)
            if rows:  # else all that was judged had been fed before
                self.stepped(rows, seconds, len(rounds), tokens, ended_s)

    def tried(self, times: Iterable[tuple[int, float]]) -> None:
        """(rows, seconds) of steps that were tried before anybody was served."""
        for rows, seconds in times:
            self.stepped(rows, seconds, 1, 1, 0.0)
        self._every_s, self._ended_s = 0.0, None

    def stepped(self, rows: int, seconds: float, rounds: int, tokens: int, ended_s: float) -> None:
        """A step of ``rows`` for so many ``rounds`` has ended; it wrote ``tokens``."""
        seconds = max(seconds, LEAST_S)
        if self._weight:
            seconds = min(seconds, FAR * self._seconds)
        self._weight = MEMORY * self._weight + 1.0
        learn = 1.0 / self._weight
        self._rows += learn * (rows - self._rows)
        self._seconds += learn * (seconds - self._seconds)
        self._squares += learn * (rows * rows - self._squares)
        self._products += learn * (rows * seconds - self._products)
        self._rounds += learn * (rounds - self._rounds)
        self._tokens += learn * (tokens - self._tokens)
        if self._known_s is None:
            self._known_s = DEAR * self._seconds
        self._known_s += KEEN * self._share * (self._slope_s(LEAST_S) - self._known_s)
        self._known_s += FORGETS * (DEAR * self._seconds - self._known_s)
        if self._ended_s is not None:
            every_s = min(ended_s - self._ended_s, FAR * self._seconds)
            self._every_s += learn * (max(every_s, seconds) - self._every_s)
        self._ended_s = ended_s

    @property
    def row_s(self) -> float:
        """Seconds that each row adds to a step."""
        return self._slope_s(STEADY)

    @property
    def _spread(self) -> float:
        return max(self._squares - self._rows * self._rows, 0.0)

    def _slope_s(self, steady: float) -> float:
        """What a row adds by the last steps, as if their rows differed by ``steady`` more."""
        slope = (self._products - self._rows * self._seconds) / (self._spread + steady)
        return max(slope, 0.0)

    @property
    def _share(self) -> float:
        """How far the last steps tell what rows cost, 0 to 1: as far as their rows differ."""
        spread = self._spread
        return spread / (spread + DOUBT)

    @property
    def wary_s(self) -> float:
        """``row_s``, for who may go without: where the last steps do not tell, as it was known.

        While nearly all steps have one row ``row_s`` is far too low, and rows that do not pay would
        be tried again and again.
        """
        return self._share * self._slope_s(LEAST_S) + (1.0 - self._share) * (self._known_s or 0.0)

    @property
    def step_s(self) -> float:
        """Seconds of a step of one row; 0 before the first."""
        return max(self._seconds - (self._rows - 1.0) * self.row_s, 0.0)

    def told(self) -> dict[str, int]:
        """What a Welcome says of them."""
        times = {"step_us": self.step_s, "row_us": self.row_s}
        return {name: min(int(seconds * 1e6), MOST_US) for name, seconds in times.items()}

    @property
    def company(self) -> float:
        """Rounds of a step, on average, at least 1."""
        return max(self._rounds, 1.0)

    @property
    def others(self) -> float:
        """Tokens a second that all but one of those in a step write."""
        if not self._every_s:
            return 0.0
        return self._tokens / self._every_s * (1.0 - 1.0 / self.company)

    def worth(self, chances: Sequence[float], held: int = 0) -> tuple[int, float]:
        """How many proposals a step is given, ``held`` or more; and its tokens a second.

        ``chances``: how likely each is right, if those before it are. (held, 0.0) before the first
        step, as nothing is known of what they cost.
        """
        if not self._weight:
            return held, 0.0
        row_s = self.wary_s
        step_s = max(self._seconds - (self._rows - 1.0) * row_s, LEAST_S)
        expected = reach = 1.0
        rates = [(expected - self.tokens(1)) / step_s]
        for count, chance in enumerate(chances, 1):
            reach *= chance
            expected += reach
            rates.append((expected - self.tokens(count + 1)) / (step_s + count * row_s))
        best = max(range(held, len(rates)), key=lambda count: (rates[count], -count))
        if rates[best] <= rates[held] + LEAST_GAIN * abs(rates[held]):
            best = held
        return best, rates[best]

    def tokens(self, rows: int) -> float:
        """What ``rows`` of a step cost, in tokens: others' that come later, and the tariff.

        Under load each step may have as many rows as a step can, which tells nothing of them.
        """
        others = self.others
        row_s = rows * (max(self.row_s, self.wary_s) if others > 0.0 else self.row_s)
        own_s = row_s + self.step_s / self.company
        return SPARING * others * row_s + self.tariff * own_s
