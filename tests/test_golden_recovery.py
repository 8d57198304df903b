"""The golden bytes of the feature ``recovery``, in both directions and by a reader of the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from draftlink.distribution import noise
from draftlink.distribution.noise import Purpose
from draftlink.distribution.sparse import Drafted, SparseRow
from draftlink.protocol import frames
from draftlink.schemes import split
from tests import golden_reader_recovery as reader

FILE: dict[str, Any] = json.loads(
    (Path(__file__).parent / "golden" / "recovery.json").read_text(encoding="utf-8")
)
KEY = noise.key_from_seed(7, "device")


def pairs_of(entry: dict[str, Any]) -> list[tuple[int, float]]:
    return [(token, float.fromhex(share)) for token, share in entry["pairs"]]


def rejected_of(entry: dict[str, Any]) -> Drafted:
    ids, counts = (np.array(entry["row"][name], np.int64) for name in ("ids", "counts"))
    return Drafted.of(SparseRow(ids, counts, int(counts.sum())), 0)


@pytest.mark.parametrize("entry", FILE["asking"])
def test_a_draft_that_asks(entry):
    data = bytes.fromhex(entry["hex"])
    frame = frames.Draft(entry["epoch"], entry["base"], 0, b"", had=entry["had"])
    assert frames.encode(frame) == data and frames.decode(data) == frame
    assert reader.read_asking(data) == {name: entry[name] for name in ("epoch", "base", "had")}


@pytest.mark.parametrize("entry", FILE["malformed"])
def test_malformed(entry):
    with pytest.raises(ValueError):
        frames.decode(bytes.fromhex(entry["hex"]))


@pytest.mark.parametrize("entry", FILE["pairs"], ids=lambda entry: entry["name"])
def test_pairs(entry):
    """The bytes, and which token the device of seed 7 draws by them; None for another exchange."""
    data, pairs = bytes.fromhex(entry["hex"]), pairs_of(entry)
    numbers = entry["begin"], entry["most"], entry["vocab_size"]
    assert split.pack_draws(pairs, *numbers) == data
    assert split.unpack_draws(data, *numbers) == pairs == reader.read_pairs(data, *numbers)
    for at in range(1, len(data) + 1):  # the control: they matter to the last bit
        other = data[: at - 1] + bytes((data[at - 1] ^ 1,)) + data[at:]
        try:
            assert split.unpack_draws(other, *numbers) != pairs or at == 1
        except ValueError:
            continue
    token = split.recover(pairs, entry["begin"], rejected_of(entry), KEY, entry["position"])
    assert token == entry["token"]


@pytest.mark.parametrize("entry", FILE["all"], ids=lambda entry: entry["name"])
def test_all_of_a_small_p(entry):
    data, pairs, size = bytes.fromhex(entry["hex"]), pairs_of(entry), entry["vocab_size"]
    assert split.pack_support(pairs, size) == data and reader.read_all(data, size) == pairs
    p = split.unpack_support(data, size)
    assert [(token, float(p[token])) for token in np.flatnonzero(p)] == pairs
    assert split.correct(p, rejected_of(entry), KEY, entry["position"]) == entry["token"]


@pytest.mark.parametrize("entry", FILE["draws"])
def test_draws(entry):
    key, position = bytes.fromhex(entry["key"]), entry["position"]
    purpose, number = Purpose[entry["purpose"]], entry["pair"]
    assert noise.bits64(key, position, purpose, candidate=number) == entry["bits64"]
    uniform = noise.uniform(key, position, purpose, number)
    assert uniform == float.fromhex(entry["uniform"])


def test_every_kind_has_an_entry():
    assert {entry["purpose"] for entry in FILE["draws"]} == {"PAIR", "RECOVER"}
    assert {entry["token"] is None for entry in FILE["pairs"]} == {True, False}
    assert {entry["begin"] > 0 for entry in FILE["pairs"]} == {True, False}
    starts = [entry["fields"]["scheme"] for entry in FILE["control"]]
    assert {start["pairs"] > 0 for start in starts} == {True, False}
    for entry in FILE["control"]:
        assert isinstance(msgspec.convert(entry["fields"], frames.Control), frames.Start)
