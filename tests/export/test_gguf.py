"""``draftlink export model.gguf``: the bundle is the file's model, with its words."""

from __future__ import annotations

import gguf
import pytest
import torch

from bs_runtime.model.errors import TargetError
from bs_runtime.model.target import Target
from device_runtime.model.bundle import load_bundle
from export import ExportError
from export.bundle import export_bundle
from tests.bs_runtime.test_gguf_model import IDS, load, rows
from tests.bs_runtime.test_gguf_model import source as random_model
from tests.bs_runtime.test_gguf_tokenizer import MANY, smollm
from tests.gguf_files import TEMPLATE, write


def more(writer: gguf.GGUFWriter) -> None:
    writer.add_chat_template(TEMPLATE)
    writer.add_float32("general.sampling.temp", 0.5)


@pytest.fixture(scope="module")
def words():
    made = smollm()
    made.add_special_tokens(["<|im_start|>"])
    return made


@pytest.fixture(scope="module")
def file(words, tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "Tiny-1M.Q8_0.gguf"
    model = random_model("llama", vocab_size=words.get_vocab_size())
    return write(
        path, "llama", model, words, more=more,
        quantization=gguf.GGMLQuantizationType.Q8_0, eos=0,
    )  # fmt: skip


def test_a_bundle_of_it(file, words, tmp_path):
    made = export_bundle(file, tmp_path / "out", "fp32")
    manifest = load_bundle(made.path).manifest
    assert manifest.model == "Tiny-1M.Q8_0" and manifest.check.passed
    assert manifest.chat_template == TEMPLATE
    assert manifest.sampling.temperature == 0.5
    assert manifest.eos_token_ids == [0, words.token_to_id("<|im_end|>")]
    assert "gguf" in manifest.versions
    tokenizer = made.tokenizer()
    for text in MANY:
        assert tokenizer.encode(text).ids == words.encode(text).ids


def test_a_target_of_it_takes_the_drafts_of_its_bundle(file, tmp_path):
    target = Target.load(file)
    assert target.name == "Tiny-1M.Q8_0"
    manifest = export_bundle(file, tmp_path / "out", "fp32", target=file).manifest
    assert target.tokenizer_hash == manifest.tokenizer_hash
    assert list(target.facts.eos_ids) == manifest.eos_token_ids
    found = target.open().forward(IDS[0].tolist())
    plain = rows(load(file, dtype=torch.float32))
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-4)


def test_a_file_that_is_none_is_refused_in_a_line(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF\3\0\0\0")
    for error, take in ((ExportError, lambda: export_bundle(path, tmp_path / "out")),
                        (TargetError, lambda: Target.load(path))):  # fmt: skip
        with pytest.raises(error, match="is cut off") as caught:
            take()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ExportError, match="there is no folder"):
        export_bundle(tmp_path / "nowhere.gguf", tmp_path / "out")
