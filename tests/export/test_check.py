"""The check says what a rounding costs; coarse is told, broken is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from device_runtime.model.bundle import load_bundle
from draftlink.cli import export_view
from export import choose
from export.bundle import export_bundle
from export.rounding import Rounding


def told(manifest, asked="auto"):
    return "\n".join(export_view.lines(Path("out"), manifest, asked))


def test_what_a_target_will_accept_is_reckoned(bundle):
    """The issue's numbers: 0.944 of float32, of which 70% are accepted."""
    manifest = load_bundle(bundle("llama", "int8").path).manifest
    check = msgspec.structs.replace(manifest.check, overlap=0.944, overlap_error=0.003)
    text = told(msgspec.structs.replace(manifest, check=check))
    assert "overlap with float32 0.9440 ± 0.0030" in text
    assert "a target that accepts 70% of float32's drafts, expect about 69.5%" in text
    assert "0.300² + 0.056² = 0.305²" in text
    assert "2.75 tokens a round of 4 instead of 2.77" in text
    assert "warning" not in text


def test_with_a_target_both_are_measured(model_folder, tmp_path):
    folder = model_folder("llama")
    manifest = export_bundle(folder, tmp_path / "out", "int8", target=folder).manifest
    assert manifest.check.float_acceptance == pytest.approx(1.0, abs=1e-4)
    assert 0.9 < manifest.check.acceptance < 1.0
    assert "of float32's, both measured: 4." in told(manifest)


def test_a_coarse_rounding_is_told_and_not_refused(model_folder, tmp_path, monkeypatch):
    """Everything in 4 bits, one step for a whole row: far worse than int4 is, and no fault."""

    def coarse(precision, made, careful):
        return {one.name: Rounding(4, 64 if one.tied else 256) for one in made.products}

    monkeypatch.setattr(choose, "fixed", coarse)
    manifest = export_bundle(model_folder("llama"), tmp_path / "out", "int4").manifest
    assert manifest.check.passed and manifest.check.overlap < 0.97
    assert manifest.check.overlap_error > 0 and manifest.check.text == "its own"
    monkeypatch.setattr(export_view, "ENOUGH", 0.97)
    assert "warning: int4 is coarser than this model bears" in told(manifest, "int4")
    assert "warning" not in told(manifest)


def test_the_kernels_are_told(bundle):
    manifest = load_bundle(bundle("llama", "int4").path).manifest
    assert {one.kernel.bits for one in manifest.quantization.kernels} == {4, 8}
    assert "in 4 bits, blocks of 32, zero points" in told(manifest)
