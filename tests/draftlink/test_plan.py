"""Plans: the formulas put together, the paper's figure, and the command."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from draftlink import cli
from draftlink.link import shaping
from draftlink.planning import plan, theory
from draftlink.planning.plan import Setting

LTE = Setting(0.8, 0.010, 0.045, 0.045, shaping.profile("lte"))


def draftlink(*arguments: str):
    return CliRunner().invoke(cli.app, ["plan", *map(str, arguments)])


def test_the_paper_s_cost_ratios():
    """L at its K, as it gives them; and with everything counted."""
    rows = {(row.k, row.coding): row for row in plan.paper_figure(0.8)}
    paper = [rows[k, "paper"].cost_ratio for k in plan.PAPER_KS]
    assert paper == pytest.approx([0.0700, 0.0702, 0.0723, 0.093, 0.300], abs=2e-4)
    for k in plan.PAPER_KS:
        assert rows[k, "paper"].cost_ratio <= rows[k, "fp16"].cost_ratio
        row = rows[k, "lattice"]
        assert row.speedup == pytest.approx(max(row.speedups), rel=1e-12)
        assert row.speedups[0] == pytest.approx(1.8 / (1 + row.cost_ratio))
    # What its count leaves out grows with K; a row of all V needs no ids.
    assert rows[3200, "paper"].speedup / rows[3200, "fp16"].speedup > 1.08
    assert rows[32_000, "paper"].bits == rows[32_000, "fp16"].bits == 512_000
    assert rows[320, "lattice"].bits < rows[320, "paper"].bits / 2


def test_a_plan_is_what_a_search_over_the_formulas_finds():
    for name, profile in shaping.PROFILES.items():
        for alpha in (0.3, 0.75, 0.9):
            setting = replace(LTE, alpha=alpha, link=profile)
            costs, found = setting.costs(), plan.make(setting)
            wait, _, stream = found.modes
            times = [theory.stop_and_wait_time(alpha, g, costs) for g in range(1, 200)]
            assert wait.time_per_token_s == pytest.approx(min(times)), name
            assert times[wait.gamma - 1] == pytest.approx(min(times))
            assert stream.speedup == 1.0
            best = min(found.modes, key=lambda mode: mode.time_per_token_s)
            assert found.best == best.mode
            for mode in found.modes:
                assert mode.speedup == pytest.approx(0.045 / mode.time_per_token_s)
                assert mode.tokens_per_s * mode.time_per_token_s == pytest.approx(1)
    assert plan.make(LTE).best == "run-ahead"
    assert plan.make(replace(LTE, link=shaping.profile("satellite"))).best == "stream"
    assert plan.make(replace(LTE, alpha=0.0)).best == "stream"


def test_costs_count_the_link():
    costs = LTE.costs()
    assert costs.uplink_s == pytest.approx(LTE.bits() / 5e6)
    assert costs.rtt_s == LTE.link.mean_rtt_s > 0.06  # losses cost their stalls
    assert costs.message_s == pytest.approx(2 * 8 * plan.MESSAGE_BYTES / 5e6)


def test_k_is_the_largest_that_is_nearly_free_or_the_best_measured():
    slow = replace(LTE, link=shaping.adjusted(LTE.link, rate_up=2e5))
    assert plan.make(slow).suggested_k < plan.make(LTE).suggested_k <= 256
    found = plan.make(slow)
    for k in found.ks:
        if k.alpha_to_repay is not None:  # at that acceptance the bits are paid for
            with_bits = theory.run_ahead_time(k.alpha_to_repay, replace(slow, k=k.k).costs())
            free = theory.run_ahead_time(0.8, replace(slow.costs(), uplink_s=0.0))
            assert with_bits == pytest.approx(free)
    # At 20 kbit/s even acceptance of everything does not pay for the bits of 256 entries.
    slower = plan.make(replace(slow, link=shaping.adjusted(LTE.link, rate_up=2e4)))
    assert slower.ks[0].alpha_to_repay is not None and slower.ks[-1].alpha_to_repay is None
    # At 200 kbit/s the gain from 32 to 256 does not pay for its bits; from 2 to 32 it does.
    assert plan.make(slow, {2: 0.6, 32: 0.8, 256: 0.81}).suggested_k == 32
    assert plan.make(LTE, {2: 0.6, 32: 0.8, 256: 0.81}).suggested_k == 256


def test_the_command(tmp_path):
    out = tmp_path / "plan.json"
    done = draftlink("--link", "lte", "--rtt", "100ms", "--t-draft", "5ms", "--json", out)
    assert done.exit_code == 0, done.output
    assert "best: run-ahead" in done.output
    result = json.loads(out.read_text())
    assert [mode["mode"] for mode in result["modes"]] == ["stop-and-wait", "run-ahead", "stream"]
    assert result["setting"]["link"]["rtt_s"] == 0.1
    assert result["costs"]["draft_s"] == 0.005
    done = draftlink("--paper", "--json", out)
    assert done.exit_code == 0 and "0.0723" in done.output
    assert len(json.loads(out.read_text())) == 15


ANSWER = re.compile(r"best: (\S+); K: (\d+); (\d+) payload bits per drafted token")
MEASURED = ["--alpha-at", "2=0.6", "--alpha-at", "32=0.8", "--alpha-at", "256=0.81"]


@pytest.mark.parametrize(
    "arguments, k",
    [
        ([], 128),
        (["--k", "16"], 16),  # as stated, though another is suggested
        ([*MEASURED, "--rate-up", "200k"], 32),
        ([*MEASURED, "--rate-up", "200k", "--k", "16"], 32),
    ],
)
def test_the_answer_is_what_the_tables_say(tmp_path, arguments, k):
    """One K: its bits, its row of the one table, and the other table, which is at that K."""
    out = tmp_path / "plan.json"
    done = draftlink("--link", "lte", *arguments, "--json", out)
    found = json.loads(out.read_text())
    best, said, bits = ANSWER.search(" ".join(done.output.split())).groups()
    (row,) = (row for row in found["ks"] if row["k"] == int(said))
    wait, ahead, _ = found["modes"]
    assert int(said) == found["setting"]["k"] == k
    assert found["setting"]["alpha"] == row["alpha"]
    assert bits == f"{row['bits']:.0f}" == f"{found['bits']:.0f}"
    assert row["stop_and_wait_tokens_per_s"] == pytest.approx(wait["tokens_per_s"])
    assert row["run_ahead_tokens_per_s"] == pytest.approx(ahead["tokens_per_s"])
    assert best == found["best"] == min(found["modes"], key=lambda m: m["time_per_token_s"])["mode"]
    assert f"K = {k}, α = {row['alpha']:g}" in " ".join(done.output.split())
    assert ("suggested: 128" in " ".join(done.output.split())) == (found["suggested_k"] != k)


@pytest.mark.parametrize("arguments", [[], ["--paper"]])
@pytest.mark.parametrize("ending, first", [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_plots(tmp_path, arguments, ending, first):
    path = tmp_path / f"plot{ending}"
    assert draftlink(*arguments, "--plot", path).exit_code == 0
    assert path.read_bytes().startswith(first)


def test_without_matplotlib_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    failed = draftlink("--plot", tmp_path / "plot.png")
    assert "pip install 'draftlink[plot]'" in str(failed.exception)
    assert draftlink().exit_code == 0


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--alpha", "1.2"], "alpha must be in"),
        (["--k", "0"], "k must be between 1 and"),
        (["--lattice", "0"], "the lattice total"),
        (["--t-draft", "0"], "draft time must be above 0"),
        (["--t-draft", "fast"], "is not a time such as"),
        (["--t-target", "0"], "target_s must be above 0"),
        (["--link", "4g"], "there is no profile '4g'"),
        (["--alpha-at", "9=1.5"], "alpha must be in"),
        (["--plot", "plot.pdf"], "a .png or an .svg"),
    ],
)
def test_bad_settings_are_one_line(arguments, words):
    failed = draftlink(*arguments)
    if failed.exit_code == 2:  # what is no time, or no profile, is refused as it is read
        assert words in " ".join(failed.output.split())
        return
    assert failed.exit_code == 1
    assert isinstance(failed.exception, ValueError) and words in str(failed.exception)
    assert "\n" not in str(failed.exception)


@pytest.mark.parametrize("arguments", [["--coding", "zip"], ["--alpha-at", "3"]])
def test_wrong_usage(arguments):
    assert draftlink(*arguments).exit_code == 2
