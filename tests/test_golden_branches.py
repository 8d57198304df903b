"""Tokens that branch off: their golden bytes, a second reader, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from draftlink.coding.ids import IdModel
from draftlink.distribution.sparse import Drafted
from draftlink.protocol import frames
from draftlink.protocol.frames import Propose
from draftlink.protocol.session import LocalProtocolError, RemoteProtocolError
from draftlink.schemes import Coupled
from tests import golden_reader_branches
from tests.draftlink.test_both import GREEDY
from tests.draftlink.test_session import HELLO, WELCOME, Pair, start

GOLDEN = json.loads((Path(__file__).parent / "golden" / "branches.json").read_text())
PATHS = GOLDEN["paths"]
PROPOSALS = [(path, number) for path in PATHS for number in range(len(path["proposals"]))]
each = pytest.mark.parametrize(("path", "number"), PROPOSALS)


def earlier(path, number) -> list[list[int]]:
    """Of each token proposed before, all from the path's base to it."""
    found: list[list[int]] = []
    for one in path["proposals"][:number]:
        parent = one["first"] - 1 - one["behind"]
        above = found[parent] if parent >= 0 else []
        found += [[*above, *one["tokens"][: n + 1]] for n in range(len(one["tokens"]))]
    return found


@each
def test_both_ways(path, number):
    entry, known = path["proposals"][number], earlier(path, number)
    parent = entry["first"] - 1 - entry["behind"]
    ids = IdModel(path["vocab_size"])
    ids.extend([*path["text"][: path["base"]], *(known[parent] if parent >= 0 else [])])
    drafted = [Drafted(token) for token in entry["tokens"]]
    payload, bits = Coupled().encode(drafted, ids)
    frame = Propose(
        path["path"], path["base"], entry["known"], entry["first"], len(drafted), payload,
        entry["goes_on"], behind=entry["behind"],
    )  # fmt: skip
    assert (bits, frames.encode(frame).hex()) == (entry["bits"], entry["hex"])
    assert frames.decode(bytes.fromhex(entry["hex"])) == frame
    assert frame.follows == parent


@each
def test_a_second_reader_reads_them_and_no_other_bytes_as_the_same(path, number):
    entry, known = path["proposals"][number], earlier(path, number)
    rest = path["vocab_size"], path["text"], known
    wanted = {name: entry[name] for name in ("known", "first", "behind", "goes_on", "tokens")}
    data = bytes.fromhex(entry["hex"])
    assert golden_reader_branches.read_propose(data, *rest) == wanted
    for other in (data + b"\0", data + b"\1", data[:-1] + bytes((data[-1] ^ 0x80,))):
        try:
            found = golden_reader_branches.read_propose(other, *rest)
        except (AssertionError, IndexError):
            continue
        assert found["tokens"] != entry["tokens"]


@pytest.mark.parametrize("entry", GOLDEN["malformed"], ids=lambda one: one["name"])
def test_what_is_malformed_is_none(entry):
    with pytest.raises(ValueError):
        frames.decode(bytes.fromhex(entry["hex"]))


@pytest.mark.parametrize("entry", GOLDEN["control"], ids=lambda one: one["name"])
def test_greetings_say_so(entry):
    frame = frames.decode(bytes.fromhex(entry["hex"]))
    assert frames.encode(frame).hex() == entry["hex"]
    assert frames.BRANCHES in frame.features and frames.BRANCHES in frames.FEATURES


def agreed(*features: str) -> Pair:
    pair, both = Pair(), [frames.BOTH, *features]
    pair.up(msgspec.structs.replace(HELLO, features=both))
    pair.down(msgspec.structs.replace(WELCOME, features=both))
    pair.up(start("both", sampling=GREEDY, max_tokens=8))
    return pair


def refused(pair: Pair, frame: Propose, fault: str) -> None:
    with pytest.raises(LocalProtocolError, match=fault):
        pair.device.send(frame)
    with pytest.raises(RemoteProtocolError, match=fault):
        pair.bs.receive(frames.encode(frame))


def test_a_token_follows_one_that_was_proposed():
    for features, behind, fault in (
        ((), 1, "the feature branches was not agreed on"),
        ((frames.BRANCHES,), 4, "4 behind the last, where 3 have been proposed"),
    ):
        pair = agreed(*features)
        pair.up(Propose(1, 3, 3, 0, 3, b""))
        refused(pair, Propose(1, 3, 3, 3, 1, b"", behind=behind), fault)


def test_the_limit_is_of_where_a_token_stands_not_of_how_many_there_are():
    pair = agreed(frames.BRANCHES)
    pair.up(Propose(1, 3, 3, 0, 8, b""))
    pair.up(Propose(1, 3, 3, 8, 5, b"", behind=5))  # behind the third
    pair.up(Propose(1, 3, 3, 13, 8, b"", behind=13))  # behind the text
    refused(pair, Propose(1, 3, 3, 21, 1, b""), "behind the limit")


def test_no_more_live_than_of_a_path_that_does_not_branch():
    pair = agreed(frames.BRANCHES)
    pair.up(Propose(1, 3, 3, 0, 8, b""))
    for number in range(31):
        pair.up(Propose(1, 3, 3, 8 + 8 * number, 8, b"", behind=8 + 8 * number))
    refused(pair, Propose(1, 3, 3, 256, 1, b"", behind=256), "256 ahead of the text")
    pair.up(Propose(2, 3, 3, 0, 8, b""))
    assert pair.bs.progress.depths == pair.device.progress.depths == list(range(1, 9))
