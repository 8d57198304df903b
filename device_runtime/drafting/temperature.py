"""The draft's temperature, learned from what verdicts tell.

Exactness does not depend on the distribution that the draft draws from, so its temperature need not
be the request's: a small model is often surer, or less sure, than the target. Every token y that
comes back is a sample of the target's p, whoever wrote it, and the base station tells p(y). So

    E over y of min(1, q_r(y) / p(y)) = Σ min(p, q_r)

is the expected acceptance at the draft temperature r × the request's, for every r at once, on the
same tokens. The temperature for a draft is fixed before anything of it is drawn.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

RATIOS = np.array([0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5])
PLAIN = 4  # the index of ratio 1
NEAR = 30.0  # below the peak, in temperatures: 150,000 scores further down add less than 0.1%
UNITS_PER_BIT = 8  # of a surprisal
FEWEST = 30  # observations before the request's own temperature is left


class DraftTemperature:
    """Learns, over one session, for one temperature of the request.

    Observed is the first position of each draft, which is always judged: one row a round.
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature
        self._count = 0
        self._mean = np.zeros(len(RATIOS))  # of the expected acceptance's gain over ratio 1
        self._square = np.zeros(len(RATIOS))  # sum of squared deviations (Welford)
        self._row: NDArray[np.floating] | None = None

    @property
    def value(self) -> float:
        """The draft's temperature over the request's.

        The ratio whose gain is largest by its lower bound of one standard error; 1 while none is
        above 0.
        """
        if self._count < FEWEST:
            return 1.0
        error = np.sqrt(self._square / (self._count - 1) / self._count)
        return float(RATIOS[int(np.argmax(self._mean - error))])

    def begin(self) -> None:
        """A draft begins."""
        self._row = None

    def drafted(self, logits: NDArray[np.floating]) -> None:
        """A row of draft logits (V,), after penalties; only a draft's first is kept."""
        if self._row is None:
            self._row = logits.copy()

    def observe(self, token: int, surprisal: int) -> None:
        """The first token that is written: its id, and −log2 p of it in eighths of a bit."""
        if self._row is None or not token < len(self._row):
            return
        peak = self._row.max()
        # Of a large vocabulary few are near enough to count, at whatever ratio.
        near = self._row[self._row > peak - NEAR * self._temperature]
        scores = (near - peak) / self._temperature
        log_sums = np.log([np.exp(scores / ratio).sum() for ratio in RATIOS.tolist()])
        log_q = float(self._row[token] - peak) / self._temperature / RATIOS - log_sums
        log_p = -np.log(2.0) * surprisal / UNITS_PER_BIT
        overlap = np.exp(np.minimum(0.0, log_q - log_p))
        gain = overlap - overlap[PLAIN]
        self._count += 1
        before = gain - self._mean
        self._mean += before / self._count
        self._square += before * (gain - self._mean)
        self._row = None
