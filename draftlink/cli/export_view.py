"""What ``draftlink export`` says of a bundle."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from draftlink.planning import theory

ACCEPTED = 0.7  # by a target that nobody has named
ROUND = 4  # drafted tokens
ENOUGH = 0.96  # as much as ``auto`` wants: coarser is told where it was asked for


def lines(path: Path, manifest: Any, asked: str) -> Iterator[str]:
    """The lines for a manifest; ``asked``: its precision."""
    check = manifest.check
    size = sum(file.bytes for file in manifest.files.values())
    yield (
        f"{path}: {manifest.precision}, {manifest.graph} graph, {size / 1e6:.1f} MB; against"
        f" PyTorch over {check.positions} positions: overlap with float32 {check.overlap:.4f} ±"
        f" {check.overlap_error:.4f}, top-1 agreement {check.top1_agreement:.1%}, largest logit"
        f" difference {check.max_logit_difference:.2g}, rollback exact"
    )
    if manifest.precision != "fp32":
        yield from _kernels(manifest)
        yield _expected(check)
        if asked in ("int8", "int4") and check.overlap < ENOUGH:
            yield (
                f"warning: {asked} is coarser than this model bears (overlap under {ENOUGH}); leave"
                " --precision away, and the fastest rounding that loses less is found"
            )


def _kernels(manifest: Any) -> Iterator[str]:
    if manifest.quantization is None:
        return
    parts = [
        f"{one.count} in {one.kernel.bits} bits, blocks of {one.kernel.block}"
        + ", zero points" * one.kernel.zero_points
        for one in manifest.quantization.kernels
    ]
    yield "products and tables: " + "; ".join(parts)
    for trial in manifest.quantization.front:
        yield (
            f"  front: {trial.overlap:.4f} ± {trial.overlap_error:.4f} at"
            f" {trial.seconds * 1e3:.2f} ms a token (reckoned), {trial.bytes / 1e6:.0f} MB"
        )


def _expected(check: Any) -> str:
    """What rounding does to a round, measured against the target or reckoned."""
    if check.acceptance is not None:
        before, after = check.float_acceptance, check.acceptance
        said = (
            f"the target accepts {after:.1%} ± {check.acceptance_error:.1%} of its drafts, and"
            f" {before:.1%} of float32's, both measured"
        )
    else:
        before, after = ACCEPTED, theory.acceptance_after(ACCEPTED, check.overlap)
        said = (
            f"with a target that accepts {before:.0%} of float32's drafts, expect about"
            f" {after:.1%} (losses add in quadrature: {1 - before:.3f}² + {1 - check.overlap:.3f}²"
            f" = {math.hypot(1 - before, 1 - check.overlap):.3f}²)"
        )
    rounds = [theory.expected_tokens(alpha, ROUND) for alpha in (after, before)]
    return f"{said}: {rounds[0]:.2f} tokens a round of {ROUND} instead of {rounds[1]:.2f}"
