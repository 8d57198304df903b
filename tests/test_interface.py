"""What the ledger counts, against what a real network interface counts.

Two network namespaces, a veth pair between them, ``tbf`` at 1 Mbit/s on both ends; the base station
in one of them, the device in the other, over TLS. Needs Linux, root, ``ip`` and ``tc``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

import tinypair
from export.bundle import export_bundle

HERE, THERE, PORT = "10.99.0.1", "10.99.0.2", 8765
ETHERNET_BYTES = 14  # which an interface counts, and TCP/IP does not
WITHIN = 0.05
RATE = "1mbit"


def run(*command: object) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(str(c) for c in command)}: {done.stderr.strip()}")
    return done.stdout


def within(pid: int, *command: object) -> list[str]:
    return ["nsenter", "-t", str(pid), "-n", *(str(c) for c in command)]


@contextlib.contextmanager
def namespaces() -> Iterator[tuple[int, int]]:
    """The processes that hold the device's and the base station's. Raises OSError."""
    if missing := [tool for tool in ("ip", "tc", "unshare", "nsenter") if not shutil.which(tool)]:
        raise OSError(f"there is no {', '.join(missing)}")
    with contextlib.ExitStack() as stack:
        pids = []
        for _ in range(2):
            # It says a word once it is in its namespace, and ends with its input.
            command = ["unshare", "-n", "sh", "-c", "echo; exec cat"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            holder = stack.enter_context(subprocess.Popen(command, **pipes))
            stack.callback(holder.terminate)
            if not holder.stdout.readline():
                raise OSError("no right to make a network namespace")
            pids.append(holder.pid)
        run("ip", "link", "add", "v0", "netns", pids[0], "type", "veth",
            "peer", "name", "v0", "netns", pids[1])  # fmt: skip
        for pid, address in zip(pids, (HERE, THERE), strict=True):
            run(*within(pid, "ip", "addr", "add", f"{address}/24", "dev", "v0"))
            run(*within(pid, "ip", "link", "set", "v0", "up"))
            shape = ["tc", "qdisc", "add", "dev", "v0", "root", "tbf"]
            run(*within(pid, *shape, "rate", RATE, "burst", "4kb", "latency", "400ms"))
        yield pids[0], pids[1]


def counters() -> dict[str, tuple[int, int]]:
    """Bytes and packets that this namespace's interface has sent and received."""
    (link,) = json.loads(run("ip", "-s", "-j", "link", "show", "v0"))
    return {
        direction: (link["stats64"][word]["bytes"], link["stats64"][word]["packets"])
        for direction, word in (("up", "tx"), ("down", "rx"))
    }


async def device(bundle: str, ca: str) -> None:
    """The device's process: writes, and prints what the interface counted and the ledger."""
    from device_runtime.device import Device
    from draftlink.link.ledger import OTHER, total

    async with Device(Path(bundle), f"wss://{THERE}:{PORT}", threads=1, ca=Path(ca)) as opened:
        for mode in ("stop-and-wait", "run-ahead", "stream"):
            before = counters()
            generation = opened.generate(tinypair.prompts(1)[0], max_tokens=150, seed=1, mode=mode)
            async for _ in generation:
                pass
            after = counters()
            for direction in ("up", "down"):
                sent = zip(after[direction], before[direction], strict=True)
                size, packets = (now - then for now, then in sent)
                counted = total(generation.result.ledger, direction)
                print(json.dumps({
                    "mode": mode, "direction": direction,
                    "interface": size - ETHERNET_BYTES * packets,
                    "packets": packets, "frames": counted.frames, "ledger": counted.packet_bytes,
                    "other": next(e.packet_bytes for e in generation.result.ledger
                                  if (e.direction, e.kind) == (direction, OTHER)),
                }))  # fmt: skip


def test_the_ledger_agrees_with_the_interface(tmp_path):
    authority = trustme.CA()
    ca, chain, key = (tmp_path / name for name in ("ca.pem", "chain.pem", "key.pem"))
    authority.cert_pem.write_to_path(ca)
    issued = authority.issue_cert(THERE)
    issued.private_key_pem.write_to_path(key)
    for pem in issued.cert_chain_pems:
        pem.write_to_path(chain, append=True)
    bundle = export_bundle(tinypair.DRAFT, tmp_path / "draft", "int8").path
    with contextlib.ExitStack() as stack:
        try:
            here, there = stack.enter_context(namespaces())
        except OSError as error:
            pytest.skip(f"no network namespaces here: {error}")
        command = [sys.executable, "-m", "draftlink.cli", "bs", "tinypair", "--host", THERE]
        command += ["--port", PORT, "--tls-cert", chain, "--tls-key", key, "--insecure"]
        command += ["--ticket-key", tmp_path / "ticket.key"]
        pipe = {"stdout": subprocess.PIPE, "text": True}
        station = stack.enter_context(subprocess.Popen(within(there, *command), **pipe))
        stack.callback(station.kill)
        assert station.stdout.readline().startswith("listening")
        printed = run(*within(here, sys.executable, "-m", __name__, bundle, ca))
    print(printed)
    rows = [json.loads(line) for line in printed.splitlines()]
    assert len(rows) == 6
    for row in rows:
        assert row["ledger"] == pytest.approx(row["interface"], rel=WITHIN), row


if __name__ == "__main__":
    asyncio.run(device(*sys.argv[1:]))
