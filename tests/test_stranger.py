"""A stranger's path, from an empty environment: install, demo, export, bs, serve, a chat client.

Downloads are made before, and not timed: they depend on the line. The wheel is installed, not this
checkout, and everything runs in a home, a folder and a network of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.run_snippets import own_network
from tests.snippets import ROOT, blocks
from tests.test_packages import call, wheel  # noqa: F401  (a fixture)

LIMIT_S = 300
PATH = r"""
set -e
draftlink --version
draftlink demo --json demo.json
draftlink report demo.json -o demo.html
draftlink export tinypair -o draft
draftlink bs tinypair > bs.log & bs=$!
trap 'kill $bs $serve; wait' EXIT
until grep -q "^listening" bs.log; do kill -0 $bs; done
draftlink device draft "Once upon a time" > text.txt
draftlink serve draft > serve.log & serve=$!
until grep -q "^serving" serve.log; do kill -0 $serve; done
python client.py > answer.txt
"""


@pytest.mark.full
def test_a_strangers_path(wheel, tmp_path):  # noqa: F811
    (program,) = [b.text for b in blocks() if "from openai import" in b.text]
    (tmp_path / "client.py").write_text(program)
    wanted = [f"{wheel}[demo,serve]", "openai>=2"]
    call(sys.executable, "-m", "venv", tmp_path / "venv", folder=tmp_path)
    bins, wheels = tmp_path / "venv" / "bin", tmp_path / "wheels"
    fetch = ["download", "-q", "-d", wheels, "-c", ROOT / "constraints.txt", *wanted]
    call(bins / "pip", *fetch, folder=tmp_path, timeout=1800)

    begun = time.monotonic()
    install = ["install", "-q", "--no-index", "--find-links", wheels, *wanted]
    call(bins / "pip", *install, folder=tmp_path, timeout=900)
    installed_s = time.monotonic() - begun
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "XDG_"))}
    environment |= {"HOME": str(tmp_path), "PATH": f"{bins}{os.pathsep}{os.environ['PATH']}"}
    command = [*own_network(), "bash", "-c", PATH]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=900, cwd=tmp_path, env=environment
    )
    took_s = time.monotonic() - begun
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    size, down = (
        sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9
        for folder in (tmp_path / "venv", wheels)
    )
    print(f"{took_s:.0f} s, {installed_s:.0f} of it installing; {size:.2f} GB installed,"
          f" {down:.2f} GB of wheels")  # fmt: skip
    for name in ("text.txt", "answer.txt"):
        assert (tmp_path / name).read_text().strip()
    assert "<svg" in (tmp_path / "demo.html").read_text()
    assert took_s < LIMIT_S
