"""/metrics: the endpoint's counters in Prometheus' form, under vLLM's names where it has them."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from device_runtime.result import Result
from device_runtime.serve.shapes import reason

PREFIX = "draftlink:"
BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Counts:
    """What has been served."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.running = Gauge(
            PREFIX + "num_requests_running", "Requests under way.", registry=self.registry
        )
        self.waiting = Gauge(
            PREFIX + "num_requests_waiting", "Requests behind them.", registry=self.registry
        )
        self._ended = self._counter("request_success", "Texts that ended.", ["finished_reason"])
        self._failed = self._counter("request_errors", "Requests refused or failed.", ["status"])
        self._left = self._counter("request_left", "Requests whose client went away.")
        self._prompt = self._counter("prompt_tokens", "Tokens of prompts.")
        self._cached = self._counter("cached_tokens", "Of them, in the base station's KV cache.")
        self._written = self._counter("generation_tokens", "Tokens that were written.")
        self._drafts = self._counter("spec_decode_num_drafts", "Verdicts on drafted tokens.")
        self._drafted = self._counter("spec_decode_num_draft_tokens", "Drafted tokens.")
        self._accepted = self._counter("spec_decode_num_accepted_tokens", "Those accepted.")
        self._first = self._histogram("time_to_first_token_seconds", "To a text's first token.")
        self._each = self._histogram("time_per_output_token_seconds", "For each token behind it.")

    def _counter(self, name: str, text: str, labels: list[str] | None = None) -> Counter:
        return Counter(PREFIX + name, text, labels or [], registry=self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(PREFIX + name, text, buckets=BOUNDS_S, registry=self.registry)

    def ended(self, result: Result) -> None:
        """A text has ended."""
        self._ended.labels(reason(result)).inc()
        self._prompt.inc(result.prompt_tokens)
        self._cached.inc(result.target_cached_tokens)
        self._written.inc(len(result.tokens))
        self._drafts.inc(result.rounds)
        self._drafted.inc(result.drafted)
        self._accepted.inc(result.accepted)
        self._first.observe(result.ttft_s)
        self._each.observe(result.tpot_s)

    def failed(self, status: int) -> None:
        """A request was answered with an error."""
        self._failed.labels(str(status)).inc()

    def left(self) -> None:
        """A client went away before its text had ended."""
        self._left.inc()

    def text(self, waiting: int) -> bytes:
        """All of it."""
        self.waiting.set(waiting)
        return generate_latest(self.registry)
