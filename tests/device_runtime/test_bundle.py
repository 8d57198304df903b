"""A bundle that is not whole, or was never checked, is refused in one line."""

from __future__ import annotations

import json
import shutil

import pytest

from device_runtime.bundle import MANIFEST, BundleError, load_bundle
from device_runtime.draft_model import DraftModel


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle().path, tmp_path / "copy")


def change(folder, **fields):
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | fields))


def test_a_moved_bundle_still_loads(copy):
    loaded = load_bundle(copy)
    assert loaded.manifest.model == "llama"
    DraftModel(loaded).forward([1, 2])


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_corrupt_file_is_refused(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} is corrupt"):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_missing_file_is_refused(copy, name):
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"lacks {name}"):
        load_bundle(copy)


def test_a_file_that_is_not_listed_or_lies_elsewhere_is_refused(copy):
    files = json.loads((copy / MANIFEST).read_text())["files"]
    change(copy, files={"model.onnx": files["model.onnx"]})
    with pytest.raises(BundleError, match=r"does not list tokenizer\.json"):
        load_bundle(copy)
    change(copy, files=files | {"../copy/model.onnx": files["model.onnx"]})
    with pytest.raises(BundleError, match="lacks"):
        load_bundle(copy)


def test_a_bundle_without_a_passed_check_is_refused(copy):
    check = json.loads((copy / MANIFEST).read_text())["check"]
    for verdict in (check | {"passed": False}, None):
        change(copy, check=verdict)
        with pytest.raises(BundleError, match="no passed check"):
            load_bundle(copy)


def test_another_format_is_refused(copy):
    change(copy, format=2)
    with pytest.raises(BundleError, match="has format 2, this is 1"):
        load_bundle(copy)


def test_another_graph_is_refused(copy):
    change(copy, graph="recurrent")
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(copy)


@pytest.mark.parametrize("text", [b"", b"{}", b"no json", b"\xff\xfe"])
def test_a_broken_manifest_is_refused(copy, text):
    (copy / MANIFEST).write_bytes(text)
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(copy)


def test_what_is_no_bundle_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(BundleError, match="not a draft bundle"):
            load_bundle(path)
