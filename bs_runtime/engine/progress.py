"""Whether rounds come out of the model. No clock: time is an argument, in seconds."""

from __future__ import annotations

STALLED_S = 10.0  # without a step that went well, while rounds wait
FAILURES = 5  # rounds that failed in a row: more than one device can be to blame for
FAILING_S = 60.0  # for which failures are held against the model, if nobody comes to try again


class Progress:
    """What has come out, and how long the rounds that wait have waited for anything to."""

    def __init__(self) -> None:
        self.failures = 0  # rounds, since one was judged
        self._failed_s = 0.0
        self._waiting_s: float | None = None  # since when rounds wait, or since the last good step

    def waits(self, now: float) -> None:
        """A round waits."""
        if self._waiting_s is None:
            self._waiting_s = now

    def stepped(self, now: float) -> None:
        """A step went well, and rounds still wait."""
        self._waiting_s = now

    def rests(self) -> None:
        """No round waits."""
        self._waiting_s = None

    def judged(self) -> None:
        """A round was judged."""
        self.failures = 0

    def failed(self, now: float) -> None:
        """A round was refused for a fault of the model."""
        self.failures += 1
        self._failed_s = now

    def trouble(self, now: float) -> str | None:
        """Why devices had better go elsewhere, or None."""
        if self._waiting_s is not None and now - self._waiting_s > STALLED_S:
            return f"no step of the model has gone well for {now - self._waiting_s:.0f} s"
        if self.failures >= FAILURES and now - self._failed_s <= FAILING_S:
            return f"the model failed for the last {self.failures} rounds"
        return None
