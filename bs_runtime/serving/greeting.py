"""What a base station answers to a Hello, and which generations it takes on."""

from __future__ import annotations

from bs_runtime.model.target import Target
from draftlink import schemes
from draftlink.protocol import frames
from draftlink.protocol.frames import Hello, Refused, Start, Welcome


def answer(hello: Hello, target: Target) -> Welcome | Refused:
    """The Welcome, but for its ticket; or why there is none."""
    lowest = hello.lowest or hello.version
    version = min(hello.version, frames.VERSION)
    if version < max(lowest, frames.LOWEST):
        return Refused(
            "version",
            f"the device speaks versions {lowest} to {hello.version}, this is {frames.LOWEST} to"
            f" {frames.VERSION}; update the older of the two",
        )
    if hello.tokenizer_hash != target.tokenizer_hash:
        return Refused(
            "tokenizer",
            f"the draft's tokenizer ({hello.tokenizer_hash[:12]}, {hello.vocab_size} logits) is"
            f" not that of {target.name} ({target.tokenizer_hash[:12]},"
            f" {target.vocab_size} logits); use a draft with the target's tokenizer",
        )
    facts, lacks = target.facts, () if target.branches else (frames.LEAVES,)
    return Welcome(
        version=version,
        tokenizer_hash=target.tokenizer_hash,
        vocab_size=target.vocab_size,
        context=target.context,
        schemes=[name for name in schemes.BY_NAME if name in hello.schemes],
        model=target.name,
        dtype=target.dtype,
        features=[name for name in frames.FEATURES if name in hello.features and name not in lacks],
        eos_ids=list(facts.eos_ids),
        bos_ids=list(facts.bos_ids),
        suppressed_ids=list(facts.suppressed_ids),
        sampling=facts.sampling,
        unapplied=list(facts.unapplied),
    )


def unfit(start: Start, length: int, target: Target) -> str | None:
    """Why a generation with ``length`` tokens of history cannot be, or None."""
    if length >= target.context:
        return (
            f"a prompt of {length} tokens leaves no room in the target's context of"
            f" {target.context}; shorten it"
        )
    try:
        start.sampling.check()
        start.scheme.check(target.vocab_size)
    except ValueError as error:
        return str(error)
    if start.scheme.shares_seed and start.seed is None:
        return f"{start.scheme.name} needs a seed, which both ends draw from"
    return None
