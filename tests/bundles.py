"""Draft bundles that a device would load, but for their graph: of random bytes, of any size."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec

from device_runtime.model.bundle import GRAPH, MANIFEST, TOKENIZER, Check, Manifest, digest
from tests.fake_models import HASH


def fake_bundle(folder: Path, size: int = 300_000, seed: int = 0, **changes: object) -> Path:
    """A bundle in a folder that is made; ``changes``: of its manifest."""
    folder.mkdir(parents=True)
    (folder / GRAPH).write_bytes(random.Random(seed).randbytes(size))
    (folder / TOKENIZER).write_bytes(b"{}")
    files = {name: digest(folder / name) for name in (GRAPH, TOKENIZER)}
    manifest = Manifest(
        format=1, model="small", architecture="llama", graph="shared", precision="int8",
        vocab_size=300, context=128, layers=2, kv_heads=2, head_dim=16, tokenizer_hash=HASH,
        bos_token_id=None, eos_token_ids=[0], versions={}, files=files,
        check=Check(True, 64, 0.01, 0.99, 0.98, 0.0, "built-in"),
    )  # fmt: skip
    manifest = msgspec.structs.replace(manifest, **changes)
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return folder
