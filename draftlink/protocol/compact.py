"""The compact layout of the hot frames: little-endian, integers as LEB128 varints.

The first byte is the frame's kind, the second has its flags.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from draftlink.protocol.hot import MAX_BESIDE, MAX_TOKENS, Draft, Propose, Tokens, Verdict, Written
from draftlink.protocol.varints import Reader, block, varints
from draftlink.schemes.base import MAX_DRAFT

Hot = Draft | Verdict | Tokens | Propose | Written

DRAFT, VERDICT, TOKENS, PROPOSE, WRITTEN = 2, 3, 4, 5, 6
_GOES_ON, _HAS_KNOWN, _HAS_FIRST_NODE, _HAS_BESIDE, _HAS_BEHIND = 1, 2, 4, 8, 16
_BESIDE_BITS, _BESIDE_EACH = 2, 4  # of a token of a Propose, and so many tokens to a byte
_ENDED, _HAS_NEXT, _HAS_ROW, _HAS_SURPRISALS, _HAS_LOGPROBS = 1, 2, 4, 8, 16
_STREAMED = 32  # Tokens have surprisals: a bit that no end took for one before it was a feature
_HAS_FIRST, _WAITS, _ASKS = 1, 2, 4
_HAS_ROWS, _HAS_COUNT = 2, 4  # of a Written, whose highest bits are
_FEW_AT, _FEW = 5, 7  # how many are accepted, or 7, and how many more stands by itself


def encode(frame: Hot) -> bytes:
    """A hot frame's bytes."""
    if isinstance(frame, Draft):
        first = () if frame.first is None else (frame.first,)
        had = (frame.had,) if frame.had else ()
        flags = _HAS_FIRST * len(first) | _WAITS * frame.waits | _ASKS * len(had)
        fields = frame.epoch, frame.base, frame.length, *first, *had
        return bytes((DRAFT, flags)) + varints(*fields) + frame.payload
    if isinstance(frame, Verdict):
        flags = _ENDED * frame.ended | _HAS_NEXT * (frame.next is not None)
        flags |= _HAS_ROW * bool(frame.row) | _told(frame)
        fields = (frame.epoch, frame.base, frame.accepted, frame.queue_us, frame.verify_us)
        following = () if frame.next is None else (frame.next,)
        blocks = block(frame.row) + block(frame.surprisals) + block(frame.logprobs)
        return bytes((VERDICT, flags)) + varints(*fields, *following) + blocks
    if isinstance(frame, Tokens):
        flags = _HAS_LOGPROBS * bool(frame.logprobs) | _STREAMED * bool(frame.surprisals)
        head = bytes((TOKENS, _ENDED * frame.ended | flags))
        ids = varints(frame.epoch, frame.base, len(frame.ids), *frame.ids)
        return head + ids + block(frame.logprobs) + block(frame.surprisals)
    if isinstance(frame, Propose):
        above = frame.known - frame.base  # it and ``first`` are most often 0, and then left out
        flags = _GOES_ON * frame.goes_on | _HAS_KNOWN * (above != 0)
        flags |= _HAS_FIRST_NODE * (frame.first != 0) | _HAS_BESIDE * bool(frame.beside)
        flags |= _HAS_BEHIND * (frame.behind != 0)
        maybe = filter(None, (above, frame.first, frame.behind))
        where = frame.path, frame.base, *maybe, frame.length
        return bytes((PROPOSE, flags)) + varints(*where) + _packed(frame.beside) + frame.payload
    rows = () if frame.rows is None else (frame.rows,)
    # Most often one token of the target's own stands behind those that were proposed.
    count = () if len(frame.ids) == frame.accepted + 1 else (len(frame.ids),)
    flags = _ENDED * frame.ended | _HAS_ROWS * len(rows) | _HAS_COUNT * len(count)
    few = min(frame.accepted, _FEW)
    flags |= _told(frame) | few << _FEW_AT
    more = (frame.accepted - few,) if few == _FEW else ()
    fields = (frame.base, *more, frame.queue_us, frame.step_us, *rows, *count)
    blocks = block(frame.surprisals) + block(frame.logprobs)
    return bytes((WRITTEN, flags)) + varints(*fields, *frame.ids) + blocks


def _told(frame: Verdict | Written) -> int:
    """The flags for what is told of the tokens."""
    return _HAS_SURPRISALS * bool(frame.surprisals) | _HAS_LOGPROBS * bool(frame.logprobs)


def _draft(source: Reader) -> Draft:
    flags = source.flags(_HAS_FIRST | _WAITS | _ASKS)
    epoch, base, length = (source.varint() for _ in range(3))
    first = source.varint() if flags & _HAS_FIRST else None
    had = source.positive() if flags & _ASKS else 0
    return Draft(epoch, base, length, source.rest(), first, bool(flags & _WAITS), had)


def _verdict(source: Reader) -> Verdict:
    flags = source.flags(_ENDED | _HAS_NEXT | _HAS_ROW | _HAS_SURPRISALS | _HAS_LOGPROBS)
    epoch, base, accepted, queue_us, verify_us = (source.varint() for _ in range(5))
    following = source.varint() if flags & _HAS_NEXT else None
    row = source.block() if flags & _HAS_ROW else b""
    surprisals = source.block() if flags & _HAS_SURPRISALS else b""
    logprobs = source.block() if flags & _HAS_LOGPROBS else b""
    source.finish()
    ended = bool(flags & _ENDED)
    return Verdict(
        epoch, base, accepted, following, ended, queue_us, verify_us, row, surprisals, logprobs
    )


def _tokens(source: Reader) -> Tokens:
    flags = source.flags(_ENDED | _HAS_LOGPROBS | _STREAMED)
    epoch, base, count = source.varint(), source.varint(), source.varint()
    if count > MAX_TOKENS:
        raise ValueError(f"{count} tokens in a frame, where {MAX_TOKENS} are the most")
    ids = tuple(source.varint() for _ in range(count))
    logprobs = source.block() if flags & _HAS_LOGPROBS else b""
    surprisals = source.block() if flags & _STREAMED else b""
    source.finish()
    return Tokens(epoch, base, ids, bool(flags & _ENDED), logprobs, surprisals)


def _propose(source: Reader) -> Propose:
    flags = source.flags(_GOES_ON | _HAS_KNOWN | _HAS_FIRST_NODE | _HAS_BESIDE | _HAS_BEHIND)
    path, base = source.varint(), source.varint()
    above = source.positive() if flags & _HAS_KNOWN else 0
    begin = source.positive() if flags & _HAS_FIRST_NODE else 0
    behind = source.positive() if flags & _HAS_BEHIND else 0
    length, goes_on = source.varint(), bool(flags & _GOES_ON)
    beside = _beside(source, length) if flags & _HAS_BESIDE else ()
    return Propose(path, base, base + above, begin, length, source.rest(), goes_on, beside, behind)


def _packed(beside: Sequence[int]) -> bytes:
    """How many candidates each token has, four tokens to a byte, from its lowest bits on."""
    groups = range(0, len(beside), _BESIDE_EACH)
    return bytes(
        sum(n << _BESIDE_BITS * i for i, n in enumerate(beside[at : at + _BESIDE_EACH]))
        for at in groups
    )


def _beside(source: Reader, length: int) -> tuple[int, ...]:
    if length > MAX_DRAFT:  # refused in any case: nothing more is read for it
        raise ValueError(f"{length} tokens in a frame, where {MAX_DRAFT} are the most")
    packed = int.from_bytes(bytes(source.byte() for _ in range(0, length, _BESIDE_EACH)), "little")
    found = tuple(packed >> _BESIDE_BITS * i & MAX_BESIDE for i in range(length))
    if not packed or packed >> _BESIDE_BITS * length:  # one form
        raise ValueError("the frame says that there are no candidates, or has some of no token")
    return found


def _written(source: Reader) -> Written:
    known = _ENDED | _HAS_ROWS | _HAS_COUNT | _HAS_SURPRISALS | _HAS_LOGPROBS | _FEW << _FEW_AT
    flags = source.flags(known)
    base, few = source.varint(), flags >> _FEW_AT
    accepted = few + (source.varint() if few == _FEW else 0)
    queue_us, step_us = source.varint(), source.varint()
    rows = source.varint() if flags & _HAS_ROWS else None
    count = source.varint() if flags & _HAS_COUNT else accepted + 1
    if count > MAX_TOKENS:
        raise ValueError(f"{count} tokens in a frame, where {MAX_TOKENS} are the most")
    if rows == count or (flags & _HAS_COUNT and count == accepted + 1):  # one form
        raise ValueError("the frame says how many tokens or rows there are without need")
    ids = tuple(source.varint() for _ in range(count))
    surprisals = source.block() if flags & _HAS_SURPRISALS else b""
    logprobs = source.block() if flags & _HAS_LOGPROBS else b""
    source.finish()
    ended = bool(flags & _ENDED)
    return Written(base, ids, accepted, ended, queue_us, step_us, surprisals, rows, logprobs)


# By kind: a frame from the bytes behind it. Raises ValueError for what is none.
DECODERS: dict[int, Callable[[Reader], Hot]] = {
    DRAFT: _draft,
    VERDICT: _verdict,
    TOKENS: _tokens,
    PROPOSE: _propose,
    WRITTEN: _written,
}
