"""One bundle, seed and base station for the JVM's device and Python's, and what each did there.

``ask`` writes what the JVM is to do; ``texts`` is the same by Python's device. All that a device
sends behind its Hello is kept: equal means the same drafts, to the bit, in the same rounds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from websockets.asyncio.client import ClientConnection

import tinypair
from device_runtime.device import Device
from device_runtime.model.bundle import Bundle
from device_runtime.model.draft_model import DraftModel
from device_runtime.transport.connecting import Socket, connect_websocket
from draftlink.coding.ids import IdModel
from draftlink.distribution import gumbel, noise
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.schemes import AnyScheme
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.topk import TopK

Entry = dict[str, Any]
GAMMA, SEED = 4, 28
ROWS = TopK(k=8, total=256, tiers=7)
RUNS: dict[str, tuple[AnyScheme, float]] = {
    "greedy": (Coupled(), 0.0),
    "coupled": (Coupled(), 1.0),
    "topk": (ROWS, 1.0),
}


def prompts(bundle: Bundle, count: int) -> list[list[int]]:
    """The first prompts of the embedded pair's list, as the target's texts begin."""
    tokenizer = bundle.tokenizer()
    begin = [bundle.manifest.bos_token_id]
    return [
        begin + tokenizer.encode(text, add_special_tokens=False).ids
        for text in tinypair.prompts(count)
    ]


def ask(folder: Path, bundle: Bundle, url: str, count: int, tokens: int) -> None:
    """Write what the JVM's device is to write: each run, and those of ids with a shuffled draft."""
    asked = prompts(bundle, count)
    runs = [
        {
            "name": name + " shuffled" * shuffled, "scheme": msgspec.to_builtins(scheme),
            "temperature": temperature, "gamma": GAMMA, "seed": str(SEED), "max_tokens": tokens,
            "shuffled": shuffled, "prompts": asked,
        }
        for name, (scheme, temperature) in RUNS.items()
        for shuffled in ((False, True) if name != "topk" else (False,))
    ]  # fmt: skip
    said = {"url": url, "bundle": str(bundle.path), "threads": 1, "runs": runs}
    (folder / "loopback.json").write_text(json.dumps(said))


def told(folder: Path) -> dict[str, list[Entry]]:
    """What the JVM's device did, by run."""
    found: dict[str, list[Entry]] = {}
    for line in (folder / "jvm_loopback.jsonl").read_text().splitlines():
        entry = json.loads(line)
        found.setdefault(entry["run"], []).append(entry)
    return found


def alpha(entries: list[Entry]) -> float:
    """The share of drafted tokens that were accepted, of those that were looked at."""
    accepted, looked = (sum(entry[key] for entry in entries) for key in ("accepted", "looked"))
    return float(accepted / looked)


def near_tie(bundle: Bundle, name: str, one: Entry, other: Entry) -> float:
    """How far apart the draft's scores of two tokens are, where two devices first drafted others.

    In logits; for ``coupled`` of log q + g, the noise.
    """
    first = _first(one["sent"], other["sent"])
    mine, theirs = (frames.decode(bytes.fromhex(each["sent"][first])) for each in (one, other))
    assert isinstance(mine, frames.Draft) and isinstance(theirs, frames.Draft)
    assert (mine.epoch, mine.base, mine.length) == (theirs.epoch, theirs.base, theirs.length)
    history = prompts(bundle, one["prompt"] + 1)[-1] + one["tokens"]
    ids = IdModel(bundle.manifest.vocab_size)
    ids.extend(history[: mine.base])
    drafted = [
        [each.token for each in Coupled().decode(frame.payload, frame.length, ids)]
        for frame in (mine, theirs)
    ]
    place = _first(*drafted)
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
    scheme, temperature = RUNS[name]
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
                prompt, max_tokens=tokens, sampling=Sampling(temperature=temperature),
                scheme=scheme, mode="stop-and-wait", gamma=GAMMA, seed=SEED,
            )  # fmt: skip
            async for _ in generation:
                pass
            result = generation.result
            found.append({
                "run": name, "prompt": number, "tokens": result.tokens, "rounds": result.rounds,
                "drafted": result.drafted, "accepted": result.accepted, "sent": list(sent),
                "looked": result.drafted - result.discarded, "histogram": result.accept_histogram,
            })  # fmt: skip
            sent.clear()
    return found
