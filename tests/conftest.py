"""Small random models of each architecture, as transformers folders."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from pathlib import Path
from typing import Any

import pytest

from device_runtime.model.bundle import load_bundle
from draftlink.protocol import frames
from tests import turns

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma", "gpt2")


def _has_portable() -> bool:
    """Whether optimum-onnx can export here, or bundles come from elsewhere. See BUNDLES."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version("transformers").split(".")
        return (int(version[0]), int(version[1])) < (4, 58)
    return True


HAS_PORTABLE = _has_portable()
GRAPHS = ("shared", "portable") if HAS_PORTABLE else ("shared",)
needs_portable = pytest.mark.skipif(
    not HAS_PORTABLE, reason="optimum-onnx asks for transformers below 4.58"
)
TEXTS = ["Once upon a time a small boat went down the river.", "User: a table for two, please."]
CONTEXT = 128

# Where this is set, bundles come from there: an environment of `.[device]` alone exports none.
BUNDLES = os.environ.get("DRAFTLINK_TEST_BUNDLES")


def pytest_configure() -> None:
    with contextlib.suppress(ModuleNotFoundError):  # see BUNDLES
        import torch

        from export import calibrate

        # The models are tiny: a second thread would only be waited for, and a short text will do.
        torch.set_num_threads(1)
        calibrate.TOKENS = 16


@pytest.fixture(autouse=True)
def bounded_turns(monkeypatch):
    """No generation of any test waits in a loop that turns without a reason. See ``turns``."""
    return turns.bound(monkeypatch)


@pytest.fixture
def one_writer(monkeypatch):
    """Peers that cannot both write at once, as before the feature: ``auto`` then picks a mode."""
    others = tuple(name for name in frames.FEATURES if name != frames.BOTH)
    monkeypatch.setattr(frames, "FEATURES", others)


def sizes(architecture: str) -> dict[str, Any]:
    if architecture == "gpt2":
        return {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT}
    return {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": architecture != "qwen2",
    }


@pytest.fixture(scope="session")
def tokenizer():
    from tinypair.corpus import train_tokenizer

    return train_tokenizer(TEXTS * 5, 300)


def save_random(path: Path, architecture: str, tokenizer: Any, **changes: Any) -> Path:
    """A random model of an architecture, with its tokenizer, as a transformers folder."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        architecture,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
        initializer_range=0.05,  # random, but not flat
        **{"vocab_size": len(tokenizer)} | sizes(architecture) | changes,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory, tokenizer):
    """A function from an architecture's name to a folder with a random model of it."""
    made: dict[str, Path] = {}

    def make(architecture: str) -> Path:
        if architecture not in made:
            path = tmp_path_factory.mktemp("models") / architecture
            made[architecture] = save_random(path, architecture, tokenizer)
        return made[architecture]

    return make


@pytest.fixture(scope="session")
def bundle(request, tmp_path_factory):
    """A function from (architecture, precision, graph) to an exported bundle."""
    made: dict[tuple[str, ...], Any] = {}

    def make(architecture: str = "llama", precision: str = "fp32", graph: str = "shared") -> Any:
        key = (architecture, precision, graph)
        if key not in made and BUNDLES is not None:
            made[key] = load_bundle(Path(BUNDLES, "-".join(key)))
        elif key not in made:
            from export.bundle import export_bundle

            model_folder = request.getfixturevalue("model_folder")
            out = tmp_path_factory.mktemp("bundles") / "-".join(key)
            made[key] = export_bundle(model_folder(architecture), out, precision, graph=graph)
        return made[key]

    return make


@pytest.fixture(scope="session")
def certificate(tmp_path_factory) -> tuple[Path, Path, Path]:
    """A certificate for 127.0.0.1, its key, and who signed it, as files."""
    import trustme

    folder = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    chain, key, signer = folder / "cert.pem", folder / "key.pem", folder / "ca.pem"
    for blob in issued.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    issued.private_key_pem.write_to_path(key)
    ca.cert_pem.write_to_path(signer)
    return chain, key, signer


@pytest.fixture(scope="module")
def station():
    """The address of a base station over a target without weights."""
    from tests.endpoints import TABLE
    from tests.fakes import FakeTarget, served

    with served(FakeTarget(TABLE)) as url:
        yield url


@pytest.fixture(scope="module")
def address(station):
    """That of an endpoint over it."""
    from tests.endpoints import endpoint

    with endpoint(station) as (where, _):
        yield where
