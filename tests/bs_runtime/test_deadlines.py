"""Deadlines of a base station's that are up before what they were for has ended."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bench.virtual.loop import run
from bs_runtime.serving.outgoing import Outgoing
from bs_runtime.serving.station import DeviceSocket


def test_a_station_s_deadlines_are_let_go_once_they_are_up():
    """Of a device that is sent to, or waited for, and has just been given up."""

    async def scenario() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0) as up:
                await asyncio.Event().wait()
        outgoing: Any = Outgoing.__new__(Outgoing)
        outgoing._sending = up
        outgoing.give_up()
        socket: Any = DeviceSocket.__new__(DeviceSocket)
        socket._waiting = up
        socket.stop()
        assert socket._stopping

    run(scenario())
