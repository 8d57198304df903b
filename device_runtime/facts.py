"""What the target's own files say, as its Welcome tells it, and what of it a request takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tokenizers import Tokenizer

from draftlink.distribution.sampling import Sampling
from draftlink.host.plain import printable
from draftlink.protocol.frames import SUPPRESSED, Welcome
from draftlink.protocol.validate import MAX_EOS, MAX_NAME, MAX_SUPPRESSED

NAMES = {
    "temperature": "temperature",
    "top_k": "top-k",
    "top_p": "top-p",
    "min_p": "min-p",
    "repetition_penalty": "repetition penalty",
}


def eos_ids(asked: Sequence[int] | None, welcome: Welcome, own: Sequence[int]) -> list[int]:
    """The ids that end a text: those ``asked`` for, the target's, or the draft's ``own``.

    Raises ValueError for ids that cannot be.
    """
    if asked is None:
        return list(welcome.eos_ids or own)
    return _known("eos_ids", asked, MAX_EOS, welcome.vocab_size)


def suppressed_ids(asked: Sequence[int] | None, welcome: Welcome, size: int) -> list[int]:
    """The ids that are never written, ascending: those ``asked`` for, or the target's.

    ``size``: ids of both models. Raises ValueError where none of those is left, and where the base
    station knows nothing of suppressed ids.
    """
    ids = welcome.suppressed_ids
    if asked is not None:
        ids = _known("suppressed_ids", asked, MAX_SUPPRESSED, welcome.vocab_size)
    ids = sorted(set(ids))
    if ids and SUPPRESSED not in welcome.features:
        whose = "the target never writes" if asked is None else "the request suppresses"
        raise ValueError(
            f"{whose} {len(ids)} ids, and this base station cannot leave them out (it lacks the"
            f" feature {SUPPRESSED}): update it, or do without, with suppressed_ids=()"
        )
    if sum(i < size for i in ids) == size:
        raise ValueError(
            f"all {size} ids of both models are suppressed, and none is left to be written; give"
            " fewer suppressed_ids"
        )
    return ids


def _known(name: str, ids: Sequence[int], most: int, vocab_size: int) -> list[int]:
    """Ids of a request. Raises ValueError for more than ``most``, or others than the target's."""
    if isinstance(ids, str) or not isinstance(ids, Collection):
        raise ValueError(f"{name} must be ids, which are whole numbers, not {ids!r}")
    if len(ids) > most:
        raise ValueError(f"{name} has {len(ids)} ids; give at most {most}")
    if not all(0 <= i < vocab_size for i in ids):
        raise ValueError(f"{name} has ids that are not among the target's {vocab_size}")
    return list(ids)


def check_text(text: str) -> None:
    """Raise ValueError for what is no text."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("the prompt has lone surrogates, which are no text; decode it from UTF-8")


def prompt_ids(text: str, tokenizer: Tokenizer, welcome: Welcome, *, first: bool) -> list[int]:
    """The ids of ``text``. At the ``first`` turn they begin as the target's texts do, and once so.

    The draft's tokenizer need not have that rule; what its own puts before or behind a text does
    not count. A rendered chat template has begun already. Raises ValueError for what is no text.
    """
    check_text(text)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    begin = list(welcome.bos_ids) if first else []
    return ids if ids[: len(begin)] == begin else begin + ids


def suggested(welcome: Welcome) -> Sampling:
    """The sampling that the target's files suggest.

    Raises ValueError where they suggest none, or ask for something that is not to be had.
    """
    if welcome.unapplied:
        raise ValueError(
            f"the target's files ask for {_unapplied(welcome)}, which Draftlink cannot apply; state"
            " the sampling instead of asking for the target's"
        )
    if welcome.sampling is None:
        raise ValueError(
            "the target's files suggest no sampling; state one instead of asking for the target's"
        )
    return welcome.sampling


def differing(welcome: Welcome, used: Sampling) -> str | None:
    """One line that says what of the target's suggestions is not ``used``, if anything is not."""
    said = welcome.sampling
    parts = [] if said is None else [
        f"{NAMES[field]} {getattr(said, field):g}"
        for field in NAMES
        if getattr(said, field) != getattr(used, field)
    ]  # fmt: skip
    if welcome.unapplied:
        parts.append(f"{_unapplied(welcome)} (which Draftlink cannot apply)")
        return f"the target suggests {', '.join(parts)}"
    if parts:
        return f"the target suggests {', '.join(parts)}; --sampling target uses it"
    return None


def _unapplied(welcome: Welcome) -> str:
    return ", ".join(printable(name, MAX_NAME) for name in welcome.unapplied)


def room(prompt: int, welcome: Welcome) -> int:
    """Tokens that the target can write behind a prompt of so many. Raises ValueError for none."""
    left = welcome.context - prompt
    if left < 1:
        raise ValueError(
            f"the prompt has {prompt} tokens, and the target's context is {welcome.context};"
            " shorten it"
        )
    return left
