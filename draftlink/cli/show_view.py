"""What ``draftlink show`` says of a bundle. Its words may be a stranger's: they are made plain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from draftlink.host.plain import printable
from draftlink.planning.units import binary

NAME = 100  # characters of a stranger's word that are shown
INDENT = 11  # columns of a subject


def lines(path: Path, manifest: Any) -> Iterator[str]:
    """The lines for a manifest, a subject each."""
    size = sum(file.bytes for file in manifest.files.values())
    yield f"bundle     {path}"
    yield f"draft      {printable(manifest.model, NAME)} ({printable(manifest.architecture, NAME)})"
    yield f"graph      {manifest.graph}, {manifest.precision}, {binary(size)}"
    yield (
        f"shape      {manifest.layers} layers, {manifest.kv_heads} KV heads of"
        f" {manifest.head_dim}, V = {manifest.vocab_size:,}"
    )
    yield f"context    {manifest.context:,} tokens"
    yield f"tokenizer  {printable(manifest.tokenizer_hash, NAME)}"
    yield f"chat       {'it has a template' if manifest.chat_template else 'no template'}"
    check = manifest.check
    yield f"check      passed, over {check.positions:,} positions of {printable(check.text, NAME)}"
    yield (
        f"           overlap with float32 {check.overlap:.4f} ± {check.overlap_error:.4f},"
        f" top-1 agreement {check.top1_agreement:.1%}"
    )
    if check.acceptance is not None:
        yield (
            f"           its target accepts {check.acceptance:.1%} ± {check.acceptance_error:.1%}"
            f" of its drafts, {check.float_acceptance:.1%} of float32's"
        )
    if manifest.quantization is not None:
        for one in manifest.quantization.kernels:
            yield f"rounding   {one.count} products: {_kernel(one.kernel)}"


def front(manifest: Any) -> Table | None:
    """The roundings that the bundle's was chosen from; None where there was no choice."""
    if manifest.quantization is None or not manifest.quantization.front:
        return None
    table = Table(title="the front it was chosen from", box=None, title_justify="left")
    for title in ("overlap", "±", "ms a token", "size"):
        table.add_column(title, justify="right")
    table.add_column("kernels", overflow="fold")
    for trial in manifest.quantization.front:
        table.add_row(
            f"{trial.overlap:.4f}",
            f"{trial.overlap_error:.4f}",
            f"{trial.seconds * 1e3:.2f}",
            binary(trial.bytes),
            ", ".join(f"{one.count} {_kernel(one.kernel)}" for one in trial.kernels),
        )
    return table


def _kernel(kernel: Any) -> str:
    zeros = " with zero points" if kernel.zero_points else ""
    return f"{kernel.bits} bits/{kernel.block}{zeros}"
