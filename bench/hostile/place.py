"""Where an attack takes place: the base station's address, and who the attacker is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from urllib.parse import urlsplit

from device_runtime.transport.connecting import PATH

TOKENS = {"phone": "the-token-of-the-device", "thief": "the-token-of-the-attacker"}
SOURCES = {  # the attacker's addresses; the device's own is 127.0.0.1
    "same": ["127.0.0.1"],
    "one": ["127.0.0.2"],
    "many": [f"127.0.1.{number}" for number in range(1, 251)],
}


@dataclass
class Place:
    """``notes``: what an attack wants to be known of itself, by name; the worst stays."""

    url: str
    sources: list[str] = field(default_factory=lambda: SOURCES["many"])
    notes: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._next: Iterator[str] = cycle(self.sources)

    @property
    def host(self) -> str:
        """The base station's."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The base station's."""
        return urlsplit(self.url).port or 0

    def source(self) -> tuple[str, int]:
        """The local address of the next connection."""
        return next(self._next), 0

    def note(self, name: str, value: float) -> None:
        """Keep the largest."""
        self.notes[name] = max(value, self.notes.get(name, value))

    def count(self, name: str) -> None:
        """One more."""
        self.notes[name] = self.notes.get(name, 0) + 1

    def upgrade(self, *lines: str, token: str = "", body: str = "") -> bytes:
        """A WebSocket's opening handshake, with further header lines."""
        named = [f"Authorization: Bearer {token}"] if token else []
        head = (
            f"GET {PATH} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            *named,
            *lines,
        )
        return ("\r\n".join(head) + "\r\n\r\n" + body).encode()
