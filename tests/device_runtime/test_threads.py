"""Threads are taken where they pay, by what was measured."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

import draftlink.cli  # noqa: F401  (registers the commands)
from device_runtime import draft_model, threads
from device_runtime.device import Device
from device_runtime.draft_model import DraftModel
from draftlink.cli.common import app


@pytest.mark.parametrize(
    "seconds, best",
    [
        ({1: 1.0, 2: 0.6, 4: 0.4, 6: 0.39}, 4),
        ({1: 1.0, 2: 0.95}, 1),  # not a tenth
        ({1: 1.0, 2: 2.0, 4: 0.1, 6: 0.1}, 1),  # a machine that gets slower is not asked further
        ({1: 1.0}, 1),
    ],
)
def test_more_threads_only_where_they_gain(seconds, best):
    assert threads.fastest(seconds.__getitem__, max(seconds)) == best


def test_what_is_tried_ends_at_the_cores():
    assert [threads.counts(n) for n in (1, 2, 4, 6)] == [[1], [1, 2], [1, 2, 4], [1, 2, 4, 6]]


def test_the_draft_takes_the_count_that_was_fastest(bundle, monkeypatch):
    monkeypatch.setattr(draft_model, "available", lambda: 4)
    monkeypatch.setattr(draft_model, "fastest", lambda seconds, most: min((1, 2), key=seconds))
    model = DraftModel(bundle())
    assert model.threads in (1, 2) and model.length == 0
    one = DraftModel(bundle(), threads=1)
    assert one.threads == 1
    assert abs(model.forward([3, 4]) - one.forward([3, 4])).max() < 1e-5


def test_no_threads_are_an_error(bundle):
    with pytest.raises(ValueError, match="threads must be at least 1, not 0"):
        DraftModel(bundle(), threads=0)


@pytest.mark.parametrize("count", [3, 9999, 1 << 40])
def test_more_threads_than_cores_are_an_error_at_once(bundle, monkeypatch, count):
    """Thousands would start, and spin while they wait for one another."""
    monkeypatch.setattr(threads, "available", lambda: 2)
    monkeypatch.setattr(draft_model, "load", lambda *_: pytest.fail("a session was made"))
    words = f"threads must be at most 2, the cores that this process may run on, not {count}"
    with pytest.raises(ValueError, match=words):
        DraftModel(bundle(), threads=count)
    with pytest.raises(ValueError, match=words):
        Device(bundle(), "ws://127.0.0.1:9", threads=count)


@pytest.mark.parametrize("count, words", [(9999, "at most 2"), (0, "least 1"), (-3, "least 1")])
def test_as_an_option_it_is_wrong_usage(monkeypatch, count, words):
    monkeypatch.setattr(threads, "available", lambda: 2)
    done = CliRunner().invoke(app, ["device", "bundle", "Hi", "--threads", str(count)])
    assert done.exit_code == 2 and words in " ".join(done.output.split())
