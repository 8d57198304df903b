"""Triton kernels: a step's keys and values into their slots, and its attention, one launch for all.

What differs between steps stands in tables on the GPU (``fused.Tables``), so that the launches are
the same for every step of as many tokens, and can be captured in a CUDA graph. Slots are read
where they are, through their addresses: a session's memory stays its own, and grows and goes as
before. A token sees the entries of its slot before a bound of its own, which is all there is to
say of a chain, and from there on its ancestors, 64 at the most. Attention is computed as in
FlashAttention (arXiv 2205.14135) and, where few tokens look at long histories, split over the keys
(Flash-Decoding): partial results meet in ``_combine``.
"""

from dataclasses import dataclass

import torch  # no postponed annotations here: Triton reads which arguments are constants
import triton
import triton.language as tl

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
def _attend(
    query,  # (1, heads, tokens, d)
    query_head,
    query_token,
    tokens,
    index_of,
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
        share = tl.cdiv(length, SPLITS * BLOCK) * BLOCK
        begin = split * share
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
            sees = n[None, :] < bound[:, None]
            if (branching > 0) & (first + BLOCK >= branching):
                bit = n - (branching - 1)
                named = (bit >= 0) & (bit < 64)
                related = (ancestors[:, None] >> tl.where(named, bit, 0)[None, :]) & 1
                sees = sees | ((related != 0) & named[None, :])
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
    scale: float,
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
    _attend[(len(tiles[0]), kv_heads, parts)](
        query, query.stride(1), query.stride(2), tokens, of.index, of.bound, of.ancestors,
        of.address, of.capacity, *tiles, sums, masses, peaks, scale * LOG2_E, layer,
        GROUP=group, ROWS=rows, BLOCK=KEYS, SPLITS=parts, **sizes,
    )  # fmt: skip
    _combine[(tokens, heads)](sums, masses, peaks, of.part, out, tokens, SPLITS=parts, **sizes)
    return out
