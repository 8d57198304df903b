"""What a board needs can be installed on it: wheels, no compiler, no torch."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
DEVICE = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["device"]]
# Raspberry Pi OS since bookworm, Ubuntu since 20.04 (JetPack 5 and 6): glibc 2.28 or later.
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64",
             "manylinux2014_aarch64")  # fmt: skip
OUT_OF_REACH = ("NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ReadTimeout",
                "ProxyError", "SSLError", "Max retries exceeded", "403", "No route")  # fmt: skip


def test_the_device_extra_has_no_torch():
    assert not any("torch" in name or "transformers" in name for name in DEVICE)


@pytest.mark.parametrize(
    "python",
    [
        pytest.param("3.11", marks=pytest.mark.full),
        pytest.param("3.12", marks=pytest.mark.full),
        "3.13",
    ],
)
def test_every_dependency_of_the_device_has_a_wheel_for_aarch64(python, tmp_path):
    """``--dry-run`` resolves for the other platform and reads metadata alone."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed",
               "--disable-pip-version-check", "--only-binary=:all:", "--target", str(tmp_path),
               "--implementation", "cp", "--python-version", python, "--retries", "0",
               "--timeout", "20", *(x for p in PLATFORMS for x in ("--platform", p)),
               *DEVICE]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode and any(sign in done.stderr for sign in OUT_OF_REACH):
        pytest.skip("the package index is out of reach: " + done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert "onnxruntime-" in done.stdout and "tokenizers-" in done.stdout
