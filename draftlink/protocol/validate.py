"""What is wrong with what a frame holds, whatever went before it: greetings, lists of ids."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from draftlink import schemes
from draftlink.distribution.sampling import MOST_BIASED
from draftlink.protocol.control import packed
from draftlink.protocol.frames import (
    BOTH,
    LOGPROBS,
    PENALTIES,
    RECOVERY,
    STREAMED,
    SUPPRESSED,
    Hello,
    Start,
    Welcome,
)
from draftlink.protocol.logprobs import MOST
from draftlink.protocol.progress import Progress
from draftlink.schemes.split import Split

MAX_FEATURES = 64  # that are told, and schemes
MAX_NAME = 256  # characters; a session keeps its Hello
MAX_TICKET = 4096  # bytes; it comes back with every Hello
MAX_BOS, MAX_SUPPRESSED = 16, 1 << 16  # ids that the target's own files name
MAX_UNAPPLIED = 64  # settings that are named, each with up to MAX_NAME characters
MAX_EOS = 256  # EOS ids of a generation: each token is looked up among them
MAX_CONTEXT = 1 << 31  # of a target; positions are 32-bit numbers
MAX_VOCAB = 1 << 20  # of a target: rows of this size are made, whatever a frame's own size


def hello(frame: Hello) -> str | None:
    """What is wrong with a device's greeting."""
    if len(frame.schemes) > MAX_FEATURES or len(frame.features) > MAX_FEATURES:
        return f"more than {MAX_FEATURES} schemes or features"
    if max(len(frame.agent), len(frame.tokenizer_hash)) > MAX_NAME:
        return f"an agent or a tokenizer's hash of more than {MAX_NAME} characters"
    return None


def welcome(offered: Hello | None, frame: Welcome) -> str | None:
    """What is wrong with a base station's greeting, as the answer to the one it was offered."""
    assert offered is not None
    lowest = offered.lowest or offered.version
    if not lowest <= frame.version <= offered.version:
        return f"version {frame.version}, where {lowest} to {offered.version} were offered"
    if frame.tokenizer_hash != offered.tokenizer_hash:
        return "a welcome to a tokenizer that is not this one"
    if len(frame.features) > MAX_FEATURES or not set(frame.features) <= set(offered.features):
        return "features that were not offered"
    size = frame.vocab_size
    if not 1 <= size <= MAX_VOCAB or not 1 <= frame.context < MAX_CONTEXT:
        return f"a target of {size} logits and a context of {frame.context}"
    if not set(frame.schemes) <= set(offered.schemes) or len(frame.schemes) > len(offered.schemes):
        return "schemes that were not offered"
    if len(frame.ticket) > MAX_TICKET:
        return f"a ticket of {len(frame.ticket)} bytes, where {MAX_TICKET} are the most"
    if not 1 <= frame.frame_entries <= frame.flight_entries:
        return f"at most {frame.frame_entries} entries a draft, {frame.flight_entries} in flight"
    return _facts(frame)


def _facts(frame: Welcome) -> str | None:
    """What is wrong with what a target's own files say."""
    lists = (
        ("EOS", frame.eos_ids, MAX_EOS),
        ("BOS", frame.bos_ids, MAX_BOS),
        ("suppressed", frame.suppressed_ids, MAX_SUPPRESSED),
    )
    for name, ids, most in lists:
        if len(ids) > most or not all(0 <= i < frame.vocab_size for i in ids):
            return f"{len(ids)} {name} ids, where {most} are the most, or ids out of range"
    if len(frame.unapplied) > MAX_UNAPPLIED or any(len(s) > MAX_NAME for s in frame.unapplied):
        return f"more than {MAX_UNAPPLIED} settings, or {MAX_NAME} characters of one"
    try:
        if frame.sampling is not None:
            frame.sampling.check()
    except ValueError as error:
        return f"a suggested sampling that cannot be ({error})"
    return None


def numbers(ids: Sequence[int], vocab_size: int) -> NDArray[np.uint32] | None:
    """Ids of a whole history, or None if there are others among them."""
    try:
        found = packed(ids)
    except OverflowError:
        return None
    return found if int(found.max(initial=0)) < vocab_size else None


def limit(progress: Progress, count: int, ended: bool) -> str | None:
    """What is wrong with so many more tokens of a text; ``ended``: they are the last."""
    assert progress.start is not None
    left = progress.start.max_tokens - progress.written
    if count > left or (count == left and not ended):
        return f"{count} more tokens, where {left} are left"
    return None


def mode(welcome: Welcome | None, start: Start) -> str | None:
    """Why both ends cannot write, if a request asks for that."""
    assert welcome is not None
    if start.mode != "both":
        return None
    if BOTH not in welcome.features:
        return f"both ends are to write, and the feature {BOTH} was not agreed on"
    if schemes.in_effect(start.scheme, greedy=start.sampling.greedy).rule == "sample":
        return "both ends are to write, and the text would depend on who proposes it"
    return None


def options(welcome: Welcome | None, start: Start) -> str | None:
    """What is wrong with a request's options, where they hang on what was agreed on."""
    finders = mode, penalties, logprobs, surprisals, recovery, ends
    return next((fault for find in finders if (fault := find(welcome, start)) is not None), None)


def recovery(welcome: Welcome | None, start: Start) -> str | None:
    """Why a device cannot correct by pairs, if a request asks for that."""
    assert welcome is not None
    if not isinstance(start.scheme, Split) or start.scheme.pairs is msgspec.UNSET:
        return None
    if RECOVERY not in welcome.features:
        return f"a device is to correct by pairs, and the feature {RECOVERY} was not agreed on"
    if start.scheme.pairs and start.tells is not None:
        return "a device is to correct by pairs, which have no log-probabilities of others"
    return None


def logprobs(welcome: Welcome | None, start: Start) -> str | None:
    """What is wrong with the log-probabilities that a request asks for."""
    assert welcome is not None
    if start.tells is None:
        return None
    if LOGPROBS not in welcome.features:
        return f"log-probabilities, and the feature {LOGPROBS} was not agreed on"
    if not 0 <= start.tells <= MOST:
        return f"log-probabilities of {start.tells} ids, where {MOST} are the most"
    return None


def surprisals(welcome: Welcome | None, start: Start) -> str | None:
    """What is wrong with the surprisals that a request asks for in a stream."""
    assert welcome is not None
    if start.streamed_surprisals is msgspec.UNSET or STREAMED in welcome.features:
        return None
    return f"surprisals of a stream, and the feature {STREAMED} was not agreed on"


def penalties(welcome: Welcome | None, start: Start) -> str | None:
    """What is wrong with the bias and the penalties that a request asks for."""
    assert welcome is not None
    sampling = start.sampling
    if not sampling.states_more:
        return None
    if PENALTIES not in welcome.features:
        return f"a bias or penalties, and the feature {PENALTIES} was not agreed on"
    if len(sampling.pairs) > MOST_BIASED:
        return f"a bias of {len(sampling.pairs)} ids, where {MOST_BIASED} are the most"
    if not all(0 <= token < welcome.vocab_size for token, _ in sampling.pairs):
        return f"a bias of ids that are not among the target's {welcome.vocab_size}"
    return None


def ends(welcome: Welcome | None, start: Start) -> str | None:
    """What is wrong with the ids that end a text, or that are never in it."""
    if len(start.eos_ids) > MAX_EOS:
        return f"{len(start.eos_ids)} EOS ids, where {MAX_EOS} is the most"
    ids = start.suppressed_ids
    assert welcome is not None
    if ids is msgspec.UNSET:
        return None
    if SUPPRESSED not in welcome.features:
        return f"suppressed ids, and the feature {SUPPRESSED} was not agreed on"
    if len(ids) > MAX_SUPPRESSED:
        return f"{len(ids)} suppressed ids, where {MAX_SUPPRESSED} are the most"
    # Of the target's logits: a draft may have fewer.
    found = numbers(ids, welcome.vocab_size)
    if found is None or (found[1:] <= found[:-1]).any():
        return "suppressed ids that do not ascend, or are out of range"
    if len(ids) == welcome.vocab_size:
        return "all ids are suppressed, and none is left to be written"
    return None
