"""What a device corrects by, where it does: how much of it is sent at once, and its bytes."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from bs_runtime.engine.faults import ModelFault
from bs_runtime.verify import verify
from bs_runtime.verify.job import Job, Outcome
from draftlink.schemes.split import pack_row, pairs_at_first

# As if so many tokens had been judged, and rejected, before the first.
PRIOR_JUDGED, PRIOR_REJECTED = 5.0, 1.0


class Corrections:
    """Those of one generation, whose target has ``vocab_size`` logits.

    What is counted here changes how many pairs are sent at once, and never a token: a base station
    that has forgotten the counts comes to the same text.
    """

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._judged, self._rejected = PRIOR_JUDGED, PRIOR_REJECTED

    def judged(self, drafted: int, accepted: int) -> None:
        """Of a block of so many drafted tokens the first ``accepted`` stand."""
        self._judged += min(accepted + 1, drafted)
        self._rejected += accepted < drafted

    @property
    def at_first(self) -> int:
        """Pairs that go with a verdict."""
        return pairs_at_first(self._vocab_size, self._rejected / self._judged)


def more(outcome: Outcome, row: Tensor, job: Job, had: int) -> Outcome:
    """With what comes behind ``had`` pairs at the target's row (V,): other pairs, or the row.

    Raises ModelFault where nothing can be drawn from it.
    """
    try:
        packed = verify.recover(row, job, had) or pack_row(row.numpy(force=True))
    except ValueError:
        raise ModelFault.behind(len(job.history)) from None
    return replace(outcome, row=packed)
