"""A bundle that is not whole, or was never checked, is refused in one line."""

from __future__ import annotations

import errno
import json
import os
import shutil

import msgspec
import onnx
import onnxruntime
import pytest

from device_runtime.model import pages
from device_runtime.model.bundle import MANIFEST, BundleError, digest, load_bundle
from device_runtime.model.draft_model import DraftModel


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
    for name, words in (
        ("", "not a draft bundle"),
        ("file", "not a draft bundle"),
        ("nowhere", "there is no folder"),
    ):
        with pytest.raises(BundleError, match=words):
            load_bundle(tmp_path / name)


HUGE = 10**12
ABSURD = {
    "context": {"context": HUGE},
    "no context": {"context": 0},
    "vocabulary": {"vocab_size": 0},
    "negative": {"layers": -1},
    "heads": {"kv_heads": HUGE},
    "digits": {"head_dim": int("9" * 4000)},
    "text": {"model": "x" * 100_000},
    "eos": {"eos_token_ids": [1] * 1000},
    "eos id": {"eos_token_ids": [-1]},
    "bos id": {"bos_token_id": 1 << 62},
    "bucket": {"buckets": [HUGE]},
    "buckets": {"buckets": [1] * 1000},
    "kind": {"precision": "\x1bc[bold]"},
}


@pytest.mark.parametrize("changes", ABSURD.values(), ids=ABSURD)
def test_an_absurd_manifest_is_refused(copy, changes):
    change(copy, **changes)
    with pytest.raises(BundleError, match="cannot be read") as caught:
        load_bundle(copy)
    assert str(caught.value).isprintable() and len(str(caught.value)) <= 1000


def test_sizes_that_are_possible_and_not_here(copy):
    """Each within its bounds; all together they are more memory than any machine has."""
    change(copy, context=1 << 30, layers=1 << 10, kv_heads=1 << 10, head_dim=1 << 10)
    with pytest.raises(BundleError, match=r"the KV cache of .* smaller --context"):
        DraftModel(load_bundle(copy), threads=1)


def test_a_cache_that_the_system_does_not_promise(bundle, monkeypatch):
    """Under a limit of the process's own, say: it was `[Errno 12] Cannot allocate memory`."""

    def refused(*_):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(pages, "zeros", refused)
    with pytest.raises(BundleError, match=r"KV cache of 128 tokens; .* smaller --context") as told:
        DraftModel(load_bundle(bundle().path), threads=2)
    assert "Errno" not in str(told.value)


@pytest.mark.parametrize(
    "changes", [{"vocab_size": 17}, {"layers": 1}, {"layers": 50}, {"kv_heads": 7}, {"head_dim": 3}]
)
def test_a_graph_that_is_not_what_its_manifest_says(copy, changes):
    change(copy, **changes)
    with pytest.raises(BundleError, match=r"cannot be run|does not give the logits"):
        DraftModel(load_bundle(copy), threads=1)


@pytest.mark.parametrize("depth", [100_000])
def test_a_manifest_that_is_too_deep_or_too_long(copy, depth):
    manifest = (copy / MANIFEST).read_text()
    (copy / MANIFEST).write_text('{"x": ' + depth * "[" + depth * "]" + "," + manifest[1:])
    with pytest.raises(BundleError, match="cannot be read"):
        load_bundle(copy)
    (copy / MANIFEST).write_text(manifest + " " * (1 << 20))
    with pytest.raises(BundleError, match="over 1048576 bytes"):
        load_bundle(copy)


def listed(folder, name: str) -> None:
    """The manifest lists a file as it is."""
    files = json.loads((folder / MANIFEST).read_text())["files"]
    change(folder, files=files | {name: msgspec.to_builtins(digest(folder / name))})


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json", MANIFEST])
def test_a_link_out_of_the_bundle_is_refused(copy, tmp_path, name):
    (copy / name).rename(tmp_path / "elsewhere")
    (copy / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="is a link"):
        load_bundle(copy)


@pytest.mark.parametrize("name", ["..", ".", "", "/etc/hostname", "../elsewhere", "a/b", "x\x00y"])
def test_a_listed_file_that_is_not_of_the_bundle_is_refused(copy, tmp_path, name):
    (tmp_path / "elsewhere").write_text("x")
    files = json.loads((copy / MANIFEST).read_text())["files"]
    change(copy, files=files | {name: files["model.onnx"]})
    with pytest.raises(BundleError, match="lacks"):
        load_bundle(copy)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(copy):
    for name in ("tokenizer.json", MANIFEST):
        (copy / name).unlink()
        os.mkfifo(copy / name)
        with pytest.raises(BundleError, match="lacks"):
            load_bundle(copy)


@pytest.mark.parametrize("where", ["../secret", "absolute", "link"])
def test_a_graph_that_reads_a_file_outside_the_bundle_is_refused(
    copy, tmp_path, monkeypatch, where
):
    """By our own check, before onnxruntime, of which some versions have none, opens the graph."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(16))
    (copy / "link").symlink_to(secret)
    weights = onnx.TensorProto(name="w", data_type=1, dims=[4], data_location=1)
    location = str(secret) if where == "absolute" else where
    for key, value in {"location": location, "offset": "0", "length": "16"}.items():
        weights.external_data.add(key=key, value=value)
    x, y = (onnx.helper.make_tensor_value_info(name, 1, [4]) for name in "xy")
    add = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    graph = onnx.helper.make_graph([add], "g", [x], [y], initializer=[weights])
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    (copy / "model.onnx").write_bytes(model.SerializeToString())
    listed(copy, "model.onnx")
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: pytest.fail("it opened"))
    with pytest.raises(BundleError, match=r"onnxruntime cannot load .* is no file of the bundle"):
        DraftModel(load_bundle(copy), threads=1)


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff\x00", b"[" * 100_000])
def test_a_file_that_is_not_what_it_should_be(copy, text):
    for name in ("model.onnx", "tokenizer.json"):
        (copy / name).write_bytes(text)
        listed(copy, name)
    bundle = load_bundle(copy)
    with pytest.raises(BundleError, match="onnxruntime cannot load"):
        DraftModel(bundle, threads=1)
    with pytest.raises(BundleError, match="is no tokenizer"):
        bundle.tokenizer()
