"""Which names a base station answers to."""

from __future__ import annotations

import pytest

from draftlink.host.hosts import Hosts


@pytest.mark.parametrize(
    "header",
    [
        "localhost",
        "LOCALHOST:8765",
        "127.0.0.1:8765",
        "192.168.1.5",
        "[::1]:8765",
        "[fe80::1]",
        "base.example:443",
        "Base.Example.",
    ],
)
def test_ours(header):
    assert Hosts(["base.example", "0.0.0.0"]).known(header)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        ":8765",
        "evil.example",
        "evil.example:8765",
        "localhost.evil.example",
        "base.example.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "localhost:8765@evil.example",
        "localhost:x",
        "::1",
        "[::1]evil.example",
        "[evil.example]",
        "[::1",
        "localhost, evil.example",
    ],
)
def test_not_ours(header):
    assert not Hosts(["base.example"]).known(header)
