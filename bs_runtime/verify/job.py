"""What is to be verified, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from torch import Tensor

from draftlink.distribution.noise import Purpose
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import logprobs
from draftlink.protocol.logprobs import Logprobs
from draftlink.schemes import Scheme


@dataclass(frozen=True)
class Job:
    """A block of tokens, proposed by anyone, behind ``history``, and the rule that it is judged by.

    Its rows are len(drafted) + 1: one behind each token. ``purpose`` is what the target's own
    token, behind a block that was accepted whole, is drawn for. Draws are functions of (key,
    position, purpose). ``surprisals``: whether they are wanted; ``logprobs``: whether
    log-probabilities are, and of how many of the likeliest ids. ``suppressed``: ids (n,) that the
    target is not to write, nor is a drafted one of them to be accepted. ``begins``: where in the
    history the output does. ``pairs``: so many are drawn where the device corrects by them.
    """

    drafted: Sequence[Drafted]
    history: Sequence[int]
    sampling: Sampling
    scheme: Scheme
    key: bytes
    purpose: Purpose = Purpose.BONUS
    surprisals: bool = True
    suppressed: Tensor | None = None
    begins: int = 0
    logprobs: int | None = None
    pairs: int = 0

    @cached_property
    def rule(self) -> Literal["sample", "coupled", "greedy", "stream"]:
        """How a proposed token is judged.

        By rejection sampling (``sample``) or, in all other cases, by whether it is the token that
        the target writes at its position by itself: the one drawn by the noise that both ends share
        (``coupled``), the likeliest (``greedy``), or the one drawn while streaming (``stream``). So
        a stream's text does not depend on who proposes what.
        """
        rule = self.scheme.rule
        return "stream" if rule == "sample" and self.purpose is Purpose.STREAM else rule


@dataclass(frozen=True)
class Outcome:
    """What a round came to: what its verdict says.

    The first ``accepted`` tokens of its block are accepted; ``next`` is the target's token behind
    them. It is None where nothing is drawn, or the device corrects: by ``row``, in bytes, then,
    which is the target's row or stands for it. ``ended``: the text has. ``surprisals``: −log2 p, in
    bits, of the accepted tokens and of ``next``, if the job wants them; ``logprobs`` likewise.
    ``broken``: the row behind the accepted tokens has no largest number, so nothing can be drawn
    from it. The times are those until the first step that the round took part in, and from then on.
    """

    accepted: int
    next: int | None
    ended: bool = False
    row: bytes = b""
    surprisals: list[float] = field(default_factory=list)
    broken: bool = False
    logprobs: list[Logprobs] = field(default_factory=list)
    queue_us: int = field(default=0, compare=False)
    verify_us: int = field(default=0, compare=False)

    def written(self, accepted: int, next: int | None, row: bytes, *, ended: bool) -> Outcome:
        """What it came to in the end, where the text ends before all that was accepted, or nothing
        was to be drawn: what is told of the other tokens goes with them."""
        count = accepted + (next is not None)
        surprisals, logprobs = self.surprisals[:count], self.logprobs[:count]
        return Outcome(accepted, next, ended, row, surprisals, logprobs=logprobs)

    @property
    def eighths(self) -> bytes:
        """The surprisals as a verdict has them: in eighths of a bit, up to 255."""
        return bytes(min(255, round(8 * bits)) for bits in self.surprisals)

    @property
    def told(self) -> list[bytes]:
        """The log-probabilities as a frame has them, a part for each token."""
        return logprobs.encode(self.logprobs)
