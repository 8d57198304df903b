"""Coverage-guided fuzzing of what parses a peer's bytes: `python -m ... TARGET [OPTIONS]`.

Bytes are a value or a ValueError. A value means the same after another round trip, and a hot
frame has one form only. Any other exception, a hang, or memory without bound ends the run.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable

import msgspec
import numpy as np

with contextlib.ExitStack() as stack:
    if __name__ == "__main__":  # the test that starts this imports it too, for the seeds alone
        import atheris

        stack.enter_context(atheris.instrument_imports(include=["draftlink"]))
    from draftlink.coding import bits
    from draftlink.coding.ids import IdModel
    from draftlink.coding.slices import whole
    from draftlink.distribution import noise
    from draftlink.distribution.sampling import Sampling
    from draftlink.distribution.sparse import Drafted
    from draftlink.protocol import frames, logprobs
    from draftlink.schemes import AnyScheme, split
    from draftlink.schemes.coupled import Coupled
    from draftlink.schemes.dense import Dense
    from draftlink.schemes.split import Split, pack_row, unpack_row
    from draftlink.schemes.topk import TopK

SIZE = 20
HISTORY = [1, 2, 3, 1, 2, 3, 1]
SCHEMES: dict[str, AnyScheme] = {
    "topk-lattice": TopK(6, 16, tiers=1),
    "topk-nested": TopK(2, 8, tiers=3),
    "topk-fp16": TopK(6, coding="fp16"),
    "dense": Dense(),
    "split": Split(6, 16),
    "coupled": Coupled(),
}


def _frames(data: bytes) -> None:
    frame = frames.decode(data)
    again = frames.encode(frame)
    if not isinstance(frame, frames.Control):
        assert again == data
    else:
        assert repr(frames.decode(again)) == repr(frame)  # a NaN is not equal to itself


def _planted(data: bytes) -> None:
    """A negative control: a fault that one value of one field leads to."""
    frame = frames.decode(data)
    if isinstance(frame, frames.Draft) and frame.length == 65:
        raise IndexError("found")


def _bits(data: bytes) -> None:
    """Fields whose counts and widths the input chooses, as a decoder's earlier fields would."""
    if not data:
        raise ValueError("no fields")
    count = data[0] % 8
    source, again = bits.BitReader(data[1 + count :]), bits.BitWriter()
    for shape in data[1 : 1 + count]:
        values = source.read(shape % 16, shape // 16 * 2)
        again.write(values, shape // 16 * 2)
    source.finish()
    assert again.bytes() == data[1 + count :]


def _logprobs(data: bytes) -> None:
    """Of how many tokens and ids, the input chooses, as a frame and its start would."""
    if not data:
        raise ValueError("no counts")
    tokens, count = data[0] % 8, data[0] // 8
    told = logprobs.decode(data[1:], tokens, count, SIZE)
    assert len(told) == tokens and b"".join(logprobs.encode(told)) == data[1:]
    for each in told:
        values = [value for _, value in each.top]
        assert each.own <= 0.0 and values == sorted(values, reverse=True)
        assert len({token for token, _ in each.top} & set(range(SIZE))) == min(count, SIZE)
        assert all(np.isfinite(values)) and np.isfinite(each.own)


def _row(data: bytes) -> None:
    row = unpack_row(data, SIZE)
    assert row.shape == (SIZE,) and (unpack_row(pack_row(row), SIZE) == row).all()


def _pairs(data: bytes) -> None:
    pairs = split.unpack_draws(data, 3, 40, SIZE)
    assert 0 < len(pairs) <= 37 and all(0 <= y < SIZE and 0.0 < p <= 1.0 for y, p in pairs)
    again = split.pack_draws(pairs, 3, 40, SIZE)
    assert split.unpack_draws(again, 3, 40, SIZE) == pairs


def _support(data: bytes) -> None:
    p = split.unpack_support(data, SIZE)
    assert p.shape == (SIZE,) and abs(p.sum() - 1.0) < 1e-5 and (p >= 0.0).all()


def _payload(scheme: AnyScheme) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        if not data:
            raise ValueError("no length")
        drafted = scheme.decode(data[1:], data[0] % 8, _ids())
        again, _ = scheme.encode(drafted, _ids())
        assert _plain(scheme.decode(again, data[0] % 8, _ids())) == _plain(drafted)
        for token in drafted:
            assert 0 <= token.token < SIZE
            assert scheme.rule != "sample" or 1 <= token.count <= token.total
            for row in token.path(SIZE):
                assert (np.diff(row.ids) > 0).all() and set(row.ids) <= set(range(SIZE))
                assert (row.counts >= 1).all() and row.counts.sum() + row.rest == row.total

    return target


def _ids() -> IdModel:
    ids = IdModel(SIZE)
    ids.extend(HISTORY)
    return ids


def _plain(drafted: list[Drafted]) -> list[tuple[object, ...]]:
    return [
        (d.token, d.count, d.total, *((list(r.ids), list(r.counts), r.rest) for r in d.path(SIZE)))
        for d in drafted
    ]


def _beside(data: bytes) -> None:
    """Tokens with candidates, as many as the input says."""
    if not data:
        raise ValueError("no counts")
    beside = [data[0] >> shift & 3 for shift in (0, 2, 4, 6)]
    found = whole(Coupled().decoding(data[1:], 4, _ids(), beside))
    for each, count in zip(found, beside, strict=True):
        here = {each.token, *each.beside}
        assert len(here) == 1 + count and here <= set(range(SIZE))
    again, _ = Coupled().encode(found, _ids())
    assert whole(Coupled().decoding(again, 4, _ids(), beside)) == found


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": _frames,
    "planted": _planted,
    "bits": _bits,
    "row": _row,
    "logprobs": _logprobs,
    "pairs": _pairs,
    "support": _support,
    "beside": _beside,
    **{name: _payload(scheme) for name, scheme in SCHEMES.items()},
}


def seeds(target: str) -> list[bytes]:
    """True inputs, from which the fuzzing sets out."""
    if target in SCHEMES:
        return [bytes((count,)) + _drafts(SCHEMES[target], count) for count in range(4)]
    if target == "row":
        return [pack_row(np.arange(SIZE, dtype=kind)) for kind in (np.float32, np.float64)]
    if target == "logprobs":
        row = np.arange(SIZE, dtype=np.float32)
        told = b"".join(logprobs.encode([logprobs.of(row, 3, 2)] * 3))
        return [bytes((8 * 2 + 3,)) + told, bytes((1,)) + b"\x05"]
    if target == "pairs":
        return [split.pack_draws([(i % 3, 0.25) for i in range(n)], 3, 40, SIZE) for n in (1, 9)]
    if target == "support":
        return [
            split.pack_support([(3, 0.5), (9, 0.5)], SIZE),
            split.pack_support([(0, 1.0)], SIZE),
        ]
    if target == "beside":
        drafted = [Drafted(i, beside=tuple(range(10, 10 + i))) for i in range(4)]
        return [b"\xe4" + Coupled().encode(drafted, _ids())[0]]
    if target == "bits":
        return [bytes((3, 0x22, 0x43, 0x35)) + bytes(12)]
    start = frames.Start(3, 0, [1], Sampling(), TopK(), "draft", 9, [0], None)
    return [
        frames.encode(frame)
        for frame in (
            start,
            frames.Finish(3, 20),
            frames.Switched(3, 5, 20),
            frames.Resume(msgspec.structs.replace(start, base=1, ids=[]), 4, 9, b"d" * 16, True, 5),
            frames.Resumed(3, 2, True),
            frames.Draft(300, 70_000, 5, b"\x01\x02", 19),
            frames.Draft(300, 70_000, 5, b"\x01\x02", waits=False),
            frames.Draft(300, 70_000, 0, b"", had=21),
            frames.Verdict(300, 70_000, 4, 19, False, 12, 3400, b"", b"\x01"),
            frames.Verdict(1, 2, 3, None, False, 0, 0, b"row"),
            frames.Tokens(1, 2, (5, 6, 7), True),
            frames.Propose(300, 70_000, 70_100, 90, 5, b"\x01\x02"),
            frames.Propose(300, 70_000, 70_100, 90, 5, b"\x01\x02", beside=(1, 0, 3, 0, 2)),
            frames.Written(300, (5, 70_000, 7), 2, False, 12, 3400, b"\x01\x02\x03"),
            frames.Written(300, (5, 7), 1, False, 12, 3400, rows=9),
            frames.Verdict(1, 2, 3, None, False, 0, 0, b"", b"\1", b"\x80\x10\5\x90\1"),
            frames.Tokens(1, 2, (5, 6), True, b"\x80\x10\0"),
            frames.Tokens(1, 2, (5, 6), True, b"\x80\x10\0", b"\5\xff"),
            frames.Written(300, (5,), 1, False, 12, 3400, b"", 9, b"\x80\x10\5\x90\1"),
        )
    ]


def _drafts(scheme: AnyScheme, count: int) -> bytes:
    q = np.random.default_rng(count).dirichlet(np.full(SIZE, 0.3))
    key = noise.key_from_seed(count, "device")
    return scheme.encode([scheme.propose(q, key, i) for i in range(count)], _ids())[0]


def main() -> None:
    target = atheris.instrument_func(TARGETS[sys.argv[1]])  # its own branches guide, too

    def one(data: bytes) -> None:
        with contextlib.suppress(ValueError):
            target(data)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
