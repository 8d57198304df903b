"""What parses a peer's bytes, fuzzed with coverage as the guide: fixed seeds, fixed runs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.draftlink import fuzz_decoders

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: it has wheels for Linux on x86-64 alone",
)
# The fault that is planted is found after some 35,000 runs on average, and how many it takes is up
# to the time, too: with as many as the frames have now it is missed once in ten million.
RUNS = {"frames": 600_000, "bits": 60_000, "planted": 600_000}


def fuzz(target: str, runs: int, folder: Path) -> subprocess.CompletedProcess[str]:
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, seed in enumerate(fuzz_decoders.seeds(target)):
        (corpus / str(i)).write_bytes(seed)
    # By way of a shell: a process counts among its own most memory what its parent had when it was
    # made, and these tests' own would be more than the limit.
    return subprocess.run(
        [
            *("sh", "-c", '"$@"; exit $?', "sh"),
            *(sys.executable, "-m", fuzz_decoders.__name__, target),
            *(
                f"-runs={runs}",
                "-seed=1",
                "-max_len=300",
                "-timeout=20",
                "-use_value_profile=1",
                "-rss_limit_mb=1024",
            ),
            f"-artifact_prefix={folder}/",
            str(corpus),
        ],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("target", [t for t in fuzz_decoders.TARGETS if t != "planted"])
@pytest.mark.parametrize("times", [1, pytest.param(50, marks=pytest.mark.full)])
def test_any_bytes_are_a_value_or_a_value_error(target, times, tmp_path):
    run = fuzz(target, RUNS.get(target, 10_000) * times, tmp_path)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_planted_fault_is_found(tmp_path):
    run = fuzz("planted", RUNS["planted"], tmp_path)
    assert run.returncode != 0 and "IndexError: found" in run.stdout + run.stderr
