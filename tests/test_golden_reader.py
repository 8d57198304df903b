"""``docs/protocol.md`` is enough to read drafts: a reader without any of draftlink's code does."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

from tests import golden_reader, golden_reader_both, golden_reader_logprobs

GOLDEN = Path(__file__).parent / "golden"
DRAFTS = json.loads((GOLDEN / "drafts.json").read_text())["drafts"]
PATHS = json.loads((GOLDEN / "both.json").read_text())["paths"]
TOLD = json.loads((GOLDEN / "logprobs.json").read_text())
STREAMED = json.loads((GOLDEN / "streamed.json").read_text())
RANGE_CODED = [
    e for e in DRAFTS if e["scheme"]["type"] != "dense" and e["scheme"].get("coding") != "fp16"
]


def read(entry, data):
    return golden_reader.read_draft(data, entry["scheme"], entry["vocab_size"], entry["history"])


@pytest.mark.parametrize("entry", RANGE_CODED, ids=lambda entry: entry["name"])
def test_reads_golden_drafts(entry):
    names = ("epoch", "base", "length", "first", "waits", "drafted")
    assert read(entry, bytes.fromhex(entry["hex"])) == {name: entry[name] for name in names}


@pytest.mark.parametrize("entry", RANGE_CODED, ids=lambda entry: entry["name"])
def test_no_other_payload_reads_as_the_same(entry):
    """The control: the bytes matter, down to their last bit."""
    data = bytes.fromhex(entry["hex"])
    for other in (data + b"\0", data + b"\1", data[:-1] + bytes((data[-1] ^ 0x80,))):
        try:
            found = read(entry, other)
        except (AssertionError, IndexError):
            continue
        assert found["drafted"] != entry["drafted"] or found["length"] != entry["length"]


@pytest.mark.parametrize("entry", PATHS, ids=lambda entry: entry["name"])
def test_reads_golden_proposals(entry):
    earlier = []
    for proposal in entry["proposals"]:
        data, rest = bytes.fromhex(proposal["hex"]), (entry["vocab_size"], entry["text"], earlier)
        wanted = {"path": entry["path"], "base": entry["base"], **proposal}
        del wanted["bits"], wanted["hex"]
        assert golden_reader_both.read_propose(data, *rest) == wanted
        for other in (data + b"\0", data + b"\1", data[:-1] + bytes((data[-1] ^ 0x80,))):
            try:
                found = golden_reader_both.read_propose(other, *rest)
            except (AssertionError, IndexError):
                continue
            assert found["tokens"] != proposal["tokens"] or found["length"] != proposal["length"]
        earlier = [*earlier, *proposal["tokens"]]


@pytest.mark.parametrize("entry", TOLD["hot"], ids=lambda entry: entry["name"])
def test_reads_golden_log_probabilities(entry):
    data, rest = bytes.fromhex(entry["hex"]), (entry["vocab_size"], entry["count"])
    assert golden_reader_logprobs.read_told(data, *rest) == entry["told"]
    for other in (data + b"\0", data[:-1], data[:-1] + bytes((data[-1] ^ 0x40,))):
        try:
            found = golden_reader_logprobs.read_told(other, *rest)
        except (AssertionError, IndexError):
            continue
        assert found != entry["told"]


@pytest.mark.parametrize("entry", STREAMED["hot"], ids=lambda entry: entry["name"])
def test_reads_golden_surprisals_of_a_stream(entry):
    data = bytes.fromhex(entry["hex"])
    assert golden_reader_logprobs.read_surprisals(data) == entry["bits"]
    for other in (data + b"\0", data[:-1]):
        with pytest.raises((AssertionError, IndexError)):
            golden_reader_logprobs.read_surprisals(other)


@pytest.mark.parametrize("entry", TOLD["refused"], ids=lambda entry: entry["name"])
def test_refuses_what_cannot_be_said(entry):
    counts = entry["tokens"], entry["vocab_size"], entry["count"]
    with pytest.raises((AssertionError, IndexError)):
        golden_reader_logprobs.read_block(bytes.fromhex(entry["hex"]), *counts)


def modules_of(reader):
    tree = ast.parse(Path(reader.__file__).read_text())
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    modules |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    return {name for name in modules if name}


def test_they_import_the_standard_library_alone():
    readers = golden_reader, golden_reader_both, golden_reader_logprobs
    modules = set().union(*map(modules_of, readers))
    modules.remove("tests.golden_reader")
    assert {name.partition(".")[0] for name in modules} <= set(sys.stdlib_module_names)
