"""The public face: three names, loaded when they are used, and what a missing extra says."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from rich.console import Console

import draftlink
from draftlink.host import extras
from tinypair.loopback import base_station, draft_bundle

PROJECT = tomllib.loads((Path(draftlink.__file__).parents[1] / "pyproject.toml").read_text())
HEAVY = ("onnxruntime", "torch", "websockets", "tokenizers", "transformers")
LACKS = "import sys; sys.modules[{module!r}] = None\n"


def fresh(code: str) -> subprocess.CompletedProcess[str]:
    """What a Python says that has just been started."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_importing_it_loads_no_runtime():
    code = "import sys, draftlink; print(sorted({m.partition('.')[0] for m in sys.modules}))"
    loaded = fresh(code).stdout
    assert "draftlink" in loaded and not [name for name in HEAVY if f"'{name}'" in loaded]
    # The control: the name that needs them does load them.
    assert "'onnxruntime'" in fresh(code.replace("print", "draftlink.Device; print")).stdout


def test_a_device_needs_no_torch():
    done = fresh(LACKS.format(module="torch") + "from draftlink import Device, Sampling, generate")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("module", ["onnxruntime", "tokenizers", "websockets"])
@pytest.mark.parametrize("name", ["Device", "generate"])
def test_a_missing_library_is_named_with_what_brings_it(module, name):
    done = fresh(LACKS.format(module=module) + f"from draftlink import {name}")
    said = done.stderr.splitlines()[-1]
    told = f"draftlink.{name} needs {module}: pip install 'draftlink[device]'"
    assert said == f"ImportError: {told}"


def test_a_command_says_so_too():
    code = LACKS.format(module="torch") + (
        "from draftlink.cli import main; sys.argv = ['draftlink', 'bs', 'tinypair']; main()"
    )
    done = fresh(code)
    line = "error: draftlink bs needs torch: pip install 'draftlink[bs]'"
    assert (done.returncode, done.stderr.splitlines()) == (1, [line])


def test_serve_names_its_own_extra():
    code = LACKS.format(module="starlette") + (
        "from draftlink.cli import main; sys.argv = ['draftlink', 'serve', 'draft']; main()"
    )
    done = fresh(code)
    line = "error: draftlink serve needs starlette: pip install 'draftlink[serve]'"
    assert (done.returncode, done.stderr.splitlines()) == (1, [line])


def test_the_extras_do_bring_them():
    """Each library is in the extra that is named, and an extra has no other but of other extras."""
    brought = PROJECT["project"]["optional-dependencies"]
    for extra, modules in extras._OF.items():
        lines = [line for line in brought[extra] if not line.startswith("draftlink[")]
        assert set(modules) == {line.partition(">")[0].replace("-", "_") for line in lines}
    assert {m for modules in extras._OF.values() for m in modules} < set(extras._BY_MODULE)
    assert extras._BY_MODULE["torch"] == extras._BY_MODULE["starlette"] == "bs"
    assert extras._BY_MODULE["onnxruntime"] == extras._BY_MODULE["websockets"] == "device"


def test_other_names_are_none():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = draftlink.Nothing
    assert {"Device", "Sampling", "generate"} <= set(dir(draftlink))


def test_the_wheel_has_no_benchmarks():
    assert not [p for p in PROJECT["tool"]["setuptools"]["packages"] if p.startswith("bench")]


def test_a_text_in_one_call():
    folder = draft_bundle(Console(stderr=True))
    with base_station(Console(stderr=True)) as url:
        options = {"max_tokens": 12, "sampling": draftlink.Sampling(temperature=0.0)}
        result = draftlink.generate(folder, url, "Once upon a time", **options)
        again = draftlink.generate(str(folder), url, "Once upon a time", **options)
    assert len(result.tokens) == 12 and result.tokens == again.tokens
