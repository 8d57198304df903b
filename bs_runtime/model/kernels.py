"""Triton kernels: a step's keys and values into their slots, and its attention, one launch for all.

What differs between steps stands in tables on the GPU (``fused.Tables``), so that the launches are
the same for every step of as many tokens, and can be captured in a CUDA graph. Slots are read
where they are, through their addresses: a session's memory stays its own, and grows and goes as
before. A token sees the entries of its slot before a bound of its own, which is all there is to
say of a chain, and from there on its ancestors, 64 at the most. Attention is computed as in
FlashAttention (arXiv 2205.14135) and, where few tokens look at long histories, split over the keys
(Flash-Decoding): partial results meet in ``_combine``. A layer with a window begins at the first
key that any token of a tile sees; what a layer has not, a window or capped scores, is not compiled.
"""

from dataclasses import dataclass

import torch  # no postponed annotations here: Triton reads which arguments are constants
import triton
import triton.language as tl

from bs_runtime.model.attention import Form

KEYS = 64  # of a block; the least share of a split, too
ENOUGH = 512  # programs that fill a GPU: more splits than lead to them gain nothing
MOST_SPLITS = 16
LOG2_E = 1.4426950408889634


@triton.jit
def _store(
    keys,  # (1, kv heads, tokens, d)
    values,  # the same
    key_head,
    key_token,
    value_head,
    value_token,
    part_of,  # (tokens,), -1 for padding
    index_of,  # (tokens,), in its slot
    address,  # (parts,)
    capacity,  # (parts,)
    layer,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    D_BLOCK: tl.constexpr,
):
    token = tl.program_id(0)
    head = tl.program_id(1)
    part = tl.load(part_of + token)
    if part >= 0:
        held = tl.load(capacity + part)
        at = tl.load(index_of + token)
        slab = tl.load(address + part).to(keys.dtype)
        to = slab + ((layer * 2 * HEADS + head) * held + at) * D
        d = tl.arange(0, D_BLOCK)
        on = d < D
        key = tl.load(keys + head * key_head + token * key_token + d, mask=on)
        value = tl.load(values + head * value_head + token * value_token + d, mask=on)
        tl.store(to + d, key, mask=on)
        tl.store(to + HEADS * held * D + d, value, mask=on)


@triton.jit
def _capped(score, CAP: tl.constexpr):
    """CAP · tanh(score / CAP), to the last digits of single precision."""
    x = score / CAP
    square = x * x
    small = x * (
        1 - square * (1 / 3 - square * (2 / 15 - square * (17 / 315 - square * 62 / 2835)))
    )
    fades = tl.exp(-2 * tl.abs(x))
    large = (1 - fades) / (1 + fades)
    return CAP * tl.where(tl.abs(x) < 0.2, small, tl.where(x < 0, -large, large))


@triton.jit
def _older(ancestors, bit):
    """How many of a token's ancestors (int64) come before the one at ``bit``, below 64."""
    x = ancestors & ((1 << bit) - 1)
    x = x - ((x >> 1) & 0x5555555555555555)
    x = (x & 0x3333333333333333) + ((x >> 2) & 0x3333333333333333)
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F
    x = x + (x >> 8)
    x = x + (x >> 16)
    return (x + (x >> 32)) & 0x7F


@triton.jit
def _attend(
    query,  # (1, heads, tokens, d)
    query_head,
    query_token,
    tokens,
    index_of,
    position_of,
    bound_of,  # (tokens,): it sees all entries before this one
    ancestors_of,  # (tokens,): bit i if it sees entry ``bound + i``
    address,
    capacity,
    tile_part,  # (tiles,)
    tile_first,  # (tiles,), its first token in the step
    tile_count,  # (tiles,), its tokens; 0 for a tile that is not used
    sums,  # (splits, tokens, heads, d), float32 or wider: Σ exp2(score − peak) · value
    masses,  # (splits, tokens, heads): Σ exp2(score − peak)
    peaks,  # (splits, tokens, heads): the largest score, in log2
    scale,
    layer,
    HEADS: tl.constexpr,
    GROUP: tl.constexpr,  # query heads that share keys and values
    D: tl.constexpr,
    D_BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
    WINDOW: tl.constexpr,  # tokens that are seen back, 0 for all
    CAP: tl.constexpr,  # of the scores, 0.0 for none
):
    tile = tl.program_id(0)
    shared = tl.program_id(1)  # which of the kv heads
    split = tl.program_id(2)
    count = tl.load(tile_count + tile)
    if count > 0:
        part = tl.load(tile_part + tile)
        row = tl.arange(0, ROWS)
        token = tl.load(tile_first + tile) + row // GROUP
        head = shared * GROUP + row % GROUP
        on = row < count * GROUP
        d = tl.arange(0, D_BLOCK)
        on_d = d < D
        q = tl.load(
            query + (head * query_head + token * query_token)[:, None] + d[None, :],
            mask=on[:, None] & on_d[None, :],
            other=0.0,
        )
        length = tl.max(tl.load(index_of + token, mask=on, other=0), 0) + 1
        bound = tl.load(bound_of + token, mask=on, other=1)
        ancestors = tl.load(ancestors_of + token, mask=on, other=0)
        # The tokens of a block have one bound, so a tile's tokens with ancestors have the same.
        branching = tl.max(tl.where(ancestors != 0, bound + 1, 0), 0)  # and 1 more, or 0 if none do
        start = 0
        if WINDOW > 0:
            # What a token sees has no smaller index than position.
            near = tl.load(position_of + token, mask=on, other=0) - (WINDOW - 1)
            start = tl.maximum(tl.min(tl.where(on, near, length), 0), 0) // BLOCK * BLOCK
        share = tl.cdiv(length - start, SPLITS * BLOCK) * BLOCK
        begin = start + split * share
        end = tl.minimum(begin + share, length)
        held = tl.load(capacity + part)
        slab = tl.load(address + part).to(query.dtype)
        kv_heads: tl.constexpr = HEADS // GROUP
        keys = slab + (layer * 2 * kv_heads + shared) * held * D
        values = keys + kv_heads * held * D
        wide: tl.constexpr = sums.dtype.element_ty
        peak = tl.full((ROWS,), float("-inf"), wide)
        mass = tl.zeros((ROWS,), wide)
        total = tl.zeros((ROWS, D_BLOCK), wide)
        for first in range(begin, end, BLOCK):
            n = first + tl.arange(0, BLOCK)
            inside = (n < end)[:, None] & on_d[None, :]
            k = tl.load(keys + n[:, None] * D + d[None, :], mask=inside, other=0.0)
            score = tl.dot(q, tl.trans(k), input_precision="ieee", out_dtype=wide) * scale
            if CAP > 0:
                score = _capped(score, CAP) * 1.4426950408889634  # log2 e
            sees = n[None, :] < bound[:, None]
            if WINDOW > 0:
                sees = sees & (n[None, :] >= near[:, None])
            if (branching > 0) & (first + BLOCK >= branching):
                bit = n - (branching - 1)
                named = (bit >= 0) & (bit < 64)
                related = (ancestors[:, None] >> tl.where(named, bit, 0)[None, :]) & 1
                related = (related != 0) & named[None, :]
                if (WINDOW > 0) & (WINDOW < 64):  # else no ancestor is that far back
                    older = _older(ancestors[:, None], tl.where(named, bit, 0)[None, :])
                    related = related & (bound[:, None] + older >= near[:, None])
                sees = sees | related
            score = tl.where(sees & (n < end)[None, :], score, float("-inf"))
            higher = tl.maximum(peak, tl.max(score, 1))
            anchor = tl.where(higher == float("-inf"), 0.0, higher)  # a row that sees no key yet
            weight = tl.exp2(score - anchor[:, None])
            fade = tl.exp2(peak - anchor)
            v = tl.load(values + n[:, None] * D + d[None, :], mask=inside, other=0.0)
            mass = mass * fade + tl.sum(weight, 1)
            weight = weight.to(v.dtype)
            seen = tl.dot(weight, v, input_precision="ieee", out_dtype=wide)
            total = total * fade[:, None] + seen
            peak = higher
        to = (split * tokens + token) * HEADS + head
        tl.store(peaks + to, peak, mask=on)
        tl.store(masses + to, mass, mask=on)
        tl.store(sums + to[:, None] * D + d[None, :], total, mask=on[:, None] & on_d[None, :])


@triton.jit
def _combine(
    sums,
    masses,
    peaks,
    part_of,
    out,  # (1, tokens, heads, d)
    tokens,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    D_BLOCK: tl.constexpr,
    SPLITS: tl.constexpr,
):
    token = tl.program_id(0)
    head = tl.program_id(1)
    d = tl.arange(0, D_BLOCK)
    on = d < D
    attended = tl.zeros(
        (D_BLOCK,), sums.dtype.element_ty
    )  # of padding: what follows must stay finite
    if tl.load(part_of + token) >= 0:
        at = (tl.arange(0, SPLITS) * tokens + token) * HEADS + head
        peak = tl.load(peaks + at)
        weight = tl.exp2(peak - tl.max(peak, 0))
        mass = tl.sum(weight * tl.load(masses + at), 0)
        total = tl.load(sums + at[:, None] * D + d[None, :], mask=on[None, :], other=0.0)
        attended = tl.sum(weight[:, None] * total, 0) / mass
    tl.store(out + (token * HEADS + head) * D + d, attended.to(out.dtype.element_ty), mask=on)


def tile_tokens(group: int) -> int:
    """Tokens that one program takes: some 64 rows, each a token of one of ``group`` heads."""
    return max(64 // group, 1)


def splits(tiles: int, kv_heads: int) -> int:
    """Into how many parts a history is split, a power of 2."""
    room = max(ENOUGH // (tiles * kv_heads), 1)
    return min(1 << (room.bit_length() - 1), MOST_SPLITS)


@dataclass(frozen=True)
class Tokens:
    """What the kernels know of a step's tokens, and of the slots that they belong to."""

    index: torch.Tensor  # (tokens,), in its slot
    position: torch.Tensor  # (tokens,), in its history
    bound: torch.Tensor  # (tokens,): it sees all entries before this one
    ancestors: torch.Tensor  # (tokens,): bit i if it sees entry ``bound + i``
    part: torch.Tensor  # (tokens,), -1 for padding
    address: torch.Tensor  # (parts,), of its slab (layers, 2, kv heads, capacity, d)
    capacity: torch.Tensor  # (parts,)


def store(keys: torch.Tensor, values: torch.Tensor, layer: int, of: Tokens) -> None:
    """Write keys and values (1, kv heads, tokens, d) of a layer to the slots."""
    _, heads, tokens, d = keys.shape
    _store[(tokens, heads)](
        keys, values, keys.stride(1), keys.stride(2), values.stride(1), values.stride(2),
        of.part, of.index, of.address, of.capacity, layer,
        HEADS=heads, D=d, D_BLOCK=triton.next_power_of_2(d),
    )  # fmt: skip


def attend(
    query: torch.Tensor,
    layer: int,
    kv_heads: int,
    form: Form,
    of: Tokens,
    tiles: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Attention of query (1, heads, tokens, d), to (1, tokens, heads, d); zero for padding.

    ``tiles``: of each the part, its first token, and how many it takes: at most ``tile_tokens``,
    or 0 if it is not used.
    """
    _, heads, tokens, d = query.shape
    group = heads // kv_heads
    parts = splits(len(tiles[0]), kv_heads)
    wide = torch.float64 if query.dtype == torch.float64 else torch.float32
    sums = query.new_empty((parts, tokens, heads, d), dtype=wide)
    masses, peaks = query.new_empty((2, parts, tokens, heads), dtype=wide)
    out = query.new_empty((1, tokens, heads, d))
    sizes = {"HEADS": heads, "D": d, "D_BLOCK": max(triton.next_power_of_2(d), 16)}
    rows = max(triton.next_power_of_2(tile_tokens(group) * group), 16)
    scale = form.scale if form.softcap else form.scale * LOG2_E
    _attend[(len(tiles[0]), kv_heads, parts)](
        query, query.stride(1), query.stride(2), tokens, of.index, of.position, of.bound,
        of.ancestors, of.address, of.capacity, *tiles, sums, masses, peaks, scale, layer,
        GROUP=group, ROWS=rows, BLOCK=KEYS, SPLITS=parts, WINDOW=form.window or 0,
        CAP=form.softcap or 0.0, **sizes,
    )  # fmt: skip
    _combine[(tokens, heads)](sums, masses, peaks, of.part, out, tokens, SPLITS=parts, **sizes)
    return out
