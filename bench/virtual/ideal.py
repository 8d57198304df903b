"""Run-ahead idealised on the very link: what is the most that one serial verifier allows?

``schedule.ideal_time`` is the optimum where every message takes the same time. Where segments are
lost it is out of reach for anybody: a message that stalls holds up those behind it, and each block
of an epoch is such a message. Here acceptance is independent with a known α, forwards cost what is
stated, messages have no bytes, and the link is the modelled one, stalls and order included.
"""

from __future__ import annotations

import itertools
import random
import statistics
from collections.abc import Iterator

from draftlink.link.shaping import LinkProfile, Shaper, make_link
from draftlink.planning.theory import Costs

FIRST = range(1, 17)  # tokens of an epoch's first block that are tried
TOKENS = 20_000
REALISATIONS = 10  # of the link and of what is accepted, by which the best policy is measured


def ideal_rate(profile: LinkProfile, alpha: float, costs: Costs, tokens: int = TOKENS) -> float:
    """Tokens/s of the best policy: how long the first block is, and what goes into a message.

    A message is each token as it is drafted, or all that there is just in time for the verifier.
    The policy is chosen by one realisation and measured by others: chosen by its luck with one, the
    best of many would seem better than it is.
    """

    def rate(policy: tuple[int, bool], seed: int) -> float:
        first, single = policy
        return _rate(profile, alpha, costs, first, tokens, seed, single=single)

    best = max(itertools.product(FIRST, (True, False)), key=lambda policy: rate(policy, 0))
    return statistics.harmonic_mean([rate(best, 1 + number) for number in range(REALISATIONS)])


class _Ordered:
    """One direction: messages without bytes, in order."""

    def __init__(self, shaper: Shaper) -> None:
        self._shaper = shaper
        self._last_s = 0.0

    def arrives(self, sent_s: float) -> float:
        self._last_s = max(self._last_s, self._shaper.transmit(0, sent_s)[1])
        return self._last_s


def _rate(
    profile: LinkProfile,
    alpha: float,
    costs: Costs,
    first: int,
    tokens: int,
    seed: int,
    *,
    single: bool,
) -> float:
    link = make_link(profile, seed=seed)
    up, down = _Ordered(link.up), _Ordered(link.down)
    chance = random.Random(f"ideal/{seed}")
    written, now = 0, 0.0
    while written < tokens:
        accepted = 0
        while chance.random() < alpha:
            accepted += 1
        written += accepted + 1
        blocks = _sent(now, first, costs, profile.rtt_s / 2.0, single=single)
        free_s, checked, wanted = 0.0, 0, first
        sent_s, count = next(blocks)
        arrives_s = up.arrives(sent_s)
        while checked <= accepted:
            start_s = free_s
            while arrives_s <= start_s or checked < wanted:
                start_s, checked = max(start_s, arrives_s), count
                sent_s, count = next(blocks)
                arrives_s = up.arrives(sent_s)
            free_s, wanted = start_s + costs.verify_s, checked + 1
        now = down.arrives(free_s) + costs.draft_s / 2.0
    return written / now


def _sent(
    began_s: float, first: int, costs: Costs, way_s: float, *, single: bool
) -> Iterator[tuple[float, int]]:
    """Messages of an epoch: when each is sent, and up to which token."""
    count, free_s = first, 0.0
    if single:
        for count in range(1, first):
            yield began_s + count * costs.draft_s, count
        count = first
    while True:
        sent_s = max(began_s + count * costs.draft_s, free_s - way_s)
        if not single:  # as many as there are by then
            count = max(count, int((sent_s - began_s) / costs.draft_s + 1e-9))
            free_s = sent_s + way_s + costs.verify_s
        yield sent_s, count
        count += 1
