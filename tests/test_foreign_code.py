"""Code that lies in a model's folder, or is named there, never runs, whatever stdin says."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from bs_runtime.model.errors import TargetError
from bs_runtime.model.target import Target
from export import ExportError, source
from export.bundle import export_bundle
from tests.conftest import needs_portable, save_random

ROOT = Path(__file__).parent.parent
MARK = "it ran"


def edit(path: Path, **changes: object) -> None:
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | changes))


def module(path: Path, text: str = "") -> None:
    """A module that leaves a mark beside the model when it is imported."""
    path.parent.mkdir(exist_ok=True)
    mark = path.parents[path.parent.name == "custom_generate"] / MARK
    path.write_text(f"open({str(mark)!r}, 'w').close()\n{text}\n")


CONFIG = (
    "from transformers import LlamaConfig\n"
    "class Config(LlamaConfig):\n"
    "    model_type = 'a-type-of-its-own'\n"
)


def unknown_type(folder: Path) -> None:
    module(folder / "theirs.py", CONFIG)
    edit(folder / "config.json", model_type="a-type-of-its-own")
    edit(folder / "config.json", auto_map={"AutoConfig": "theirs.Config"})


def known_type(folder: Path) -> None:
    module(folder / "theirs.py", CONFIG)
    names = {"AutoConfig": "theirs.Config", "AutoModelForCausalLM": "theirs.Config"}
    edit(folder / "config.json", auto_map=names)


def unknown_tokenizer(folder: Path) -> None:
    module(folder / "theirs.py", "class Tokenizer: pass")
    names = {"AutoTokenizer": ["theirs.Tokenizer", "theirs.Tokenizer"]}
    edit(folder / "tokenizer_config.json", tokenizer_class="Theirs", auto_map=names)


def custom_generate(folder: Path) -> None:
    """transformers runs it without a question, and with ``trust_remote_code=False``."""
    module(folder / "custom_generate" / "generate.py", "def generate(model, **_): pass")


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


def pickled_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": Bomb(folder / MARK)}, folder / "pytorch_model.bin")


def pickled_weights_of_old(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder / MARK)))


def preprocessor(folder: Path) -> None:
    """optimum looks for one, and has nothing to say if it does not load."""
    module(folder / "theirs.py", "class Processor: pass")
    names = {"AutoProcessor": "theirs.Processor", "AutoFeatureExtractor": "theirs.Processor"}
    edit(folder / "preprocessor_config.json", processor_class="Theirs", auto_map=names)


CASES = {
    unknown_type: "needs code of its own, which is never run",
    known_type: "",
    unknown_tokenizer: "needs code of its own, which is never run",
    custom_generate: "",
    pickled_weights: "cannot load",
    pickled_weights_of_old: "cannot load",
    preprocessor: "",
}


def export_load(folder: Path) -> None:
    source.load(folder)


@pytest.fixture
def yes(monkeypatch):
    """Whoever asks on stdin is told yes."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 20))


@pytest.mark.parametrize("load", [Target.load, export_load], ids=["bs", "export"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_never_runs(tmp_path, tokenizer, yes, case, load):
    """``case`` loads, its code ignored, where what it refuses is empty."""
    folder = save_random(tmp_path / "model", "llama", tokenizer)
    case(folder)
    if CASES[case]:
        with pytest.raises((ExportError, TargetError)) as caught:
            load(folder)
        assert CASES[case] in str(caught.value) and "\n" not in str(caught.value)
    else:
        load(folder)
    assert not (folder / MARK).exists()
    assert sys.stdin.readline() == "y\n", "something was asked"


@pytest.mark.parametrize("key", ["_attn_implementation_internal", "_attn_implementation"])
@pytest.mark.parametrize("load", [Target.load, export_load], ids=["bs", "export"])
def test_no_kernel_that_a_config_names(tmp_path, tokenizer, monkeypatch, load, key):
    """From the hub, where the package ``kernels`` is installed."""
    asked: list[object] = []
    if transformers.__version__.startswith("4."):
        fetch = "transformers.modeling_utils.load_and_register_kernel"
    else:
        fetch = "transformers.integrations.hub_kernels.load_and_register_attn_kernel"
    monkeypatch.setattr(fetch, lambda *names: asked.append(names))
    folder = save_random(tmp_path / "model", "llama", tokenizer)
    edit(folder / "config.json", **{key: "someone/attention"})
    load(folder)
    assert asked == []


@needs_portable
def test_optimum_runs_none_either(tmp_path, tokenizer, yes):
    """It looks for a processor beside the model, to copy it."""
    folder = save_random(tmp_path / "model", "llama", tokenizer)
    preprocessor(folder)
    custom_generate(folder)
    export_bundle(folder, tmp_path / "out", "fp32", graph="portable")
    assert not (folder / MARK).exists()
    assert sys.stdin.readline() == "y\n", "something was asked"


def test_the_command_asks_nothing(tmp_path, tokenizer):
    folder = save_random(tmp_path / "model", "llama", tokenizer)
    unknown_type(folder)
    command = [sys.executable, "-m", "draftlink.cli", "export", str(folder), "-o"]
    command.append(str(tmp_path / "out"))
    done = subprocess.run(command, input="y\n" * 20, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and not (folder / MARK).exists()
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ") and "never run" in lines[0]
    assert "y/N" not in done.stdout


def untrusting(call: ast.Call) -> bool:
    for word in call.keywords:
        if word.arg == "trust_remote_code":
            return isinstance(word.value, ast.Constant) and word.value.value is False
    return any(word.arg is None and ast.unparse(word.value) == "options" for word in call.keywords)


def test_every_loader_says_so():
    """The default of transformers is to ask on stdin."""
    found = []
    for path in sorted(ROOT.glob("*/**/*.py")):
        if path.relative_to(ROOT).parts[0] in ("tests", "build"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = ast.unparse(node.func)
                if name.startswith("Auto") and name.endswith(".from_pretrained"):
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", untrusting(node)))
    assert len(found) > 10
    assert [place for place, good in found if not good] == []
