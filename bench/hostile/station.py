"""The base station under attack: started, watched from outside, and told to stop."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import tinypair
from bench.hostile import thieves
from bench.hostile.attacks import Attack
from bench.hostile.place import TOKENS
from draftlink.host import children

CONTEXT = (1 << 15) + 1024  # of the target with a long one: 32,768 tokens of a prompt, and a text
PHONE = "tokens_per_s=1e6 connections_per_s=1e6 sessions=1000"


@dataclass
class Station:
    """A base station's process; ``log`` is its stderr, ``authority`` whose certificate it has."""

    process: subprocess.Popen[str]
    log: Path
    authority: Path | None

    @cached_property
    def url(self) -> str:
        """Its address, once it listens. Raises RuntimeError if it does not start."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"the base station did not start: {self.log.read_text()[-2000:]}")
        return line.split()[2]

    @contextmanager
    def halted(self) -> Iterator[None]:
        """It does nothing while the block runs."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def longest(self) -> dict[str, Any]:
        """The longest callback of its event loop since this was asked last."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        for line in self.process.stdout:  # behind what it says to a reader as it starts
            if line.startswith("{"):
                found: dict[str, Any] = json.loads(line)
                return found
        raise RuntimeError(f"the base station has ended: {self.log.read_text()[-2000:]}")

    def log_bytes(self) -> int:
        """What the log has grown to."""
        return self.log.stat().st_size

    def memory_bytes(self) -> int:
        """Resident memory."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int | None:
        """The exit code on SIGTERM, None if it does not end."""
        self.process.terminate()
        try:
            return self.process.wait(children.STOPPED_S)
        except subprocess.TimeoutExpired:
            return None


@contextmanager
def station(attack: Attack, folder: Path) -> Iterator[Station]:
    """A base station for an attack, with its files in ``folder``; it ends with the block.

    It may still be loading its model: ``url`` waits for it.
    """
    folder.mkdir()
    tokens = folder / "tokens"
    limits = {"phone": PHONE, "thief": attack.limits}
    tokens.write_text("".join(f"{t} {name} {limits[name]}\n" for name, t in TOKENS.items()))
    model = str(long_target(folder / "long")) if attack.long else "tinypair"
    command = children.python("-m", "bench.hostile.watched", model, "--port", "0")
    command += ["--tokens", str(tokens), "--ticket-key", str(folder / "ticket.key")]
    authority = None
    if attack.tls:
        authority, chain, key = certificate(folder)
        command += ["--tls-cert", str(chain), "--tls-key", str(key)]
    log = folder / "log"
    poison = {"POISON": f"{attack.poison} {thieves.BAD}"} if attack.poison else {}
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=children.environment(**poison),
        )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield Station(process, log, authority)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def certificate(folder: Path) -> tuple[Path, Path, Path]:
    """A certificate for 127.0.0.1: who signed it, its chain, and its key, as files."""
    import trustme  # of the tests' extra

    signer = trustme.CA()
    issued = signer.issue_cert("127.0.0.1")
    authority, chain, key = folder / "ca.pem", folder / "chain.pem", folder / "key.pem"
    signer.cert_pem.write_to_path(authority)
    for blob in issued.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    issued.private_key_pem.write_to_path(key)
    return authority, chain, key


def long_target(folder: Path) -> Path:
    """The embedded target's first layer alone, with a context of ``CONTEXT``."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(tinypair.TARGET, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 1, "max_position_embeddings": CONTEXT}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    kept = {n: w for n, w in weights.items() if ".layers." not in n or ".layers.0." in n}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    return folder
