"""One bundle, seed and base station for the JVM's device and Python's, and what each did there.

``ask`` writes what the JVM is to do; ``texts`` is the same by Python's device. All that a device
sends behind its Hello is kept: equal means the same drafts, to the bit, in the same rounds.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from websockets.asyncio.client import ClientConnection

import tinypair
from device_runtime.device import Device
from device_runtime.model.bundle import Bundle
from device_runtime.model.draft_model import DraftModel
from device_runtime.result import Mode
from device_runtime.transport.connecting import Socket, connect_websocket
from draftlink.coding.ids import IdModel
from draftlink.distribution import gumbel, noise
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.schemes import AnyScheme
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.topk import TopK
from tests.killable import Station

Entry = dict[str, Any]
GAMMA, SEED = 4, 28
KILLED_AT = 10  # tokens of a text
ROWS = TopK(k=8, total=256, tiers=7)


class Run(NamedTuple):
    """A text's options. ``gamma``: None: as it is measured."""

    scheme: AnyScheme
    temperature: float
    mode: Mode = "stop-and-wait"
    gamma: int | None = GAMMA

    @property
    def foretells(self) -> bool:
        """Whether the text is the target's own for the seed, whoever drafts."""
        return self.temperature == 0.0 or isinstance(self.scheme, Coupled)


# Rounds of a fixed length: both devices send the same bytes, but for near-ties.
FIXED = {
    "greedy": Run(Coupled(), 0.0),
    "coupled": Run(Coupled(), 1.0),
    "topk": Run(ROWS, 1.0),
}
# What is sent hangs on what is measured: the texts are the same, and what is accepted is alike.
# With ``greedy`` and ``coupled``, ``auto`` is both ends writing.
MEASURED = {
    "greedy auto": Run(Coupled(), 0.0, "auto", None),
    "coupled auto": Run(Coupled(), 1.0, "auto", None),
    "topk auto": Run(ROWS, 1.0, "auto", None),
    "greedy run-ahead": Run(Coupled(), 0.0, "run-ahead", None),
    "coupled run-ahead": Run(Coupled(), 1.0, "run-ahead", None),
    "topk run-ahead": Run(ROWS, 1.0, "run-ahead", None),
}
RUNS = FIXED | MEASURED
CUT = ("coupled auto", "coupled run-ahead", "coupled")  # over connections that are cut, too


def prompts(bundle: Bundle, count: int) -> list[list[int]]:
    """The first prompts of the embedded pair's list, as the target's texts begin."""
    tokenizer = bundle.tokenizer()
    begin = [bundle.manifest.bos_token_id]
    return [
        begin + tokenizer.encode(text, add_special_tokens=False).ids
        for text in tinypair.prompts(count)
    ]


def asked(name: str, prompts: list[list[int]], tokens: int, *, what: str = "") -> Entry:
    """A run for the JVM. ``what``: nothing, or ``shuffled`` (a draft of other ids), ``cuts`` (the
    connection is lost again and again) or ``kills`` (in each text the base station is)."""
    run = RUNS[name]
    return {
        "name": f"{name} {what}".strip(), "scheme": msgspec.to_builtins(run.scheme),
        "temperature": run.temperature, "mode": run.mode, "gamma": run.gamma, "seed": str(SEED),
        "max_tokens": tokens, "what": what, "prompts": prompts,
    }  # fmt: skip


def ask(folder: Path, bundle: Bundle, url: str, runs: list[Entry]) -> None:
    """Write what the JVM's device is to write."""
    said = {"url": url, "bundle": str(bundle.path), "threads": 1, "runs": runs}
    (folder / "loopback.json").write_text(json.dumps(said))


@contextmanager
def killing(folder: Path, station: Station) -> Iterator[None]:
    """Kills the base station and starts it again whenever the JVM asks for it."""
    for name in ("kill", "killed"):
        os.mkfifo(folder / name)

    # Opened both ways they wait for nobody, whoever has gone at the other end.
    kill, killed = (os.open(folder / name, os.O_RDWR) for name in ("kill", "killed"))

    def serve() -> None:
        with os.fdopen(kill) as wanted:
            while wanted.readline() != "stop\n":
                station.kill()
                os.write(killed, b"killed\n")
                station.start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        os.write(kill, b"stop\n")
        thread.join()
        os.close(killed)


def told(folder: Path) -> dict[str, list[Entry]]:
    """What the JVM's device did, by run."""
    found: dict[str, list[Entry]] = {}
    for line in (folder / "jvm_loopback.jsonl").read_text().splitlines():
        entry = json.loads(line)
        found.setdefault(entry["run"], []).append(entry)
    return found


def alpha(entries: list[Entry]) -> float:
    """The share of drafted tokens that were right, of those that were looked at; 0 of none."""
    right, looked = (sum(entry[key] for entry in entries) for key in ("right", "looked"))
    return float(right / looked) if looked else 0.0


def near_tie(bundle: Bundle, name: str, one: Entry, other: Entry) -> float:
    """How far apart the draft's scores of two tokens are, where two devices first drafted others.

    In logits; for ``coupled`` of log q + g, the noise.
    """
    first = _first(one["sent"], other["sent"])
    mine, theirs = (frames.decode(bytes.fromhex(each["sent"][first])) for each in (one, other))
    assert isinstance(mine, frames.Draft) and isinstance(theirs, frames.Draft)
    assert (mine.epoch, mine.base) == (theirs.epoch, theirs.base)
    history = prompts(bundle, one["prompt"] + 1)[-1] + one["tokens"]
    ids = IdModel(bundle.manifest.vocab_size)
    ids.extend(history[: mine.base])
    drafted = [
        [each.token for each in Coupled().decode(frame.payload, frame.length, ids)]
        for frame in (mine, theirs)
    ]
    place = _first(*drafted)
    ends = bundle.manifest.eos_token_ids
    # Nothing is drafted behind an EOS; else both frames have the same number of tokens.
    assert mine.length == theirs.length or any(
        place == len(tokens) - 1 and tokens[place] in ends for tokens in drafted
    )
    row = DraftModel(bundle, threads=1).forward([*history[: mine.base], *drafted[0][:place]])
    scores = row.astype(np.float64)
    if name == "coupled":
        race = gumbel.Race(noise.key_from_seed(SEED, "coupled"))
        scores -= np.log(race.entries(mine.base + place, np.arange(len(row))))
    a, b = (tokens[place] for tokens in drafted)
    return float(abs(scores[a] - scores[b]))


def _first(one: Sequence[object], other: Sequence[object]) -> int:
    """The first place at which two sequences differ."""
    return next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)


class _Recording:
    """A connection that keeps what is sent."""

    def __init__(self, socket: Socket, sent: list[str]) -> None:
        self._socket, self._sent = socket, sent

    async def send(self, message: bytes) -> None:
        self._sent.append(message.hex())
        await self._socket.send(message)

    async def recv(self) -> str | bytes:
        return await self._socket.recv()

    async def close(self) -> None:
        await self._socket.close()

    @property
    def transport(self) -> Any:
        assert isinstance(self._socket, ClientConnection)
        return self._socket.transport


async def texts(bundle: Bundle, url: str, name: str, count: int, tokens: int) -> list[Entry]:
    """A run of ``RUNS`` by Python's device, as ``told`` has the JVM's."""
    run = RUNS[name]
    sent: list[str] = []

    async def connect(address: str) -> Socket:
        return _Recording(await connect_websocket(address), sent)

    manifest = bundle.manifest
    device = Device.from_parts(
        DraftModel(bundle, threads=1),
        bundle.tokenizer(),
        url,
        tokenizer_hash=manifest.tokenizer_hash,
        vocab_size=manifest.vocab_size,
        context=manifest.context,
        eos_ids=tuple(manifest.eos_token_ids),
        connect=connect,
    )
    found = []
    async with device:
        sent.clear()  # Hello says which program it is
        for number, prompt in enumerate(prompts(bundle, count)):
            generation = device.generate(
                prompt, max_tokens=tokens, sampling=Sampling(temperature=run.temperature),
                scheme=run.scheme, mode=run.mode, gamma=run.gamma, seed=SEED,
            )  # fmt: skip
            async for _ in generation:
                pass
            result = generation.result
            found.append({
                "run": name, "prompt": number, "tokens": result.tokens, "rounds": result.rounds,
                "drafted": result.drafted, "accepted": result.accepted, "sent": list(sent),
                "right": result.accepted + result.overtaken, "histogram": result.accept_histogram,
                "looked": result.drafted - result.discarded, "mode": result.mode,
            })  # fmt: skip
            sent.clear()
    return found
