"""Training replaces its own older models, and keeps its progress whole."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from safetensors.numpy import load_file
from transformers import LlamaConfig, LlamaForCausalLM

import tinypair
from export import ExportError, place
from tinypair import train
from tinypair.corpus import Source
from tinypair.publish import publish, published


def model(tokenizer, layers: int = 1) -> LlamaForCausalLM:
    sizes = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": layers}
    config = LlamaConfig(len(tokenizer), hidden_size=8, intermediate_size=16, **sizes)
    return LlamaForCausalLM(config)


def test_an_older_model_is_replaced(tokenizer, tmp_path):
    out = tmp_path / "out" / "draft"
    for _ in range(2):
        made = model(tokenizer)
        publish(made, tokenizer, out)
        weights = load_file(out / "model.safetensors")
        name = "model.layers.0.mlp.up_proj.weight"
        assert np.array_equal(weights[name], made.state_dict()[name].numpy())
        assert list(out.parent.iterdir()) == [out]


def test_other_folders_are_not(tokenizer, tmp_path):
    """Another model, a model with files of its owner's, a folder of papers."""
    made = model(tokenizer)
    other, kept, papers = (tmp_path / name for name in ("other", "kept", "papers"))
    publish(model(tokenizer, layers=2), tokenizer, other)
    publish(made, tokenizer, kept)
    (kept / "notes.txt").write_text("mine")
    papers.mkdir()
    (papers / "thesis.tex").write_text("mine")
    (papers / "config.json").write_text("[]")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for folder, words in (
        (other, "is not a model of these sizes"),
        (kept, "also holds 'notes.txt'"),
        (papers, "is not a model of these sizes"),
    ):
        with pytest.raises(ExportError, match=words):
            publish(made, tokenizer, folder)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_embedded_pair_is_what_training_may_replace(tokenizer):
    for folder, shape in ((tinypair.TARGET, train.TARGET), (tinypair.DRAFT, train.DRAFT)):
        place.check(folder, published(shape.config(tokenizer, 512)))


def test_it_is_known_before_the_training(tokenizer, tmp_path, monkeypatch, capsys):
    text = tmp_path / "text.txt"
    text.write_text("A small boat.\n\n" * 400)
    out = tmp_path / "out" / "target"
    out.mkdir(parents=True)
    (out / "letter.txt").write_text("mine")
    monkeypatch.setattr(train, "train", lambda *_: pytest.fail("trained"))
    row = np.zeros(8, np.uint16)
    monkeypatch.setattr(train, "corpus", lambda *_: (tokenizer, row, row))
    given = ["--text", str(text), "--work", str(tmp_path / "work"), "--out", str(out.parent)]
    monkeypatch.setattr("sys.argv", ["train", *given])
    with pytest.raises(SystemExit) as ended:
        train.main()
    assert ended.value.code == 2 and "choose another --out" in capsys.readouterr().err
    assert (out / "letter.txt").read_text() == "mine"


@pytest.mark.parametrize("at", [1, 2])
def test_half_a_corpus_is_made_again(tmp_path, monkeypatch, at):
    """The row that says that all is there comes last, and whole."""
    text = tmp_path / "text.txt"
    text.write_text("\n\n".join(f"A small boat, the {n}th of many." for n in range(400)))
    work, save = tmp_path / "work", np.save

    def full(file, array):
        save(file, array[: len(array) // 2])
        saved.append(file)
        if len(saved) == at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        save(file, array)

    saved: list[object] = []
    sources = [Source.parse(str(text))]
    (tmp_path / "other").mkdir()
    _, row, held_out = train.corpus(sources, tmp_path / "other", 300)
    assert len(held_out) > 1
    work.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(OSError, match="No space left"):
            train.corpus(sources, work, 300)
    for _ in range(2):
        _, again, held_again = train.corpus(sources, work, 300)
        assert np.array_equal(row, again) and np.array_equal(held_out, held_again)
    assert not list(work.glob(".partial-*"))
