"""The Kotlin client's own tests, built and run by Maven, on what Python wrote for them.

They read the golden files, and what ``jvm_vectors``, ``jvm_talks`` and ``jvm_texts`` write; what
they write is read here. Over loopback the JVM's device and Python's are at one base station.
"""

from __future__ import annotations

import asyncio
import collections
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from rich.console import Console

from device_runtime.model.bundle import Bundle, load_bundle
from draftlink.protocol.states import State
from tests import jvm_station, jvm_talks, jvm_texts, jvm_vectors
from tests.killable import Station
from tinypair.loopback import draft_bundle

Entry = dict[str, Any]
ROOT = Path(__file__).parent.parent
DEMO = ROOT / "android_demo"
PATIENCE_S = 900  # of a build that fetches; one that does not takes a minute
PROMPTS, TOKENS = 4, 32  # of each run over loopback; the full form has 20 and 128
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


def jvm_says(folder: Path, *options: str) -> str:
    """What the JVM's tests say of a folder. Skips where Maven's repository is not reached."""
    run = ["test", f"-Ddraftlink.vectors={folder}", *options]
    done = maven("-o", *run)
    if done.returncode and unreached(done.stdout):
        done = maven(*run)  # the first time here: what it needs is fetched
        if done.returncode and (why := unreached(done.stdout)):
            pytest.skip(f"Maven's repository is not reached: {why}")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


class Built(NamedTuple):
    """A run of the JVM's tests: what it read and wrote, what it said, and what it ran against."""

    folder: Path
    said: str
    bundle: Bundle
    url: str
    station: Station


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Iterator[Built]:
    """One run for all of these tests, with a base station. Skips where there is no Maven or JDK."""
    missing = [tool for tool in ("mvn", "javac") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not found: the Kotlin client is not built here")
    folder = tmp_path_factory.mktemp("jvm")
    bundle = load_bundle(draft_bundle(Console(stderr=True)))
    jvm_vectors.write(folder)
    jvm_texts.write(folder, bundle, real=False)
    with (folder / "talks.jsonl").open("w") as out:
        entries = jvm_talks.talks(np.random.default_rng(28))
        out.writelines(json.dumps(entry) + "\n" for entry in entries)
    station = Station(folder)
    station.start()
    try:
        url = f"ws://127.0.0.1:{station.port}"
        runs = loopback(bundle, PROMPTS, TOKENS)
        runs.append(jvm_station.asked("coupled auto", runs[0]["prompts"][:1], TOKENS, what="kills"))
        jvm_station.ask(folder, bundle, url, runs)
        with jvm_station.killing(folder, station):
            said = jvm_says(folder)
        yield Built(folder, said, bundle, url, station)
    finally:
        station.kill()


def loopback(bundle: Bundle, count: int, tokens: int) -> list[Entry]:
    """What the JVM's device writes at the base station: each run, those whose text is the target's
    with a shuffled draft too, and some over connections that are cut."""
    prompts = jvm_station.prompts(bundle, count)
    runs = [jvm_station.asked(name, prompts, tokens) for name in jvm_station.RUNS]
    others = [(name, "shuffled") for name, run in jvm_station.RUNS.items() if run.foretells]
    others += [(name, "cuts") for name in jvm_station.CUT]
    return runs + [jvm_station.asked(name, prompts, tokens, what=what) for name, what in others]


def golden_lists() -> dict[tuple[str, str], int]:
    """Every list of entries in the golden files, and how long it is."""
    found = {}
    for path in sorted((ROOT / "tests/golden").glob("*.json")):
        for name, entries in json.loads(path.read_text()).items():
            if isinstance(entries, list):
                found[path.stem, name] = len(entries)
    return found


def test_kotlin_and_python_read_one_another(built):
    """Each golden list whole, and rows, frames, ids and noise both ways, to the bit."""
    passed: collections.Counter[tuple[str, str]] = collections.Counter()
    for file, name, count in re.findall(r"golden: (\w+)\.json (\w+): (\d+) passed", built.said):
        passed[file, name] = max(passed[file, name], int(count))
    assert passed == golden_lists()
    equal = dict(re.findall(r"from Python: (\w+): (\d+)(?: numbers)? equal", built.said))
    assert equal["noise"] == str(jvm_vectors.NOISE**2)
    assert {equal[name] for name in ("rows", "frames", "ids", "bytes")} == {str(jvm_vectors.COUNT)}
    assert set(jvm_vectors.check(built.folder).values()) == {jvm_vectors.COUNT}
    print(f"{sum(passed.values())} golden entries of {sum(golden_lists().values())} passed")


def test_walks_texts_and_logits_are_pythons(built):
    """Of sessions, tokenizers, pieces of text and a real bundle, Kotlin came to the same."""
    said = built.said
    assert f"from Python: talks: {jvm_talks.WALKS} equal" in said
    counts = {name: int(count) for name, count in re.findall(r"(texts|pieces): (\d+) equal", said)}
    assert counts["texts"] > 5 * jvm_texts.RANDOM
    assert counts["pieces"] == len(jvm_texts.KNOWN) * jvm_texts.SEQUENCES
    assert f"refused: {len(jvm_texts.REFUSED)} tokenizers" in said
    assert "from Python: logits: 60 equal" in said


def test_the_walks_go_everywhere():
    """Else they would prove little."""
    mixed = jvm_talks.mixed(list(jvm_talks.talks(np.random.default_rng(28))))
    outcomes = {"taken", "refused", "overtaken", "lost"}
    assert mixed.keys() - outcomes == {state.name for state in State} - {"CLOSED"}
    assert min(mixed.values()) > 100


def texts(entries: list[Entry]) -> list[list[int]]:
    return [entry["tokens"] for entry in entries]


def held_to_python(built: Built, told: dict[str, list[Entry]], count: int, tokens: int) -> None:
    """Both devices' texts, rounds and drafts at one base station. Prints how they compare."""
    for name in jvm_station.FIXED:
        ours = asyncio.run(jvm_station.texts(built.bundle, built.url, name, count, tokens))
        theirs = told[name]
        same = [one["sent"] == other["sent"] for one, other in zip(theirs, ours, strict=True)]
        alphas = [jvm_station.alpha(entries) for entries in (theirs, ours)]
        print(f"{name}: of {count} texts {sum(same)} the same to the bit, alpha {alphas}")
        assert all(one["accepted"] for one in theirs)
        if name == "topk":  # rows are rounded logits, and two versions of onnxruntime differ
            continue
        # Whoever drafts, whatever, however and over which connections, the text is the target's.
        kinds = [told[each] for each in told if each.split()[0] == name]
        assert len(kinds) >= 6
        for entries in kinds:
            assert texts(entries) == texts(ours)[: len(entries)]
        ties = [
            jvm_station.near_tie(built.bundle, name, one, other)
            for one, other, equal in zip(theirs, ours, same, strict=True)
            if not equal
        ]
        assert all(tie < jvm_texts.TOLERANCE for tie in ties), ties
        # The control: another draft is seen in every text.
        shuffled = told[f"{name} shuffled"]
        assert not any(a["sent"] == b["sent"] for a, b in zip(shuffled, ours, strict=True))
        assert jvm_station.alpha(shuffled) < alphas[1] / 2


def test_both_devices_draft_the_same(built):
    """Same bundle, seed and base station: the same frames, byte for byte, but for near-ties."""
    held_to_python(built, jvm_station.told(built.folder), PROMPTS, TOKENS)


def test_the_device_drafts_in_every_mode(built):
    """As it measures, over cuts, and at a base station that was killed; but not a shuffled one."""
    told = jvm_station.told(built.folder)
    for name in jvm_station.MEASURED:
        accepted = [entry["accepted"] for entry in told[name]]
        print(f"{name}: {accepted} accepted, alpha {jvm_station.alpha(told[name])}")
        # With rows ``auto`` may find, in so short a text, that the base station alone is faster.
        assert min(accepted) > 0 or name == "topk auto"
        if jvm_station.RUNS[name].foretells:
            shuffled = jvm_station.alpha(told[f"{name} shuffled"])
            assert shuffled < jvm_station.alpha(told[name]) / 2
    for name in jvm_station.CUT:
        cut = told[f"{name} cuts"]
        assert sum(entry["reconnects"] for entry in cut) > 2
        assert all(entry["accepted"] for entry in cut)
    (killed,) = told["coupled auto kills"]
    assert killed["reconnects"]
    assert "DRAFT" in killed["kinds"][jvm_station.KILLED_AT + 8 :]


@pytest.mark.full
def test_both_devices_draft_the_same_in_long_texts(built, tmp_path):
    jvm_station.ask(tmp_path, built.bundle, built.url, loopback(built.bundle, 20, 128))
    jvm_says(tmp_path, "-Dtest=LoopbackTest")
    told = jvm_station.told(tmp_path)
    held_to_python(built, told, 20, 128)
    for name in ("topk", *jvm_station.MEASURED):
        ours = asyncio.run(jvm_station.texts(built.bundle, built.url, name, 20, 128))
        alphas = [jvm_station.alpha(entries) for entries in (told[name], ours)]
        modes = [collections.Counter(one["mode"] for one in each) for each in (told[name], ours)]
        print(f"{name}: alpha {alphas}, {[dict(each) for each in modes]}")
        assert abs(alphas[0] - alphas[1]) < 0.02


@pytest.mark.full
def test_a_base_station_is_killed_in_every_text(built, tmp_path):
    """And started again, 20 times: the texts are those without it, and the device drafts on."""
    prompts = jvm_station.prompts(built.bundle, 20)
    halves = [("coupled auto", prompts[:10]), ("coupled run-ahead", prompts[10:])]
    runs = [jvm_station.asked(name, half, 60, what="kills") for name, half in halves]
    jvm_station.ask(tmp_path, built.bundle, built.url, runs)
    with jvm_station.killing(tmp_path, built.station):
        jvm_says(tmp_path, "-Dtest=LoopbackTest")
    told = [one for each in jvm_station.told(tmp_path).values() for one in each]
    ours = asyncio.run(jvm_station.texts(built.bundle, built.url, "coupled", 20, 60))
    assert texts(told) == texts(ours)
    assert all(one["reconnects"] for one in told)
    drafts = [one["kinds"][20:].count("DRAFT") / len(one["kinds"][20:]) for one in told]
    print(f"killed 20 times: drafted afterwards {drafts}")
    assert min(drafts) > 0.2


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
