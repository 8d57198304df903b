"""A base station that can be killed and started again on the same port."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families


def resident_bytes(pid: int) -> int:
    """Of a process's memory, what is its own: without the files that it maps."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    anonymous = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return int(anonymous.split()[1]) * 1024


class Station:
    """``draftlink bs tinypair`` as a process of its own, with ``options``, and what ``environment``
    says beside this one's."""

    def __init__(
        self, folder: Path, *options: str, environment: Mapping[str, str] | None = None
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._options = ["--ticket-key", str(folder / "ticket.key"), *options]
        self._environment = environment or {}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "draftlink.cli", "bs", "tinypair"]
        command += ["--port", str(self.port), *self._options]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, **self._environment}
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("listening")

    def kill(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait(30)

    @property
    def resident_bytes(self) -> int:
        """Of its memory, what is its own: without the files that it maps."""
        return resident_bytes(self.pid)

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process is not None
        return self._process.pid

    def metric(self, name: str) -> float:
        """Of ``/metrics``, a sample without labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as page:
            text = page.read().decode()
        return next(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"draftlink:{name}" and not sample.labels
        )
