"""The Kotlin client's own tests, built and run by Maven, on what Python wrote for them.

They read the golden files, and what ``jvm_vectors`` writes; what they write is read here.
"""

from __future__ import annotations

import collections
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests import jvm_vectors

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "android_demo"
PATIENCE_S = 900  # of a build that fetches; one that does not takes a minute
# Maven's words where an artifact is neither here nor to be had.
UNREACHED = (
    "Could not transfer artifact",
    "in offline mode",
    "Could not find artifact",
    "Unknown host",
)


def maven(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Maven's run over the project, without a terminal."""
    command = ["mvn", "-q", "-B", *arguments]
    return subprocess.run(
        command, cwd=DEMO, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def unreached(output: str) -> str | None:
    """Maven's line that says what it could not get, if that is why it failed."""
    lines = [line for line in output.splitlines() if any(why in line for why in UNREACHED)]
    return lines[0][:300] if lines else None


def built_and_tested(folder: Path) -> str:
    """What the JVM's tests say. Skips where there is no Maven, no JDK, or no repository."""
    missing = [tool for tool in ("mvn", "javac") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found: the Kotlin client is not built here")
    run = ["test", f"-Ddraftlink.vectors={folder}"]
    done = maven("-o", *run)
    if done.returncode and unreached(done.stdout):
        done = maven(*run)  # the first time here: what it needs is fetched
        if done.returncode and (why := unreached(done.stdout)):
            pytest.skip(f"Maven's repository is not reached: {why}")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def golden_lists() -> dict[tuple[str, str], int]:
    """Every list of entries in the golden files, and how long it is."""
    found = {}
    for path in sorted((ROOT / "tests/golden").glob("*.json")):
        for name, entries in json.loads(path.read_text()).items():
            if isinstance(entries, list):
                found[path.stem, name] = len(entries)
    return found


# What nothing in Kotlin reads yet: candidates beside proposed tokens, and what is due next
# (docs/android.md).
LATER = {
    *(("leaves", name) for name in ("control", "hot", "malformed", "paths")),
    ("window", "vectors"),
    ("paths", "vectors"),
}


def test_kotlin_and_python_read_one_another(tmp_path):
    """Each golden list whole, and rows, frames, ids and noise both ways, to the bit."""
    jvm_vectors.write(tmp_path)
    said = built_and_tested(tmp_path)
    passed: collections.Counter[tuple[str, str]] = collections.Counter()
    for file, name, count in re.findall(r"golden: (\w+)\.json (\w+): (\d+) passed", said):
        passed[file, name] = max(passed[file, name], int(count))
    due = {key: count for key, count in golden_lists().items() if key not in LATER}
    assert passed == due
    equal = dict(re.findall(r"from Python: (\w+): (\d+)(?: numbers)? equal", said))
    assert equal["noise"] == str(jvm_vectors.NOISE**2)
    assert {equal[name] for name in ("rows", "frames", "ids", "bytes")} == {str(jvm_vectors.COUNT)}
    assert set(jvm_vectors.check(tmp_path).values()) == {jvm_vectors.COUNT}
    print(f"{sum(passed.values())} golden entries of {sum(golden_lists().values())} passed")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rows", lambda entry: {**entry, "bits": entry["bits"] + 1}),
        ("frames", lambda entry: {**entry, "hex": entry["hex"][:-2]}),
        ("ids", lambda entry: {**entry, "tokens": [*entry["tokens"], 1]}),
    ],
)
def test_what_python_would_not_have_written_is_found(tmp_path, name, change):
    """The control, on lines of Python's own."""
    jvm_vectors.COUNT, whole = 40, jvm_vectors.COUNT
    try:
        jvm_vectors.write(tmp_path)
    finally:
        jvm_vectors.COUNT = whole
    for each in ("rows", "frames", "ids"):
        lines = (tmp_path / f"{each}.jsonl").read_text().splitlines()
        (tmp_path / f"jvm_{each}.jsonl").write_text("\n".join(lines) + "\n")
    assert jvm_vectors.check(tmp_path) == {"rows": 40, "frames": 40, "ids": 40}
    first, *rest = (tmp_path / f"jvm_{name}.jsonl").read_text().splitlines()
    changed = json.dumps(change(json.loads(first)))
    (tmp_path / f"jvm_{name}.jsonl").write_text("\n".join([changed, *rest]) + "\n")
    with pytest.raises((AssertionError, ValueError)):
        jvm_vectors.check(tmp_path)
