"""/metrics: the counters in Prometheus' form, under vLLM's names where it has them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from bs_runtime.operations.stats import BOUNDS_S, Histogram
from bs_runtime.serving.station import Station

# vLLM's counters, its prefix replaced (vllm/v1/metrics, vllm/v1/spec_decode/metrics.py).
COUNTERS = {
    "spec_decode_num_drafts": ("rounds", "Verdicts on drafted tokens."),
    "spec_decode_num_draft_tokens": ("drafted", "Drafted tokens."),
    "spec_decode_num_accepted_tokens": ("accepted", "Drafted tokens that were accepted."),
    "prompt_tokens": ("prompt_tokens", "Tokens of prompts."),
    "generation_tokens": ("tokens", "Tokens that were written."),
}
# Ours alone.
OWN_COUNTERS = {
    "connections": ("connections", "Connections of devices."),
    "generations": ("generations", "Generations begun."),
    "forwards": ("forwards", "Verdicts and steps that wrote; by generation_tokens, per token."),
    "split_asked": ("asked", "split: times that a device had too little to correct by."),
    "looked_up": ("looked_up", "Tokens that were looked up in prompt and text, and checked."),
    "looked_up_right": ("found", "And of them, those that were written."),
    "proposals_checked": ("checked", "Both ends writing: proposed tokens that a step was given."),
    "proposals_right": ("right", "Both ends writing: proposals that the text has, in time or not."),
    "proposals_wrong": ("wrong", "Both ends writing: proposals that the text has not."),
    "draft_bytes": ("draft_bytes", "Bytes of Draft and Propose messages, WebSocket headers too."),
    "bytes_up": ("bytes_up", "Bytes from devices, WebSocket headers included."),
    "bytes_down": ("bytes_down", "Bytes to devices, WebSocket headers included."),
    "model_steps": ("steps", "Forwards of the target."),
    "model_step_rounds": ("step_rounds", "Rounds in them; by steps, the mean batch size."),
    "model_step_tokens": ("step_tokens", "Tokens that they were fed."),
    "model_busy_seconds": ("busy_s", "Time in them."),
}
PREFIX = "draftlink:"


class Collector:
    """Reads a station's counters whenever it is asked."""

    def __init__(self, station: Station) -> None:
        self._station = station

    def collect(self) -> Iterator[Metric]:
        """All metrics."""
        station = self._station
        station.stats.roll(time.monotonic())
        counts, devices = station.stats.meter.counts, station.stats.devices.values()
        for name, (attribute, text) in (COUNTERS | OWN_COUNTERS).items():
            yield CounterMetricFamily(PREFIX + name, text, value=getattr(counts, attribute))
        positions = CounterMetricFamily(
            PREFIX + "spec_decode_num_accepted_tokens_per_pos",
            "Accepted tokens by their position in the draft.",
            labels=["position"],
        )
        for position, accepted in enumerate(counts.accepted_at):
            positions.add_metric([str(position)], accepted)
        yield positions
        finished = CounterMetricFamily(
            PREFIX + "request_success",
            "Generations that ended: by an EOS or the limit, or by the device.",
            labels=["finished_reason"],
        )
        for reason, count in counts.finished.items():
            finished.add_metric([reason], count)
        yield finished
        refused = CounterMetricFamily(PREFIX + "refused", "What was refused.", labels=["code"])
        for code, count in counts.refused.items():
            refused.add_metric([code], count)
        yield refused
        running = sum(device.running for device in devices)
        yield GaugeMetricFamily(
            PREFIX + "num_requests_running", "Generations under way.", value=running
        )
        yield GaugeMetricFamily(PREFIX + "sessions", "Devices connected.", value=len(devices))
        yield GaugeMetricFamily(
            PREFIX + "sessions_limit", "Devices that there is room for.", value=station.sessions
        )
        if station.target is not None:
            slots = station.scheduler.slots
            yield GaugeMetricFamily(
                PREFIX + "model_threads",
                "Threads of a forward: fewer beside other processes.",
                value=station.scheduler.threads,
            )
            yield CounterMetricFamily(
                PREFIX + "num_preemptions", "KV slots emptied for others.", value=slots.evicted
            )
            yield GaugeMetricFamily(
                PREFIX + "kv_cache_usage_perc",
                "Share of the memory for KV slots that they hold, 1 at most.",
                value=slots.bytes / slots.budget,
            )
            yield GaugeMetricFamily(
                PREFIX + "kv_cache_bytes", "Memory of filled KV slots.", value=slots.bytes
            )
            yield GaugeMetricFamily(
                PREFIX + "kv_cache_limit_bytes", "Memory that they may take.", value=slots.budget
            )
        ready = station.unready(time.monotonic()) is None
        yield GaugeMetricFamily(PREFIX + "ready", "1 while devices are taken.", value=ready)
        yield _histogram("request_queue_time_seconds", "A round's wait for a step.", counts.queue)
        yield _histogram("verify_time_seconds", "A round's steps.", counts.verify)


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    bounds = [*(f"{bound:g}" for bound in BOUNDS_S), "+Inf"]
    totals = itertools.accumulate(histogram.counts)
    buckets = list(zip(bounds, totals, strict=True))
    return HistogramMetricFamily(PREFIX + name, text, buckets=buckets, sum_value=histogram.sum)
