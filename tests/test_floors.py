"""The lowest versions that may be installed do the work: a clean environment of nothing else.

The base station's take gigabytes of PyTorch; they are tried before a release, by
``pytest -m full tests/test_floors.py`` (docs/operating.md).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import tomllib
import venv
from pathlib import Path

import pytest

from bs_runtime.model.target import Target
from device_runtime.device import Device, Sampling
from device_runtime.result import Mode
from tests.conftest import ARCHITECTURES, GRAPHS
from tests.fakes import served
from tests.test_boards import OUT_OF_REACH

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENT = re.compile(r"([A-Za-z0-9_.-]+)>=([0-9.]+)")
PROMPT = "a table and a boat"
BUNDLES = [  # of which the device's tests take
    *((name, "fp32", graph) for name in ARCHITECTURES for graph in GRAPHS),
    ("llama", "int8", "shared"),
    ("llama", "int4", "shared"),
]
WRITE = """
import asyncio, importlib.metadata, importlib.util, json, sys
from pathlib import Path
from device_runtime.device import Device, Sampling

async def write():
    async with Device(Path(sys.argv[1]), sys.argv[2], threads=1) as device:
        for mode in ("stop-and-wait", "run-ahead", "stream"):
            generation = device.generate(
                sys.argv[3], max_tokens=30, sampling=Sampling(temperature=0.0), mode=mode, gamma=4
            )
            async for _ in generation:
                pass
            yield generation.result.text, generation.result.accepted

async def all_():
    return [each async for each in write()]

print(json.dumps({
    "written": asyncio.run(all_()),
    "torch": importlib.util.find_spec("torch") is not None,
    "versions": {name: importlib.metadata.version(name) for name in sys.argv[4:]},
}))
"""


def floors(extra: str) -> dict[str, str]:
    """The lowest versions that an extra and the base allow, by what pyproject.toml says."""
    found = {}
    for requirement in (*PROJECT["dependencies"], *PROJECT["optional-dependencies"][extra]):
        matched = REQUIREMENT.match(requirement)
        assert matched, f"{requirement} has no floor"
        found[matched[1]] = matched[2]
    return found


def installed(folder: Path, extra: str) -> Path:
    """An environment with this project and the floors of an extra: its bin folder."""
    source, environment = folder / "source", folder / "venv"
    unwanted = shutil.ignore_patterns(".*", "build", "*.egg-info", "*.safetensors", "__pycache__")
    shutil.copytree(ROOT, source, ignore=unwanted)
    listed = folder / "floors.txt"
    listed.write_text("".join(f"{name}=={version}\n" for name, version in floors(extra).items()))
    venv.create(environment, with_pip=True)
    command = [environment / "bin/pip", "install", "--quiet", "--disable-pip-version-check",
               "--retries", "0", "--timeout", "20", "--constraint", listed,
               f"{source}[{extra}]"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    if done.returncode and any(sign in done.stderr for sign in OUT_OF_REACH):
        pytest.skip("the package index is out of reach: " + done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    return environment / "bin"


def clean() -> dict[str, str]:
    """This environment without the modules of this checkout."""
    return {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}


def run(*command: object, folder: Path) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=120, cwd=folder,
        env=clean(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


async def written(bundle: Path, url: str, mode: Mode) -> str:
    """The text of this environment's own device."""
    async with Device(bundle, url, threads=1) as device:
        generation = device.generate(
            PROMPT, max_tokens=30, sampling=Sampling(temperature=0.0), mode=mode, gamma=4
        )
        async for _ in generation:
            pass
        return generation.result.text


@pytest.fixture(scope="module")
def device(tmp_path_factory) -> Path:
    """The bin folder of an environment of a device's floors."""
    return installed(tmp_path_factory.mktemp("device"), "device")


def test_a_device_of_the_lowest_versions(device, bundle, model_folder, tmp_path):
    """It loads a bundle that this environment has exported, and writes this environment's text."""
    programs, lowest = device, floors("device")
    draft = bundle(precision="int8").path
    with served(Target.load(str(model_folder("llama")))) as url:
        expected = asyncio.run(written(draft, url, "stream"))
        options = ["--bs", url, "--temperature", "0", "--max-tokens", "30", "--threads", "1"]
        shown = run(programs / "draftlink", "device", draft, PROMPT, *options, folder=tmp_path)
        said = run(programs / "python", "-P", "-c", WRITE, draft, url, PROMPT, *lowest,
                   folder=tmp_path)  # fmt: skip
    found = json.loads(said)
    assert expected and [text for text, _ in found["written"]] == [expected] * 3
    assert [accepted > 0 for _, accepted in found["written"]] == [True, True, False]
    assert expected in shown and not found["torch"]
    for name, version in lowest.items():  # 1.23 is 1.23.0
        assert f"{found['versions'][name]}.0".startswith(f"{version}."), name
    for command in ("device", "plan"):
        assert "Example:" in run(programs / "draftlink", command, "--help", folder=tmp_path)


def test_the_devices_own_tests_need_no_torch(device, bundle, tmp_path):
    """They run where only a device is installed, on bundles that were exported elsewhere.

    At least 60% of them were asked for; all but the one that has a base station beside it do.
    """
    for key in BUNDLES:
        shutil.copytree(bundle(*key).path, tmp_path / "-".join(key))
    tools = ["pytest", "hypothesis", "onnx"]  # which weights a graph names is read with onnx
    install = [device / "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "--constraint", ROOT / "constraints.txt", *tools], check=True)
    source = device.parents[1] / "source"
    done = subprocess.run(
        [device / "python", "-m", "pytest", "-p", "no:cacheprovider", "tests/device_runtime"],
        capture_output=True, text=True, timeout=900, cwd=source,
        env=clean() | {"DRAFTLINK_TEST_BUNDLES": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.search(r"(\d+) passed, (\d+) skipped", done.stdout)
    assert counted, done.stdout[-500:]
    passed, skipped = map(int, counted.groups())
    assert passed >= 490 and skipped <= 1


@pytest.mark.full
def test_a_base_station_of_the_lowest_versions(bundle, model_folder, tmp_path):
    programs = installed(tmp_path, "bs")
    draft, model = bundle().path, str(model_folder("llama"))
    with served(Target.load(model)) as url:
        expected = asyncio.run(written(draft, url, "stream"))
    command = [programs / "draftlink", "bs", model, "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=clean()
    ) as station:
        try:
            address = station.stdout.readline().split()[2]
            for mode in ("stop-and-wait", "stream"):
                assert asyncio.run(written(draft, address, mode)) == expected
        finally:
            station.terminate()
