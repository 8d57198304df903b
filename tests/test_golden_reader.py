"""``docs/protocol.md`` is enough to read drafts: a reader without any of draftlink's code does."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

from tests import golden_reader

DRAFTS = json.loads((Path(__file__).parent / "golden" / "drafts.json").read_text())["drafts"]
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


def test_it_imports_the_standard_library_alone():
    tree = ast.parse(Path(golden_reader.__file__).read_text())
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    modules |= {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert {name.partition(".")[0] for name in modules if name} <= set(sys.stdlib_module_names)
