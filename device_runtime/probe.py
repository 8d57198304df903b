"""What a device and a base station take, found out by writing a little in each mode."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

from device_runtime.device import Coupled, Dense, Device
from draftlink.planning.verdict import Both, Measured
from draftlink.schemes import topk

TEXT: Final = (
    "The ferry to the island leaves at seven in the morning, and whoever misses it has to wait"
    " until noon. On the quay there is"
)
LAST: Final = 16  # tokens of a prompt; a small context has to hold the text behind it, too
STREAMED: Final = 24  # tokens that the base station writes alone
# Rounds of two lengths tell what a row costs; what runs ahead tells what both cost at once.
ROUNDS: Final = ((2, 24), (6, 40))  # draft length, tokens
AHEAD: Final = 48
# Where both ends write nothing is reckoned: a text while each learns of the other, and one behind.
BOTH: Final = (32, 128)


@dataclass(frozen=True)
class Probed:
    """The measurements, and what they rest on."""

    measured: Measured
    judged: int  # drafted tokens
    uplink_bits: float  # of payload, a drafted token
    rate_up: float | None  # bit/s, at least; None where no whole row may be sent
    both: Both | None  # both ends writing; None where the base station does not let them


async def probe(device: Device, prompt: Any = None) -> Probed:
    """Write some hundred tokens with a connected device, and say what that took.

    ``prompt``: a text or ids, ``TEXT`` if not given. Raises what ``generate`` does, and ValueError
    where nothing was drafted, so that nothing can be said.
    """
    if prompt is None:
        prompt = device.tokenizer.encode(TEXT, add_special_tokens=False).ids[-LAST:]
    drafted = bits = 0
    estimates = None
    ways: list[tuple[dict[str, Any], int]] = [({"mode": "stream"}, STREAMED)]
    ways += [({"mode": "stop-and-wait", "gamma": gamma}, tokens) for gamma, tokens in ROUNDS]
    ways.append(({"mode": "run-ahead"}, AHEAD))
    for way, tokens in ways:
        generation = device.generate(
            prompt, max_tokens=tokens, eos_ids=(), scheme=topk.usual(), seed=len(way), **way
        )
        async for _ in generation:
            pass
        estimates = generation.estimates
        drafted += generation.result.drafted
        bits += generation.result.uplink_payload_bits
    assert estimates is not None
    here = estimates
    judged, accepted = sum(here.acceptance.reached), sum(here.acceptance.stood)
    if not judged or not len(here.draft) or not len(here.target):
        raise ValueError("nothing was drafted: the draft's context has no room for a short text")
    alpha = accepted / judged
    beside_s = here.costs_s(beside=True)
    fixed_s, drafted_s = here.round_s()
    draft_s, _ = here.costs_s(beside=False)
    measured = Measured(
        alpha=alpha,
        # As of one more accepted and one more rejected: neither 0 nor 1 is ever certain.
        alpha_error=math.sqrt((accepted + 1) * (judged - accepted + 1) / (judged + 2) ** 3),
        draft_s=draft_s,
        target_s=here.target.typical,
        verify_s=fixed_s - here.rtt.mean,
        row_s=drafted_s - draft_s,
        rtt_s=here.rtt.mean,
        draft_beside_s=beside_s[0],
        verify_beside_s=beside_s[1],
    )
    both = await _both(device, prompt, measured.target_s)
    rate = await _rate_up(device, prompt)  # last: rows as large as these are no usual round
    return Probed(measured, judged, bits / drafted if drafted else 0.0, rate, both)


async def _both(device: Device, prompt: Any, target_s: float) -> Both | None:
    """How fast both ends write together, beside ``target_s`` a token of the base station alone."""
    try:
        for seed, tokens in enumerate(BOTH):
            generation = device.generate(
                prompt, max_tokens=tokens, eos_ids=(), scheme=Coupled(), seed=seed, mode="both"
            )
            async for _ in generation:
                pass
    except ValueError:  # a base station without the feature
        return None
    result = generation.result
    if result.tpot_s <= 0.0:  # too short a context for anything to be told
        return None
    return Both(target_s / result.tpot_s, 1.0 / result.tpot_s, len(result.tokens))


async def _rate_up(device: Device, prompt: Any) -> float | None:
    """What whole rows take to arrive and be judged, as a rate: the uplink's is no lower."""
    try:
        generation = device.generate(
            prompt, max_tokens=2, eos_ids=(), scheme=Dense(), seed=0, mode="stop-and-wait", gamma=1
        )
        async for _ in generation:
            pass
    except ValueError:  # a frame of this base station holds no row of so many entries
        return None
    result = generation.result
    return result.uplink_payload_bits / result.wait_s if result.wait_s > 0.0 else None
