"""The benchmarks load, and have prompts to run on: a number in the README must be repeatable."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import bench
import tinypair


@pytest.mark.parametrize(
    "name", [m.name for m in pkgutil.iter_modules(bench.__path__) if not m.ispkg]
)
def test_a_benchmark_loads(name):
    assert importlib.import_module(f"bench.{name}").main


def test_the_listed_prompts_are_there():
    assert len(tinypair.prompts(10)) == 10
    assert len(tinypair.prompts(1000)) == 50
