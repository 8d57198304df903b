"""Both graphs of every architecture say what PyTorch says; a failure leaves nothing behind."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import export.bundle
from device_runtime.model.bundle import MANIFEST, load_bundle
from device_runtime.model.draft_model import DraftModel
from export import ExportError, check, quantize
from export.bundle import export_bundle
from tests.conftest import ARCHITECTURES, GRAPHS, needs_portable


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_float_graph_is_pytorchs(bundle, architecture, graph):
    manifest = load_bundle(bundle(architecture, graph=graph).path).manifest
    found = manifest.check
    assert manifest.graph == graph
    assert found.passed and found.positions > 50
    assert found.max_logit_difference < check.MAX_FP32_DIFFERENCE
    assert found.top1_agreement == 1.0
    assert found.rollback_difference == 0.0


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_quantized_weights_pass_their_check_and_are_smaller(bundle, precision, graph):
    small = load_bundle(bundle("llama", precision, graph).path)
    assert small.manifest.check.passed and small.manifest.precision == precision
    assert small.graph.stat().st_size < 0.6 * bundle("llama", graph=graph).graph.stat().st_size


@needs_portable
def test_the_portable_graph_has_standard_operators_alone(bundle):
    nodes = onnx.load(bundle(graph="portable").graph).graph.node
    assert {node.domain for node in nodes} <= {"", "ai.onnx"}
    assert "GroupQueryAttention" in {n.op_type for n in onnx.load(bundle().graph).graph.node}


@pytest.mark.parametrize("graph", GRAPHS)
def test_large_weights_lie_beside_the_graph(model_folder, tmp_path, monkeypatch, graph):
    """As they must beyond protobuf's 2 GiB; here beyond 10 kB."""
    monkeypatch.setattr(quantize, "EMBEDDED_BYTES", 10_000)
    path = export_bundle(model_folder("llama"), tmp_path / "out", graph=graph).path
    assert set(load_bundle(path).manifest.files) == {p.name for p in path.iterdir()} - {MANIFEST}
    assert (path / "model.onnx.data").stat().st_size > (path / "model.onnx").stat().st_size / 10


def break_scales(model: onnx.ModelProto, coder, whole=quantize.quantize) -> None:
    """A quantization with the scales of its largest weight five times too large."""
    whole(model, coder)
    tensor = max(
        (t for t in model.graph.initializer if "scale" in t.name.lower()),
        key=lambda t: len(t.raw_data),
    )
    scale = numpy_helper.to_array(tensor)
    tensor.CopyFrom(numpy_helper.from_array(scale * np.float32(5), tensor.name))


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_broken_quantization_is_a_failed_export(model_folder, tmp_path, monkeypatch, graph):
    monkeypatch.setattr(quantize, "quantize", break_scales)
    with pytest.raises(ExportError, match=f"the int8 {graph} graph does not match PyTorch"):
        export_bundle(model_folder("llama"), tmp_path / "new" / "out", "int8", graph=graph)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_broken_graph_is_a_failed_export(model_folder, tmp_path, monkeypatch, graph):
    """One norm's weights a hundredth too large: no text would show it."""

    def broken(*arguments, **options):
        model = traced(*arguments, **options)
        norm = next(t for t in model.graph.initializer if list(t.dims) == [64])
        value = numpy_helper.to_array(norm) * np.float32(1.01)
        norm.CopyFrom(numpy_helper.from_array(value, norm.name))
        return model

    traced = export.bundle.traced
    monkeypatch.setattr(export.bundle, "traced", broken)
    with pytest.raises(ExportError, match=f"the fp32 {graph} graph does not match PyTorch"):
        export_bundle(model_folder("llama"), tmp_path / "out", "int4", graph=graph)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_that_does_not_run_is_a_failed_export(
    bundle, model_folder, tmp_path, monkeypatch, graph
):
    """And the bundle that was there before stays."""
    out = tmp_path / "out"
    out.mkdir()
    old = (bundle().path / MANIFEST).read_text()
    (out / MANIFEST).write_text(old)

    def broken(model, path):
        node = next(n for n in model.graph.node if n.op_type in ("MatMul", "Gemm"))
        node.op_type = "Erf"
        write(model, path)

    write = quantize.write
    monkeypatch.setattr(quantize, "write", broken)
    with pytest.raises(ExportError, match=f"the fp32 {graph} graph does not load"):
        export_bundle(model_folder("llama"), out, graph=graph)
    assert (out / MANIFEST).read_text() == old and list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_cache_that_forgets_its_rollback_is_found(bundle, model_folder, monkeypatch, graph):
    draft = DraftModel(bundle(graph=graph))
    model, words = export.source.load(model_folder("llama"))
    ids = words.tokenizer.encode(check.TEXT).ids[:40]
    assert check.compare(draft, model, ids, "fp32", "").passed

    def forgetful(length):
        draft._length = max(length, draft._length - 1) if length else 0
        draft._graph.cut(draft._length)

    monkeypatch.setattr(draft, "rollback", forgetful)
    found = check.compare(draft, model, ids, "fp32", "")
    assert found.rollback_difference > 1e-3 and not found.passed


@needs_portable
def test_steps_are_told(model_folder, tmp_path):
    told: list[str] = []
    told_to = {"graph": "portable", "progress": told.append}
    export_bundle(model_folder("llama"), tmp_path / "out", "int8", **told_to)
    text = "\n".join(told)
    for words in ("loading", "tracing", "rounding to int8", "checking int8", "100 of 128 tokens"):
        assert words in text


@needs_portable
def test_a_bundle_is_replaced_and_another_folder_is_not(model_folder, tmp_path):
    out = tmp_path / "bundle"
    for precision in ("fp32", "int8"):
        export_bundle(model_folder("llama"), out, precision, graph="portable")
    assert json.loads((out / MANIFEST).read_text())["precision"] == "int8"
    (tmp_path / "letter.txt").write_text("keep me")
    with pytest.raises(ExportError, match="is not a bundle"):
        export_bundle(model_folder("llama"), tmp_path)
    assert (tmp_path / "letter.txt").read_text() == "keep me"


@needs_portable
def test_the_text_of_the_check(model_folder, tmp_path):
    text = tmp_path / "text.txt"
    with pytest.raises(ExportError, match="cannot read the text"):
        export_bundle(model_folder("llama"), tmp_path / "out", text=text)
    text.write_text("Hi")
    with pytest.raises(ExportError, match="give a text of 16 or more"):
        export_bundle(model_folder("llama"), tmp_path / "out", text=text)
    text.write_text(check.TEXT[:60])
    made = export_bundle(model_folder("llama"), tmp_path / "out", text=text, graph="portable")
    assert made.manifest.check.text == "text.txt" and made.manifest.check.positions < 60
