"""The bundle for NPUs: static shapes, QDQ, calibrated; and the device drafts with it."""

from __future__ import annotations

import asyncio

import numpy as np
import onnx
import pytest

from bs_runtime.model.target import Target
from device_runtime.device import Device, Sampling
from device_runtime.model.bundle import BundleError, load_bundle
from device_runtime.model.draft_model import DraftModel
from device_runtime.model.static_graph import MASKED
from export import ExportError
from export.bundle import export_bundle
from tests.conftest import TEXTS
from tests.fakes import served

IDS = np.random.default_rng(0).integers(0, 300, 100).tolist()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "calibrate.txt"
    path.write_text(" ".join(TEXTS) * 30)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory, model_folder, text):
    return export_bundle(
        model_folder("llama"),
        tmp_path_factory.mktemp("npu") / "draft",
        "int8",
        graph="static",
        calibrate=text,
    )


def test_every_shape_is_fixed_and_every_operator_standard(exported):
    manifest = load_bundle(exported.path).manifest
    assert manifest.buckets == [1, 8, 64] and manifest.check.passed
    for count in manifest.buckets:
        model = onnx.load(exported.bucket(count))
        for value in [*model.graph.input, *model.graph.output]:
            sizes = value.type.tensor_type.shape.dim
            assert all(size.dim_value > 0 for size in sizes), value.name
        kinds = {node.op_type for node in model.graph.node}
        assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
        assert not kinds & {"GroupQueryAttention", "MatMulNBits"}
        # Every product with a weight reads it in 8 bits.
        weights = {t.name: t.data_type for t in model.graph.initializer}
        assert sum(kind == onnx.TensorProto.UINT8 for kind in weights.values()) >= 14


def test_weights_are_stored_once_for_all_buckets(exported):
    """Three graphs of the same weights: the data are hardly more than one's."""
    one = sum(
        int(np.prod(t.dims))
        for t in onnx.load(exported.graph, load_external_data=False).graph.initializer
        if t.data_type == onnx.TensorProto.UINT8
    )
    stored = (exported.path / "model.onnx.data").stat().st_size
    assert one <= stored <= 1.5 * one + 200_000


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3", "gemma"])
def test_the_float_graph_is_pytorchs(model_folder, tmp_path, architecture):
    made = export_bundle(model_folder(architecture), tmp_path / "out", "fp32", graph="static")
    assert made.manifest.check.max_logit_difference < 1e-3


def test_rollback_is_a_length_and_what_lies_behind_is_never_seen(exported):
    model, fresh = (DraftModel(exported, threads=1) for _ in range(2))
    fresh.forward(IDS[:20])
    wanted = [fresh.forward([token]).copy() for token in IDS[20:26]]
    model.forward(IDS[:20])
    model.forward(IDS[40:80])
    model.rollback(20)
    assert np.array_equal([model.forward([token]) for token in IDS[20:26]], wanted)


@pytest.fixture(scope="module")
def float_graph(tmp_path_factory, model_folder):
    """The same without rounding: what buckets do shows alone."""
    out = tmp_path_factory.mktemp("float") / "draft"
    return export_bundle(model_folder("llama"), out, "fp32", graph="static")


def test_any_number_of_tokens_is_fed(float_graph):
    """Padding changes nothing but the order of additions."""
    for count in (1, 2, 8, 9, 64, 65, 100):
        model, fresh = (DraftModel(float_graph, threads=1) for _ in range(2))
        found = model.forward(IDS[:count]).copy()
        for token in IDS[:count]:
            wanted = fresh.forward([token])
        assert np.abs(found - wanted).max() < 1e-5 and model.length == count


def test_the_context_can_be_filled(exported):
    model = DraftModel(exported, threads=1)
    model.forward(IDS)
    model.forward([1] * (model.context - 100))
    assert model.length == model.context and MASKED < -100


def test_the_device_drafts_with_it(exported, model_folder):
    """End to end, greedy: the text is the target's own, and most of the draft is accepted."""
    target = Target.load(model_folder("llama"))

    async def write(url: str, mode: str):
        async with Device(exported.path, url, threads=1) as device:
            generation = device.generate(
                "Once upon", max_tokens=40, mode=mode, sampling=Sampling(temperature=0.0)
            )
            async for _ in generation:
                pass
            return generation.result

    with served(target) as url:
        drafted = asyncio.run(write(url, "stop-and-wait"))
        alone = asyncio.run(write(url, "stream"))
    assert drafted.tokens == alone.tokens
    assert drafted.accepted > 0.5 * drafted.drafted > 0


def test_what_does_not_go_together_is_refused(model_folder, tmp_path, text):
    folder, out = model_folder("llama"), tmp_path / "out"
    for precision, graph, given, words in [
        ("int8", "static", None, "give a text with --calibrate"),
        ("int8", "shared", text, "give a text with --calibrate"),
        ("int4", "static", text, "is int8 or fp32"),
        ("int8", "static", tmp_path / "nowhere", "cannot read the text"),
    ]:
        with pytest.raises(ExportError, match=words):
            export_bundle(folder, out, precision, graph=graph, calibrate=given)
    assert not out.exists()


def test_a_bundle_that_lacks_a_bucket_is_refused(exported, tmp_path):
    import shutil

    copy = shutil.copytree(exported.path, tmp_path / "copy")
    (copy / "model-8.onnx").unlink()
    with pytest.raises(BundleError, match=r"lacks model-8\.onnx"):
        load_bundle(copy)
