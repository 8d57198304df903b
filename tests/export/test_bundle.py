"""Every architecture exports, loads, and says what PyTorch says; bad models are refused."""

from __future__ import annotations

import json
import shutil

import pytest

from device_runtime.bundle import MANIFEST, BundleError, load_bundle
from export import ExportError, check
from export.bundle import export_bundle
from tests.conftest import ARCHITECTURES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_float_graph_is_pytorchs(bundle, architecture):
    found = load_bundle(bundle(architecture).path).manifest.check
    assert found.passed and found.positions > 50
    assert found.max_logit_difference < check.MAX_FP32_DIFFERENCE
    assert found.top1_agreement == 1.0
    assert found.rollback_difference == 0.0


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_weights_pass_their_check_and_are_smaller(bundle, precision):
    small = load_bundle(bundle("llama", precision).path)
    assert small.manifest.check.passed
    assert small.graph.stat().st_size < bundle("llama").graph.stat().st_size


def test_a_failed_check_writes_nothing(model_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(check.MIN_OVERLAP, "fp32", 1.1)
    with pytest.raises(ExportError, match="does not match PyTorch"):
        export_bundle(model_folder("llama"), tmp_path / "out", "fp32")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_no_bundle_is_not_overwritten(model_folder, tmp_path):
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(ExportError, match="is not a bundle"):
        export_bundle(model_folder("llama"), tmp_path, "fp32")
    assert (tmp_path / "letter.txt").read_text() == "keep me"


def test_an_unknown_model(tmp_path):
    with pytest.raises(ExportError, match=r"cannot load .*nowhere"):
        export_bundle(tmp_path / "nowhere", tmp_path / "out")


def test_a_context_beyond_the_models(model_folder, tmp_path):
    with pytest.raises(ExportError, match="between 1 and the model's 128"):
        export_bundle(model_folder("llama"), tmp_path / "out", context=4096)


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle().path, tmp_path / "copy")


def test_a_moved_bundle_still_loads(copy):
    assert load_bundle(copy).manifest.model == "llama"


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_corrupt_file_is_refused(copy, name):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleError, match=f"{name} is corrupt"):
        load_bundle(copy)


def test_a_missing_file_is_refused(copy):
    (copy / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"lacks tokenizer\.json"):
        load_bundle(copy)


@pytest.mark.parametrize("verdict", ["missing", "failed"])
def test_a_bundle_without_a_passed_check_is_refused(copy, verdict):
    manifest = json.loads((copy / MANIFEST).read_text())
    if verdict == "missing":
        manifest["check"] = None
    else:
        manifest["check"]["passed"] = False
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="no passed check"):
        load_bundle(copy)


@pytest.mark.parametrize("text", ["", "{}", "no json"])
def test_a_broken_manifest_is_refused(copy, text):
    (copy / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(copy)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(BundleError, match="not a draft bundle"):
        load_bundle(tmp_path)
