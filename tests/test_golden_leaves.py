"""Candidates beside proposed tokens: their golden bytes, a second reader, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from draftlink.coding.ids import IdModel
from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.protocol.frames import Propose
from draftlink.protocol.session import LocalProtocolError, RemoteProtocolError
from draftlink.schemes import Coupled
from draftlink.schemes.base import MAX_DRAFT
from tests import golden_reader_leaves
from tests.draftlink.test_both import GREEDY
from tests.draftlink.test_session import HELLO, WELCOME, Pair, start

PATHS = json.loads((Path(__file__).parent / "golden" / "leaves.json").read_text())["paths"]
PROPOSALS = [(path, number) for path in PATHS for number in range(len(path["proposals"]))]
each = pytest.mark.parametrize(("path", "number"), PROPOSALS)


def ids_before(path, number) -> tuple[IdModel, list[int]]:
    earlier = [node[0] for one in path["proposals"][:number] for node in one["nodes"]]
    ids = IdModel(path["vocab_size"])
    ids.extend([*path["text"][: path["base"]], *earlier])
    return ids, earlier


@each
def test_both_ways(path, number):
    entry = path["proposals"][number]
    ids, _ = ids_before(path, number)
    drafted = [Drafted(token, beside=tuple(others)) for token, *others in entry["nodes"]]
    payload, bits = Coupled().encode(drafted, ids)
    beside = tuple(len(one.beside) for one in drafted)
    frame = Propose(
        path["path"], path["base"], entry["known"], entry["first"], entry["length"], payload,
        entry["goes_on"], beside if any(beside) else (),
    )  # fmt: skip
    assert (bits, frames.encode(frame).hex()) == (entry["bits"], entry["hex"])
    assert frames.decode(bytes.fromhex(entry["hex"])) == frame
    length = ids.length
    source = RangeDecoder(payload)
    reading = ids.reading(source, beside)
    assert [*_result(reading)] == entry["nodes"] and ids.length == length


def _result(slices):
    while True:
        try:
            next(slices)
        except StopIteration as end:
            return end.value


@each
def test_a_second_reader_reads_them_and_no_other_bytes_as_the_same(path, number):
    entry = path["proposals"][number]
    _, earlier = ids_before(path, number)
    rest = path["vocab_size"], path["text"], earlier
    wanted = {name: entry[name] for name in ("known", "first", "length", "goes_on", "nodes")}
    data = bytes.fromhex(entry["hex"])
    assert golden_reader_leaves.read_propose(data, *rest) == wanted
    for other in (data + b"\0", data + b"\1", data[:-1] + bytes((data[-1] ^ 0x80,))):
        try:
            found = golden_reader_leaves.read_propose(other, *rest)
        except (AssertionError, IndexError):
            continue
        assert found["nodes"] != entry["nodes"]


def test_tokens_in_one_place_differ_at_both_ends():
    """Of those that the coder knows none can be coded twice; of the others the reader looks."""
    ids = IdModel(1000)
    ids.extend([1, 2, 1, 2])
    for token in (2, 999):  # of the history, and new
        with pytest.raises(ValueError, match="stands twice"):
            ids.encode(RangeEncoder(), [token], [[token]])
    out, other = RangeEncoder(), IdModel(1000)
    other.extend([1, 2, 1, 2])
    other._check = lambda *_: None  # a peer that does not look
    other.encode(out, [999], [[999]])
    payload, _ = out.finish()
    with pytest.raises(ValueError, match="stands twice"):
        _result(ids.reading(RangeDecoder(payload), [1]))
    assert ids.length == 4


def agreed(*features: str, **welcome: object) -> Pair:
    pair = Pair()
    pair.up(msgspec.structs.replace(HELLO, features=[frames.BOTH, *features]))
    both = [frames.BOTH, *features]
    pair.down(msgspec.structs.replace(WELCOME, features=both, **welcome))
    pair.up(start("both", sampling=GREEDY, max_tokens=400))
    return pair


FAULTS = {
    "the feature was not agreed on": ((), Propose(1, 3, 3, 0, 2, b"", True, (0, 1)), "leaves was"),
    "65 ids": (
        (frames.LEAVES,), Propose(1, 3, 3, 0, 50, b"", True, (3,) * 5 + (0,) * 45), "64 ids at once"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("features", "frame", "fault"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_refused_at_both_ends(features, frame, fault):
    pair = agreed(*features)
    with pytest.raises(LocalProtocolError, match=fault):
        pair.device.send(frame)
    with pytest.raises(RemoteProtocolError, match=fault):
        pair.bs.receive(frames.encode(frame))
    if features:  # what is right is taken
        pair.up(Propose(1, 3, 3, 0, 52, b"", True, (3,) * 4 + (0,) * 48))


@pytest.mark.parametrize("beside", [(0, 0), (1,), (1, 0, 0), (4, 0)])
def test_what_has_no_form_is_not_sent(beside):
    with pytest.raises(LocalProtocolError):
        agreed(frames.LEAVES).device.send(Propose(1, 3, 3, 0, 2, b"", True, beside))


def test_candidates_count_as_what_has_to_be_decoded():
    pair = agreed(frames.LEAVES, frame_entries=32 * 8, flight_entries=32 * 8)
    with pytest.raises(LocalProtocolError, match="9 tokens at once, where 256 entries"):
        pair.device.send(Propose(1, 3, 3, 0, 6, b"", True, (3, 0, 0, 0, 0, 0)))
    pair.up(Propose(1, 3, 3, 0, 5, b"", True, (3, 0, 0, 0, 0)))
    assert MAX_DRAFT == 64
