"""What is wrong with the frames of a text that both ends write: see ``faults``."""

from __future__ import annotations

from collections.abc import Sequence

from draftlink.protocol import logprobs, validate
from draftlink.protocol.frames import BRANCHES, LEAVES, Propose, Written
from draftlink.protocol.hot import MAX_BESIDE
from draftlink.protocol.standing import Standing
from draftlink.schemes.base import MAX_DRAFT

MAX_LIVE = 256  # proposed tokens that the text has not reached at the device


def propose(session: Standing, frame: Propose) -> str | None:
    """The fault of proposed tokens of a path, or None."""
    progress, welcome = session.progress, session.welcome
    start, scheme = progress.start, progress.scheme
    assert start is not None and welcome is not None and scheme is not None
    if frame.path < max(1, progress.path):
        return f"path {frame.path}, where path {progress.path} was the last, and they rise from 1"
    if not progress.known <= frame.known <= session.length or frame.base < progress.path_base:
        return f"a path from {frame.base} with {frame.known} known, of {session.length}: one falls"
    next_ = progress.path_base, progress.proposed
    if frame.path == progress.path and (frame.base, frame.first) != next_:
        return f"token {frame.first} of a path from {frame.base}, where another is next"
    fresh = frame.path > progress.path
    # That it begins within what is known needs no look: the frame says how much more that is.
    if fresh and (frame.first or frame.base < start.begins):
        return f"a new path from {frame.base} that does not begin within the text"
    if not 1 <= frame.length <= MAX_DRAFT or frame.end - frame.known > MAX_LIVE:
        return f"no token, more than {MAX_DRAFT} at once, or {MAX_LIVE} ahead of the text"
    if frame.behind and BRANCHES not in welcome.features:
        return f"tokens that branch off, and the feature {BRANCHES} was not agreed on"
    if frame.behind > frame.first:
        return f"tokens {frame.behind} behind the last, where {frame.first} have been proposed"
    if progress.reaches(frame) > start.begins + start.max_tokens:
        return "tokens behind the limit are proposed"
    if frame.nodes * scheme.entries(welcome.vocab_size) > welcome.frame_entries:
        return f"{frame.nodes} tokens at once, where {welcome.frame_entries} entries are the most"
    return _beside(welcome.features, frame) if frame.beside else None


def _beside(features: Sequence[str], frame: Propose) -> str | None:
    """The fault of how many candidates stand beside proposed tokens, or None."""
    if LEAVES not in features:
        return f"candidates beside tokens, and the feature {LEAVES} was not agreed on"
    if len(frame.beside) != frame.length or not any(frame.beside):
        return "there are no candidates, or some of no token"
    if not 0 <= min(frame.beside) <= max(frame.beside) <= MAX_BESIDE or frame.nodes > MAX_DRAFT:
        return f"more than {MAX_BESIDE} candidates beside a token, or {MAX_DRAFT} ids at once"
    return None


def written(session: Standing, frame: Written) -> str | None:
    """The fault of tokens that are said to be written, or None."""
    start = session.progress.start
    assert start is not None
    if frame.base != session.length:
        return f"tokens at {frame.base}, where {session.length} is next"
    if not frame.ids or max(frame.ids) >= session.vocab_size or frame.accepted > len(frame.ids):
        return "no tokens, ids out of range, or more accepted than there are"
    rows = frame.rows
    if rows is not None and rows and not len(frame.ids) < rows <= MAX_DRAFT + 1:
        return f"{rows} rows for {len(frame.ids)} tokens"
    if len(frame.surprisals) != len(frame.ids) * start.surprisals:
        return f"{len(frame.surprisals)} surprisals for {len(frame.ids)} tokens"
    return logprobs.fault(session, frame.logprobs, len(frame.ids)) or validate.limit(
        session.progress, len(frame.ids), frame.ended
    )
