"""The proxy on real sockets: never earlier than the model says, and not much later."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time

import pytest
import websockets
from typer.testing import CliRunner

from draftlink import cli
from draftlink.link import proxy
from draftlink.link.shaping import LinkProfile, make_link

HERE = ("127.0.0.1", 0)
# The machine may be busy: upper bounds say only that nothing is out of proportion.
SLACK_S = 2.0


def run(main):
    """Run it in the proxy's own event loop; nothing here may take longer than this."""
    with asyncio.Runner(loop_factory=proxy.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(main, 20))


@contextlib.asynccontextmanager
async def through(profile, serve, **link):
    """A connection to ``serve`` (a callback for asyncio.start_server) through the proxy."""
    server = await asyncio.start_server(serve, *HERE)
    to = ("127.0.0.1", server.sockets[0].getsockname()[1])
    async with server, proxy.Proxy(make_link(profile, **link), HERE, to) as opened:
        reader, writer = await asyncio.open_connection("127.0.0.1", opened.port)
        try:
            yield opened, reader, writer
        finally:
            writer.transport.abort()


async def echo(reader, writer):
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


def test_rate_and_delay():
    """200 kB up at 4 Mbit/s and down at 8: 0.4 s and 0.2 s, of which the last segment's share is
    all that cannot overlap; and a round trip."""
    profile = LinkProfile(4e6, 8e6, rtt_s=0.06)

    async def main():
        async with through(profile, echo) as (_, reader, writer):
            begun = time.monotonic()
            writer.write(b"x")
            assert await reader.readexactly(1) == b"x"
            one = time.monotonic() - begun

            sent = bytes(range(256)) * 800
            begun = time.monotonic()
            writer.write(sent)
            writer.write_eof()
            came, curve = b"", []
            while data := await reader.read(4096):
                came += data
                curve.append((len(came), time.monotonic() - begun))
            return one, sent, came, curve

    one, sent, came, curve = run(main())
    assert came == sent
    assert 0.06 + 8 / 4e6 + 8 / 8e6 <= one <= 0.06 + SLACK_S
    # No byte may be there before the uplink, the slower one, has sent it and half a round trip
    # twice has passed: at every point of the way, not only at its end.
    assert all(at >= 8 * size / 4e6 + 0.06 for size, at in curve)
    assert curve[-1][1] <= 8 * len(sent) / 4e6 + 0.06 + SLACK_S
    # Negative control: a link twice as fast would be caught.
    assert any(at < 8 * size / 2e6 + 0.06 for size, at in curve)


def test_a_jittery_lossy_link_brings_every_byte_in_order():
    profile = LinkProfile(20e6, 20e6, 0.01, jitter_s=0.005, loss=0.1)

    async def main():
        async with through(profile, echo, stall_s=0.02, seed=1) as (_, reader, writer):
            sent = bytes(i % 251 for i in range(300_000))
            writer.write(sent)
            writer.write_eof()
            return sent, await reader.read()

    sent, came = run(main())
    assert came == sent


def test_half_close_still_lets_the_answer_come():
    async def answer_at_the_end(reader, writer):
        data = await reader.read()
        writer.write(data[::-1])
        await writer.drain()
        writer.close()

    async def main():
        profile = LinkProfile(1e6, 1e6, 0.02)
        async with through(profile, answer_at_the_end) as (opened, reader, writer):
            writer.write(b"abc")
            writer.write_eof()
            assert await reader.read() == b"cba"
        # The totals are those of ended connections: leaving ended this one.
        return opened.uplink_bytes, opened.downlink_bytes, opened.connections

    assert run(main()) == (3, 3, 1)


def test_an_outage_delays_and_breaks_nothing():
    async def main():
        outages = [(0.0, 0.4)]
        begun = time.monotonic()
        async with through(LinkProfile(1e7, 1e7, 0.0), echo, outages=outages) as (
            _,
            reader,
            writer,
        ):
            started = time.monotonic()
            writer.write(b"still here")
            assert await reader.readexactly(10) == b"still here"
            return time.monotonic() - begun, time.monotonic() - started

    since_before, _ = run(main())
    assert since_before >= 0.4


@pytest.mark.parametrize("slow", ["link", "reader"])
def test_back_pressure_holds_the_writer_back(slow):
    """Of 50 MB offered only so much is taken as the buffers hold: sockets', and the proxy's two."""

    async def main():
        async def never_reads(reader, writer):
            reader._transport.pause_reading()
            await asyncio.sleep(30)

        rate = 1e5 if slow == "link" else 1e10
        profile = LinkProfile(rate, rate, 0.0)
        serve = never_reads if slow == "reader" else echo
        async with through(profile, serve) as (_, _, writer):
            sent = 0
            while sent < 50_000_000:
                writer.write(bytes(100_000))
                sent += 100_000
                try:
                    await asyncio.wait_for(writer.drain(), 0.5)
                except TimeoutError:
                    return sent
            return sent

    assert run(main()) < 40_000_000


def test_broken_connections_and_an_absent_base_station():
    async def hang_up(reader, writer):
        await reader.read(1)
        proxy._reset(writer)

    async def main():
        async with through(LinkProfile(1e7, 1e7, 0.02), hang_up) as (_, reader, writer):
            writer.write(b"x")
            with pytest.raises(ConnectionError):  # broken, not a clean end
                if await reader.read() == b"":
                    raise AssertionError("a reset came through as an end")
        lines = []
        gone = await asyncio.start_server(echo, *HERE)
        to = ("127.0.0.1", gone.sockets[0].getsockname()[1])
        gone.close()
        await gone.wait_closed()
        link = make_link(LinkProfile(1e7, 1e7, 0.0))
        async with proxy.Proxy(link, HERE, to, lines.append) as opened:
            reader, _ = await asyncio.open_connection("127.0.0.1", opened.port)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        return lines

    (line,) = run(main())
    assert "cannot connect to 127.0.0.1" in line


def test_closing_ends_every_connection():
    async def main():
        async with through(LinkProfile(1e6, 1e6, 0.5), echo) as (opened, reader, writer):
            writer.write(b"in flight for ever")
            await asyncio.sleep(0.05)
            await opened.__aexit__(None, None, None)
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            assert len(asyncio.all_tasks()) <= 3  # this one, the server's callback, the runner's

    run(main())


def test_a_websocket_goes_through():
    async def serve(socket):
        async for message in socket:
            await socket.send(message)

    async def main():
        async with websockets.serve(serve, *HERE, compression=None) as server:
            to = ("127.0.0.1", server.sockets[0].getsockname()[1])
            link = make_link(LinkProfile(1e7, 1e7, 0.02))
            async with (
                proxy.Proxy(link, HERE, to) as opened,
                websockets.connect(f"ws://127.0.0.1:{opened.port}", compression=None) as socket,
            ):
                begun = time.monotonic()
                for message in (b"", b"\x01" * 100, bytes(70_000)):
                    await socket.send(message)
                    assert await socket.recv() == message
                return time.monotonic() - begun

    # Three round trips, and 70 kB each way.
    assert run(main()) >= 3 * 0.02 + 2 * 8 * 70_100 / 1e7


def test_the_command_carries_and_ends_cleanly(tmp_path):
    """As a user runs it: a line with the address, bytes through it, SIGTERM, totals."""
    out = tmp_path / "totals.json"
    trace = tmp_path / "trace.csv"
    trace.write_text("time_s,rate_up,rate_down\n0,1e7,2e7\n")

    async def main():
        server = await asyncio.start_server(echo, *HERE)
        to = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        command = ["link", "wifi", "--to", to, "--trace", str(trace), "--json", str(out)]
        process = await asyncio.create_subprocess_exec(
            *[sys.executable, "-m", "draftlink.cli", *command, "--rtt", "40ms", "--jitter", "1ms"],
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            line = (await process.stdout.readline()).decode()
            port = int(line.split()[2].rpartition(":")[2])
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            begun = time.monotonic()
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            assert time.monotonic() - begun >= 0.04
            process.send_signal(signal.SIGTERM)
            rest, problems = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            server.close()
        assert process.returncode == 0 and problems == b""
        assert rest.decode().strip() == "1 connections, 5 bytes up, 5 down"

    # Its child watcher wants the default loop; the proxy itself runs in the other process.
    asyncio.run(asyncio.wait_for(main(), 60))
    totals = {"connections": 1, "uplink_bytes": 5, "downlink_bytes": 5}
    assert json.loads(out.read_text()) == totals


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["4g"], 2, "there is no profile '4g'"),
        (["lte", "--loss", "0.7"], 1, "loss must be"),
        (["lte", "--outage", "5-2"], 1, "an outage ends after"),
        (["lte", "--rate-up", "0"], 1, "rate_up must be above 0"),
        (["lte", "--trace", "no-such.csv"], 1, "no-such.csv"),
        (["lte", "--outage", "5"], 2, ""),
        (["lte", "--listen", "9000"], 2, ""),
        (["lte", "--listen", "here:99999"], 2, ""),
    ],
)
def test_bad_links(arguments, code, words):
    failed = CliRunner().invoke(cli.app, ["link", "--to", "127.0.0.1:9", *arguments])
    assert failed.exit_code == code
    assert words in str(failed.exception) or words in " ".join(failed.output.split())
