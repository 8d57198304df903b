"""What the live page shows, as one JSON object."""

from __future__ import annotations

from typing import Any

from bs_runtime.operations.stats import Counts, Device
from bs_runtime.serving.station import Station
from draftlink import __version__

WINDOW_S = 10  # of the rates
SHOWN_DEVICES = 50


def snapshot(station: Station, now: float) -> dict[str, Any]:
    """Counts, and rates over the last ``WINDOW_S`` seconds; null where nothing was counted."""
    stats = station.stats
    stats.roll(now)
    counts = stats.meter.counts
    since, seconds = stats.meter.since(now, WINDOW_S)
    trouble = station.unready(now)
    target = station.target
    tokens = stats.meter.per_second("tokens")
    devices = sorted(stats.devices.values(), key=lambda d: (not d.running, d.number))
    return {
        "version": __version__,
        "model": None if target is None else target.name,
        "dtype": None if target is None else target.dtype,
        "status": "ready" if trouble is None else trouble.reason,
        "uptime_s": now - stats.started_s,
        "window_s": WINDOW_S,
        "sessions": len(stats.devices),
        "most_sessions": station.sessions,
        "running": sum(d.running for d in stats.devices.values()),
        **_rates(counts, since, seconds),
        "batch": _ratio(counts.step_rounds - since.step_rounds, counts.steps - since.steps),
        "busy": min(1.0, (counts.busy_s - since.busy_s) / seconds),
        "kv_bytes": None if target is None else station.scheduler.slots.bytes,
        "most_kv_bytes": None if target is None else station.scheduler.slots.budget,
        "queue_p50_s": counts.queue.quantile(0.5, since.queue),
        "queue_p99_s": counts.queue.quantile(0.99, since.queue),
        "verify_p50_s": counts.verify.quantile(0.5, since.verify),
        "accepted_by_position": [
            _ratio(accepted, drafted)
            for accepted, drafted in zip(counts.accepted_at, counts.drafted_at, strict=True)
            if drafted
        ],
        "tokens_by_second": tokens,
        "total": {
            "connections": counts.connections,
            "generations": counts.generations,
            "prompt_tokens": counts.prompt_tokens,
            "tokens": counts.tokens,
            "refused": sum(counts.refused.values()),
            "bytes_up": counts.bytes_up,
            "bytes_down": counts.bytes_down,
        },
        "devices": [_device(device, now) for device in devices[:SHOWN_DEVICES]],
    }


def _device(device: Device, now: float) -> dict[str, Any]:
    since, seconds = device.meter.since(now, WINDOW_S)
    return {
        "number": device.number,
        "tenant": device.tenant,
        "scheme": device.scheme,
        "mode": device.mode,
        "running": device.running,
        "connected_s": now - device.since_s,
        "tokens": device.meter.counts.tokens,
        **_rates(device.meter.counts, since, seconds),
    }


def _rates(counts: Counts, since: Counts, seconds: float) -> dict[str, float | None]:
    accepted = counts.accepted - since.accepted
    rounds = counts.rounds - since.rounds
    mean = _ratio(accepted, rounds)
    return {
        "tokens_per_s": (counts.tokens - since.tokens) / seconds,
        "acceptance": _ratio(accepted, counts.drafted - since.drafted),
        "alpha": _alpha(counts, since),
        "draft_share": _ratio(accepted, counts.tokens - since.tokens),
        "forwards_per_token": _ratio(
            counts.forwards - since.forwards, counts.tokens - since.tokens
        ),
        "mean_accepted": mean,
        "bits_up_per_accepted": _ratio(8 * (counts.draft_bytes - since.draft_bytes), accepted),
    }


def _alpha(counts: Counts, since: Counts) -> float | None:
    """Where both ends write, how many proposals with the right prefix the text has, too."""
    right = counts.right - since.right
    return _ratio(right, right + counts.wrong - since.wrong)


def _ratio(a: float, b: float) -> float | None:
    return a / b if b else None
