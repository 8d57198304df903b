"""The counters against a conversation's frames, and what is read from them."""

from __future__ import annotations

import dataclasses
import json
import logging

import pytest

from bs_runtime.operations import logs
from bs_runtime.operations.stats import BOUNDS_S, KEPT_S, Histogram, Meter, Stats
from draftlink.link.ledger import websocket_bytes
from draftlink.protocol import frames
from tests.draftlink.test_frames import START


def test_what_a_round_counts():
    stats = Stats(0.0)
    device = stats.enter("phone", 0.0)
    draft = frames.Draft(1, 2, 4, b"abcdefgh")
    size = len(frames.encode(draft))
    stats.count(device, START, 50, 1.0)
    stats.count(device, draft, size, 1.1)
    assert device.running and device.pending == 4
    stats.count(device, frames.Verdict(1, 2, 3, 9, False, 1500, 9000), 10, 1.2)
    counts = stats.meter.counts
    assert (counts.rounds, counts.drafted, counts.accepted, counts.tokens) == (1, 4, 3, 4)
    assert counts.drafted_at[:5] == [1, 1, 1, 1, 0] and counts.accepted_at[:4] == [1, 1, 1, 0]
    assert counts.draft_bytes == websocket_bytes(size, masked=True)
    assert counts.prompt_tokens == len(START.ids) and counts.bytes_down == 12
    assert dataclasses.replace(device.meter.counts, connections=1) == counts
    assert device.pending == 0
    stats.count(device, frames.Tokens(2, 6, (1, 2), True), 10, 1.3)
    assert counts.tokens == 6 and counts.finished["end"] == 1 and not device.running


def test_drafts_in_flight_are_positions_of_one_round():
    """Two drafts, one verdict for the first, then one that ends the epoch."""
    stats = Stats(0.0)
    device = stats.enter("", 0.0)
    for base in (2, 4):
        stats.count(device, frames.Draft(1, base, 2, b"x", waits=False), 9, 0.0)
    stats.count(device, frames.Verdict(1, 2, 2, None, False, 0, 0), 9, 0.0)
    assert device.pending == 2
    stats.count(device, frames.Verdict(1, 4, 0, 7, False, 0, 0), 9, 0.0)
    assert device.pending == 0 and stats.meter.counts.drafted_at[:3] == [2, 2, 1]


def test_a_window_is_what_came_in_it():
    meter = Meter(100.0)
    for second in range(100, 130):
        meter.roll(second + 0.5)
        meter.counts.tokens += second - 99
    since, seconds = meter.since(130.25, 10)
    assert meter.counts.tokens - since.tokens == sum(range(21, 31)) and seconds == 10.25
    assert meter.per_second("tokens")[-3:] == [28, 29, 30]
    meter.since(10_000.0, 1)  # long silence is no long list
    assert meter.per_second("tokens") == [0] * KEPT_S


def test_quantiles_lie_within_their_bucket():
    histogram, nothing = Histogram(), Histogram()
    assert histogram.quantile(0.5, nothing) is None
    for value in [0.0015] * 98 + [0.7, 99.0]:
        histogram.add(value)
    assert 0.001 < histogram.quantile(0.5, nothing) <= 0.002
    assert 0.5 < histogram.quantile(0.985, nothing) <= 1.0
    assert histogram.quantile(1.0, nothing) == BOUNDS_S[-1]


def _line(formatter: logging.Formatter, text: str, **values) -> str:
    record = logging.makeLogRecord({"msg": text, "levelname": "INFO", "name": "draftlink.bs"})
    record.values = values
    return formatter.format(record)


@pytest.fixture
def named():
    class Name:
        request_id = "c0ffee-3"

    token = logs.current.set(Name())
    yield
    logs.current.reset(token)


def test_a_line_is_one_line_and_says_whose_it_is(named):
    forged = "refused\n2026 info all is well \x1b[2J"
    line = _line(logs.TextFormatter(), forged, tenant="phone")
    assert (
        "\n" not in line and "\x1b" not in line and line.endswith("request=c0ffee-3 tenant=phone")
    )
    line = _line(logs.JsonFormatter(), forged, tenant="phone")
    entry = json.loads(line)
    assert "\n" not in line and entry["event"] == r"refused\x0a2026 info all is well \x1b[2J"
    assert (entry["request"], entry["tenant"], entry["level"]) == ("c0ffee-3", "phone", "info")
