"""The cache as a user has it: pull, list, show, rm, names as arguments, the environment."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

import draftlink.cli  # registers the commands
from bs_runtime.operations import logs
from bs_runtime.serving.offer import Offered
from bs_runtime.serving.server import tls_context
from device_runtime.model.bundle import GRAPH, MANIFEST
from draftlink.cli.common import app
from draftlink.cli.models import cached, cached_model
from draftlink.host import cache
from tests.bundles import fake_bundle
from tests.fake_models import random_logits
from tests.fakes import FakeTarget, served
from tests.test_pull import TOKEN, tokens


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "home"))
    return tmp_path / "home"


def command(*arguments: object, said: str = "", **environment: str) -> Result:
    runner = CliRunner(env=environment)
    return runner.invoke(app, list(map(str, arguments)), input=said, auto_envvar_prefix="DRAFTLINK")


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    assert cache.home() == tmp_path / "cache" / "draftlink"
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "mine"))
    assert cache.bundle("one") == tmp_path / "mine" / "bundles" / "one"
    assert cache.hub_model("Qwen/Qwen2.5-0.5B").name == "Qwen--Qwen2.5-0.5B"
    assert cache.entries() == []
    for bad in ("..", "a/b", "", ".hidden", "a\\b", "nul", "x" * 101):
        with pytest.raises(ValueError, match="cannot name a bundle"):
            cache.bundle(bad)
    for bad in ("../x", "a/b/c", "a--b/c", "a/..", ""):
        with pytest.raises(ValueError, match="no id of a model"):
            cache.hub_model(bad)
    monkeypatch.setenv(cache.VARIABLE, "relative")
    with pytest.raises(ValueError, match="the whole path"):
        cache.home()


def test_a_cache_that_cannot_be_looked_at_has_nothing(tmp_path, monkeypatch):
    """A command that was given a path goes on without it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "home"))
    assert cache.entries() == [] and cache.find("any") is None
    assert cached(Path("any")) == Path("any") and cached_model("any") == "any"


def test_a_bundle_comes_from_a_base_station_and_goes_by_its_name(home, tmp_path, certificate):
    """Over TLS with a token, both from the environment; a second time it is here already."""
    chain, key, signer = certificate
    source = fake_bundle(tmp_path / "small-draft", 200_000)
    options = {"tokens": tokens(), "offer": Offered(source), "tls": tls_context(chain, key)}
    with served(FakeTarget(random_logits(1, 20)), **options) as url:
        given = {"DRAFTLINK_TOKEN": TOKEN, "DRAFTLINK_CA": str(signer)}
        refused = command("pull", url, DRAFTLINK_CA=str(signer))
        assert refused.exit_code == 1 and "a bearer token is needed" in str(refused.exception)
        done = command("pull", url, **given)
        place = home / "bundles" / "small-draft"
        assert (done.exit_code, done.stdout) == (0, f"{place}\n"), done.output
        assert TOKEN not in done.output
        assert (place / GRAPH).read_bytes() == (source / GRAPH).read_bytes()
        assert command("pull", url, **given).stdout == f"{place}\n"
        report = tmp_path / "report.json"
        command("pull", url, "-o", tmp_path / "out", "--json", report, **given)
        assert json.loads(report.read_text())["path"] == str(tmp_path / "out")
    other = fake_bundle(tmp_path / "other" / "small-draft", 100, seed=1)
    with served(FakeTarget(random_logits(1, 20)), offer=Offered(other)) as url:
        there = command("pull", url)
        assert there.exit_code == 1 and "is not what is offered" in str(there.exception)
        assert command("pull", url, "--name", "second").exit_code == 0
    assert [entry.name for entry in cache.entries()] == ["second", "small-draft"]
    assert cached(Path("small-draft")) == place
    assert cached(Path("unknown")) == Path("unknown")


def test_a_path_goes_before_a_name(home, tmp_path, monkeypatch):
    fake_bundle(home / "bundles" / "mine", 10)
    monkeypatch.chdir(tmp_path)
    assert cached(Path("mine")) == home / "bundles" / "mine"
    (tmp_path / "mine").mkdir()
    assert cached(Path("mine")) == Path("mine")


def test_what_is_listed_shown_and_removed(home, tmp_path):
    assert "nothing is kept" in command("list").stderr
    fake_bundle(home / "bundles" / "mine", 2048, model="evil \x1b[2J\nname")
    (home / "hub" / "Qwen--Tiny").mkdir(parents=True)
    (home / "hub" / "Qwen--Tiny" / "config.json").write_text("{}")
    (home / "bundles" / ".half.partial-0").mkdir()
    listed = command("list", "--json", tmp_path / "list.json").stdout
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [
        ["bundle", "mine"], ["model", "Qwen/Tiny"], ["unfinished", ".half.partial-0"],
    ]  # fmt: skip
    assert json.loads((tmp_path / "list.json").read_text())[1]["bytes"] == 2
    assert cached_model("Qwen/Tiny") == str(home / "hub" / "Qwen--Tiny")
    shown = command("show", "mine").stdout
    assert "\x1b" not in shown and r"evil \x1b[2J\x0aname" in shown
    for words in ("passed, over 64 positions", "0.9800", "context    128 tokens", "int8"):
        assert words in shown
    assert "draft" not in cache.entries()
    assert command("rm", "mine", said="n\n").exit_code == 0 and cached(Path("mine")).exists()
    assert command("rm", "mine", "Qwen/Tiny", "--yes").exit_code == 0
    assert [entry.kind for entry in cache.entries()] == ["unfinished"]


def test_nothing_is_removed_that_lies_elsewhere(home, tmp_path):
    outside = fake_bundle(tmp_path / "outside", 10)
    (home / "bundles").mkdir(parents=True)
    (home / "bundles" / "linked").symlink_to(outside)
    for name in (str(outside), "../../outside", "nothing"):
        done = command("rm", name, "--yes")
        assert done.exit_code == 1 and "nothing in the cache is called" in str(done.exception)
    assert command("rm", "linked", "--yes").exit_code == 0
    assert (outside / MANIFEST).exists() and not (home / "bundles" / "linked").exists()
    with pytest.raises(ValueError, match="is not in the cache"):
        cache.remove(cache.Entry("bundle", "outside", outside))


def test_every_option_is_read_from_the_environment_and_no_secret_is_shown(tmp_path):
    """By DRAFTLINK_COMMAND_OPTION; what commands share has a short name, too."""
    plan = tmp_path / "plan.json"
    done = command("plan", DRAFTLINK_PLAN_JSON=str(plan), DRAFTLINK_PLAN_ALPHA="0.5")
    assert done.exit_code == 0 and json.loads(plan.read_text())["setting"]["alpha"] == 0.5
    refused = command("pull", "wss://127.0.0.1:9", DRAFTLINK_PULL_NAME="a/b", DRAFTLINK_TOKEN=TOKEN)
    assert TOKEN not in refused.output + str(refused.exception)
    environment = os.environ | {"DRAFTLINK_TOKEN": TOKEN, "DRAFTLINK_BS": "ws://there:1"}
    for name in ("device", "pull"):
        shown = subprocess.run(
            [sys.executable, "-m", "draftlink.cli", name, "--help"],
            env=environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        assert TOKEN not in shown and "DRAFTLINK_TOKEN" in re.sub(r"\s", "", shown)
    nobody = command("device", fake_bundle(tmp_path / "b", 9), "Hi", DRAFTLINK_BS="nonsense")
    assert nobody.exit_code == 1


def test_options_are_named_as_they_are_written():
    """So that a variable can be guessed: DRAFTLINK_BS_TICKET_KEY is --ticket-key."""
    import typer

    assert draftlink.cli
    for name, each in typer.main.get_command(app).commands.items():
        for option in each.params:
            longest = max(option.opts, key=len)
            if longest.startswith("--") and not option.envvar:
                assert longest[2:].replace("-", "_") == option.name, (name, longest)


def test_what_is_offered_has_to_be_a_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "setup", lambda *_: None)  # it would be the tests' after this one
    done = command("bs", "tinypair", "--offer", tmp_path)
    assert done.exit_code == 1 and "cannot be offered" in str(done.exception)
    with contextlib.suppress(FileNotFoundError):
        assert not list(tmp_path.iterdir())
