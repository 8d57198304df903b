"""The doctor: machines that are made up of files, libraries that are not there, links that fail."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from bs_runtime.serving.server import tls_context
from draftlink.cli import doctor_checks
from draftlink.cli.common import app
from draftlink.host import cache, extras, machine
from tests.bundles import fake_bundle
from tests.fake_models import random_logits
from tests.fakes import FakeTarget, served
from tests.test_pull import TOKEN, tokens


@pytest.fixture(autouse=True)
def quick(tmp_path, monkeypatch):
    """A cache of its own, and no quarter of a gigabyte to read."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "home"))
    monkeypatch.setattr(machine, "READ_BYTES", 1 << 16)
    monkeypatch.setattr(machine, "ROOT", tmp_path / "root")


def doctor(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["doctor", *map(str, arguments)])


def root(tmp_path: Path, **files: str) -> Path:
    for name, text in files.items():
        path = tmp_path / "root" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "root"


CPU = "sys__devices__system__cpu__cpu0__cpufreq__"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, []),
        ({f"{CPU}scaling_governor": "schedutil\n"}, []),
        ({f"{CPU}scaling_governor": "powersave\n"}, ["governor is powersave"]),
        ({f"{CPU}scaling_governor": "powersave", f"{CPU}energy_performance_preference": "x"}, []),
        ({f"{CPU}scaling_max_freq": "600000", f"{CPU}cpuinfo_max_freq": "1800000"}, ["to 33%"]),
        ({f"{CPU}scaling_max_freq": "rubbish", f"{CPU}cpuinfo_max_freq": "1800000"}, []),
        ({"sys__class__thermal__thermal_zone0__temp": "85000"}, ["it has 85 °C"]),
        ({"sys__class__thermal__thermal_zone0__temp": "45000"}, []),
    ],
)
def test_what_slows_a_machine(tmp_path, files, words):
    found = machine.slowed(root(tmp_path, **files))
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("bits", "found"),
    [
        ("0x0", []),
        ("0x50005", ["its voltage is low", "it is throttled"]),
        ("0x50000", ["since it was started its voltage was low",
                     "since it was started it was throttled"]),
        ("nonsense", []),
    ],
)  # fmt: skip
def test_what_a_raspberry_pi_says_of_itself(tmp_path, bits, found):
    where = "sys/devices/platform/soc/soc:firmware/get_throttled"
    assert machine.slowed(root(tmp_path, **{where.replace("/", "__"): bits})) == found


def test_what_kind_of_machine(tmp_path):
    assert machine.name(root(tmp_path)) is None and machine.huge_pages(root(tmp_path)) is None
    where = {
        "proc__device-tree__model": "Raspberry Pi 5\0",
        "sys__kernel__mm__transparent_hugepage__enabled": "always madvise [never]\n",
    }
    made = root(tmp_path, **where)
    assert machine.name(made) == "Raspberry Pi 5"
    assert machine.huge_pages(made) == "never"
    checks = {check.subject: check for check in doctor_checks.here(made)}
    assert checks["huge pages"].status == "note" and "14%" in checks["huge pages"].text
    assert checks["processor"].text.startswith("Raspberry Pi 5, ")


def test_memory_is_read_by_all_threads():
    ticks = iter(range(100))
    rate = machine.memory_bandwidth(3, size=8000, clock=lambda: float(next(ticks)))
    assert rate == 3 * 8000


def test_a_missing_extra_is_named_with_what_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert extras.missing().get("plot") == ["matplotlib"]
    lines = [check for check in doctor_checks.here() if check.subject == "extras"]
    assert ("note", "plot lacks matplotlib: pip install 'draftlink[plot]' brings it") in [
        (check.status, check.text) for check in lines
    ]
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    done = doctor()
    assert done.exit_code == 1 and "device lacks tokenizers" in done.stdout


def test_a_device_that_lacks_the_endpoint_s_libraries_is_not_told_to_install_pytorch(monkeypatch):
    monkeypatch.setitem(sys.modules, "starlette", None)
    lines = [check.text for check in doctor_checks.here() if check.subject == "extras"]
    assert "serve lacks starlette: pip install 'draftlink[serve]' brings it" in lines


def test_a_cache_that_cannot_be(monkeypatch, tmp_path):
    assert doctor().exit_code == 0
    monkeypatch.setenv(cache.VARIABLE, "relative")
    done = doctor()
    assert done.exit_code == 1 and "the whole path" in done.stdout


def test_the_link_is_tried(certificate, tmp_path, bundle):
    """No base station, no trust, no token, another tokenizer: each is a line that says so."""
    gone = doctor("--bs", "ws://127.0.0.1:9")
    assert gone.exit_code == 1 and "fault  link       no base station at ws://" in gone.stdout
    chain, key, signer = certificate
    options = {"tls": tls_context(chain, key), "tokens": tokens()}
    with served(FakeTarget(random_logits(1, 300)), **options) as url:
        assert "is not trusted" in doctor("--bs", url).stdout
        assert "a bearer token is needed" in doctor("--bs", url, "--ca", signer).stdout
        given = ["--bs", url, "--ca", signer, "--token", TOKEN]
        done = doctor(*given)
        assert done.exit_code == 0, done.output
        assert "takes devices: TLS, token taken" in done.stdout and TOKEN not in done.output
        other = fake_bundle(tmp_path / "other", 10)
        assert doctor(other, *given).exit_code == 1  # whose graph is none
        told = doctor(bundle().path, *given)
        assert told.exit_code == 1 and "tokenizer" in told.stdout.partition("fault  trial")[2]


def test_a_trial_says_whether_drafting_pays(bundle, model_folder, tmp_path):
    """A draft and itself as the target: all is accepted; times are this machine's, whatever."""
    from bs_runtime.model.target import Target

    report = tmp_path / "report.json"
    with served(Target.load(str(model_folder("llama")))) as url:
        done = doctor(bundle().path, "--bs", url, "--json", report)
    assert done.exit_code == 0, done.output
    for subject in ("target", "round trip", "rates", "times", "acceptance"):
        assert f"ok     {subject}" in done.stdout
    told = json.loads(report.read_text())["verdict"]
    topk, coupled = told["topk"], told["coupled"]
    assert topk["pays"] == (topk["gain"] > 1.0) and coupled["tokens"] > 0
    assert told["pays"] == (topk["pays"] or coupled["pays"])
    assert all(line in done.stdout for line in (told["text"], *told["also"]))
    assert told["measured"]["alpha"] > 0.8
