"""Wait loops that turn although nothing has happened: each turn must have had a reason."""

from __future__ import annotations

from collections import Counter

import pytest

from device_runtime.writers.writing import Writing

MOST = 3  # turns in a row without one


def bound(patch: pytest.MonkeyPatch) -> Counter[str]:
    """A generation that turns in vain fails from here on. Counts turns, by their reason."""
    wait, reasons = Writing.event, Counter[str]()
    vain: dict[int, int] = {}

    async def event(self: Writing, *until_s: float | None) -> None:
        client, begun = self.device.client, self.now()
        before = client.connected.is_set(), client.reconnects
        await wait(self, *until_s)
        reason = "nothing"
        if self.job is not None and self.job.done():
            reason = "job"
        elif self.incoming().done():
            reason = "frame"
        elif (client.connected.is_set(), client.reconnects) != before:
            reason = "connection"
        elif any(begun < at_s <= self.now() for at_s in until_s if at_s is not None):
            reason = "time"
        reasons[reason] += 1
        vain[id(self)] = vain.get(id(self), 0) + 1 if reason == "nothing" else 0
        assert vain[id(self)] <= MOST, f"{MOST + 1} turns for nothing, at {begun} until {until_s}"

    patch.setattr(Writing, "event", event)
    return reasons
