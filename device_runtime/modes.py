"""Which mode a request is written in: what is asked, and what stands in its way."""

from __future__ import annotations

from msgspec import UNSET
from msgspec.structs import replace

from device_runtime.result import MODES, Mode
from draftlink import schemes
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.schemes import AnyScheme
from draftlink.schemes.split import MOST_PAIRS, Split

USUAL_BRANCHES, MOST_BRANCHES = 2, 8  # tokens that a forward drafts behind


def resolved(mode: Mode, hindered: str | None) -> Mode:
    """The mode, which is ``both`` for ``auto`` where nothing hinders both ends from writing.

    Raises ValueError for a mode that there is not, or cannot be.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")
    if mode == "both" and hindered:
        raise ValueError(hindered)
    return "both" if mode == "auto" and not hindered else mode


def hindered(
    scheme: AnyScheme,
    sampling: Sampling,
    welcome: frames.Welcome,
    *,
    learns: bool,
) -> str | None:
    """Why both ends cannot write at once, or None: where they can, ``auto`` has them do it."""
    if schemes.in_effect(scheme, greedy=sampling.greedy).rule == "sample":
        return (
            f"with {scheme.name} the text depends on who proposes it, so both ends cannot write;"
            " choose the coupled scheme, temperature 0, or another mode"
        )
    if frames.BOTH not in welcome.features:
        return "the base station does not let both ends write; choose another mode"
    if learns and not sampling.greedy:
        return "learn_temperature and mode both do not go together; leave one"
    return None


def corrected(scheme: AnyScheme, welcome: frames.Welcome, *, tells: bool) -> AnyScheme:
    """The scheme as it is stated to a base station, which may know nothing of pairs.

    ``tells``: log-probabilities are asked for. What a device corrects itself it takes them of from
    the target's row, so that is what comes.
    """
    if not isinstance(scheme, Split):
        return scheme
    if frames.RECOVERY not in welcome.features or tells:
        return replace(scheme, pairs=UNSET)
    return replace(scheme, pairs=MOST_PAIRS) if scheme.pairs is UNSET else scheme


def asks(scheme: AnyScheme, sampling: Sampling, welcome: frames.Welcome) -> bool:
    """Whether a stream can tell what would be accepted, and only by how likely its tokens were."""
    samples = schemes.in_effect(scheme, greedy=sampling.greedy).rule == "sample"
    return samples and frames.STREAMED in welcome.features


def check_price(price: float | None, mode: Mode) -> None:
    """Raise ValueError for a price that is none, or where nothing is weighed by it."""
    if price is None:
        return
    if not 0.0 <= price <= 1.0:
        raise ValueError(f"draft_price must be between 0 and 1, not {price}")
    if mode != "both":
        raise ValueError(
            "draft_price goes with texts that both ends write (mode auto or both, with the coupled"
            f" scheme or temperature 0), and this one is written by {mode}; leave it out"
        )


def branches(branches: int | None, mode: Mode, *, able: bool) -> int:
    """Behind how many tokens a forward drafts; if nobody says, ``USUAL_BRANCHES`` where the draft
    is ``able`` to and both ends write. Raises ValueError for a number that is none, or that nobody
    could draft."""
    if branches is None:
        return USUAL_BRANCHES if able and mode == "both" else 1
    if branches == 1:
        return branches
    if not isinstance(branches, int) or not 1 <= branches <= MOST_BRANCHES:
        raise ValueError(f"branches must be between 1 and {MOST_BRANCHES}, not {branches}")
    if mode != "both":
        raise ValueError(
            "branches go with texts that both ends write (mode auto or both, with the coupled"
            f" scheme or temperature 0), and this one is written by {mode}; leave them out"
        )
    if not able:
        raise ValueError(
            "this draft's bundle has no branches, or does not run on the CPU; make one with"
            " `draftlink export --branches`, or leave them out"
        )
    return branches
