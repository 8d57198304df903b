"""What Python writes for the JVM's tests to read, and the reverse: lines of JSON, each with bytes.

``write`` fills a folder from Python; the JVM reads it there and leaves what it has made itself
beside it (``jvm_*``), which ``check`` reads. An entry has what is said and the bytes that say it,
in the form of the golden files. Numbers are drawn from a seed, so that a fault comes again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from draftlink.coding.ids import IdModel
from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.coding.slices import whole
from draftlink.distribution import gumbel, noise
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted, SparseRow
from draftlink.protocol import frames
from draftlink.schemes import AnyScheme
from draftlink.schemes.base import Scheme
from draftlink.schemes.dense import Dense
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK

Entry = dict[str, Any]
COUNT = 10_000  # rows, frames and sequences of ids each
NOISE = 1_000  # numbers in a line of noise, and as many lines
NUMBERS = 1 << 32
SCHEMES: tuple[tuple[Scheme, int], ...] = (
    (TopK(k=8, total=256, tiers=7), 8192),
    (TopK(k=8, total=64, tiers=3), 49_152),
    (TopK(k=3, total=5, tiers=2), 40),
    (TopK(k=32, total=4096, tiers=1), 8192),
    (TopK(k=16, total=256, mass=0.9), 1000),
    (TopK(k=4, coding="fp16"), 300),
    (Dense(), 40),
    (Split(k=64, total=1024), 8192),
)
FIELDS = frames.Verdict, frames.Tokens, frames.Propose, frames.Written, frames.Draft
BYTES = ("row", "surprisals", "payload", "logprobs")


def write(folder: Path) -> None:
    """All files, from one seed."""
    rng = np.random.default_rng(28)
    made: dict[str, Callable[[np.random.Generator], Iterator[Entry]]] = {
        "rows": rows, "frames": hot_and_control, "ids": ids, "draws": draws, "picks": picks,
        "bytes": spoilt,
    }  # fmt: skip
    for name, entries in made.items():
        with (folder / f"{name}.jsonl").open("w") as out:
            out.writelines(json.dumps(entry) + "\n" for entry in entries(rng))
    with (folder / "noise.bin").open("wb") as numbers, (folder / "noise.jsonl").open("w") as out:
        for line, x in noise_lines(rng):
            out.write(json.dumps(line) + "\n")
            numbers.write(x.astype("<f8").tobytes())


def check(folder: Path) -> dict[str, int]:
    """How many entries of each kind the JVM made. Raises what the first wrong one raises."""
    models = Models()
    checks: dict[str, Callable[[Entry], None]] = {
        "rows": check_row, "frames": check_frame, "ids": lambda entry: check_ids(entry, models),
    }  # fmt: skip
    counts = {}
    for name, one in checks.items():
        lines = (folder / f"jvm_{name}.jsonl").read_text().splitlines()
        for line in lines:
            one(json.loads(line))
        counts[name] = len(lines)
    return counts


# --- Rows ---


def rows(rng: np.random.Generator) -> Iterator[Entry]:
    """Drafted tokens with their rows, of all schemes that send some."""
    for number in range(COUNT):
        scheme, vocab_size = SCHEMES[number % len(SCHEMES)]
        q = rng.dirichlet(np.full(min(vocab_size, 600), rng.choice([0.01, 0.1, 1.0])))
        spread = np.zeros(vocab_size)
        spread[rng.choice(vocab_size, len(q), replace=False)] = q
        if number % 2:  # else ids of probability 0 keep the last row from having a rest
            spread = (spread + 1e-4 / vocab_size) / (1.0 + 1e-4)
        drafted = [scheme.propose(spread, rng.bytes(32), number)]
        payload, bits = scheme.encode(drafted, IdModel(vocab_size))
        said = [described(scheme, one) for one in drafted]
        yield {"scheme": msgspec.to_builtins(scheme), "vocab_size": vocab_size, "drafted": said,
               "bits": bits, "hex": payload.hex()}  # fmt: skip


def described(scheme: Scheme, drafted: Drafted) -> Entry:
    """A drafted token as the golden files have it: of what is sent."""
    if isinstance(scheme, Split):
        return {"token": drafted.token, "count": drafted.count}
    if isinstance(scheme, TopK) and len(scheme._shapes()) > 1:
        sent = (*drafted.above, *((drafted.row,) if drafted.row else ()))
        return {"token": drafted.token, "rows": [listed(row) for row in sent]}
    assert drafted.row is not None
    return {"token": drafted.token, **listed(drafted.row)}


def listed(row: SparseRow) -> Entry:
    """A row as the golden files have it."""
    return {"ids": row.ids.tolist(), "counts": row.counts.tolist(), "rest": row.rest}


def check_row(entry: Entry) -> None:
    """A payload of the JVM's, decoded and encoded again."""
    scheme = msgspec.convert(entry["scheme"], AnyScheme)
    model, payload = IdModel(entry["vocab_size"]), bytes.fromhex(entry["hex"])
    drafted = scheme.decode(payload, len(entry["drafted"]), model)
    assert [described(scheme, one) for one in drafted] == entry["drafted"]
    assert scheme.encode(drafted, model) == (payload, entry["bits"])


# --- Frames ---


def hot_and_control(rng: np.random.Generator) -> Iterator[Entry]:
    """Frames of all kinds, of random numbers of all sizes."""
    makers = (draft, verdict, tokens, propose, written, start, hello, rest_of_control)
    for number in range(COUNT):
        frame = makers[number % len(makers)](rng)
        yield {
            "type": type(frame).__name__,
            "fields": fields_of(frame),
            "hex": frames.encode(frame).hex(),
        }


def fields_of(frame: Any) -> Entry:
    """A frame's fields as JSON: bytes of hot frames in hex, of control messages in base 64."""
    if not isinstance(frame, FIELDS):
        fields: Entry = msgspec.to_builtins(frame)
        return fields
    fields = {name: getattr(frame, name) for name in frame.__dataclass_fields__}
    return {n: v.hex() if isinstance(v, bytes) else v for n, v in fields.items()}


def check_frame(entry: Entry) -> None:
    """A frame of the JVM's, decoded and encoded again."""
    data, frame = bytes.fromhex(entry["hex"]), frames.decode(bytes.fromhex(entry["hex"]))
    assert type(frame).__name__ == entry["type"]
    assert frames.encode(frame) == data
    if not isinstance(frame, FIELDS):
        assert frame == msgspec.convert(entry["fields"], frames.Control)
        return
    given = {n: tuple(v) if isinstance(v, list) else v for n, v in entry["fields"].items()}
    assert fields_of(frame) == given


def spoilt(rng: np.random.Generator) -> Iterator[Entry]:
    """Frames with other bytes in some places, fewer or more; whether they are frames still."""
    for number, entry in enumerate(hot_and_control(rng)):
        data = bytearray.fromhex(entry["hex"])
        at = int(rng.integers(len(data)))
        match number // 8 % 4:  # each kind of frame in each way
            case 0:
                data[at] = int(rng.integers(256))
            case 1:
                del data[at:]
            case 2:
                data[at:at] = rng.bytes(int(rng.integers(1, 4)))
            case 3:
                data[at : at + 4] = rng.choice([0, 127, 128, 255], 4).astype(np.uint8).tobytes()
        yield {"hex": data.hex(), "frame": decodes(bytes(data))}


def decodes(data: bytes) -> bool:
    """Whether bytes are a frame; a phone takes an id of 2³¹ or more for none."""
    try:
        frame = frames.decode(data)
    except ValueError:
        return False
    if isinstance(frame, frames.Propose):
        return True  # whose ``first`` is a count
    if isinstance(frame, FIELDS):
        found = [getattr(frame, name, None) or 0 for name in ("next", "first")]
        return max(*found, *getattr(frame, "ids", ())) < NUMBERS >> 1
    return max(listed_in(msgspec.to_builtins(frame)), default=0) < NUMBERS >> 1


def listed_in(value: Any) -> list[int]:
    """The integers that stand in arrays, however deep: ids, all of them."""
    if isinstance(value, dict):
        return [i for each in value.values() for i in listed_in(each)]
    if not isinstance(value, list | tuple):
        return []
    return [i for each in value for i in ([each] if isinstance(each, int) else listed_in(each))]


def small(rng: np.random.Generator) -> int:
    """A number of any length up to 32 bits."""
    return int(rng.integers(0, 1 << int(rng.integers(1, 33))))


def some(rng: np.random.Generator, most: int = 20) -> bytes:
    """Bytes, or none."""
    return rng.bytes(int(rng.integers(0, most))) if rng.random() < 0.5 else b""


def some_ids(rng: np.random.Generator) -> tuple[int, ...]:
    """One id or more, of any length up to 31 bits."""
    return tuple(small(rng) >> 1 for _ in range(rng.integers(1, 12)))


def coin(rng: np.random.Generator) -> bool:
    """True half of the time."""
    return bool(rng.random() < 0.5)


def draft(rng: np.random.Generator) -> frames.Draft:
    """Random numbers."""
    first = small(rng) >> 1 if coin(rng) else None
    numbers = small(rng), small(rng), small(rng)
    return frames.Draft(*numbers, some(rng), first, coin(rng), small(rng))


def verdict(rng: np.random.Generator) -> frames.Verdict:
    """Likewise."""
    following = small(rng) >> 1 if coin(rng) else None
    where = small(rng), small(rng), small(rng)
    times = small(rng), small(rng)
    return frames.Verdict(
        *where, following, coin(rng), *times, some(rng, 300), some(rng), some(rng)
    )


def tokens(rng: np.random.Generator) -> frames.Tokens:
    """Likewise."""
    where = small(rng), small(rng)
    return frames.Tokens(*where, some_ids(rng), coin(rng), some(rng), some(rng))


def propose(rng: np.random.Generator) -> frames.Propose:
    """Likewise; more may be known than the path's base, never less. Some have candidates, or branch
    off."""
    base = small(rng)
    numbers = small(rng), base, base + small(rng) * coin(rng), small(rng) * coin(rng)
    beside = tuple(rng.integers(0, 4, int(rng.integers(1, 65))).tolist()) if coin(rng) else ()
    behind = small(rng) * coin(rng)
    if not any(beside):
        return frames.Propose(*numbers, small(rng), some(rng), coin(rng), behind=behind)
    return frames.Propose(*numbers, len(beside), some(rng), coin(rng), beside, behind)


def written(rng: np.random.Generator) -> frames.Written:
    """Likewise; counts that go without saying, and others."""
    ids = some_ids(rng)
    accepted = int(rng.integers(0, len(ids) + 1))
    rows = small(rng) if coin(rng) else None
    times = small(rng), small(rng)
    fed = None if rows == len(ids) else rows
    return frames.Written(small(rng), ids, accepted, coin(rng), *times, some(rng), fed, some(rng))


def start(rng: np.random.Generator) -> frames.Start:
    """Each optional key is there or not."""
    sampling = Sampling(float(rng.random() * 2), int(rng.integers(0, 200)), float(rng.random()))
    if coin(rng):
        bias = ((3, -1.5), (70_000, float(rng.random())))
        sampling = msgspec.structs.replace(sampling, presence_penalty=0.25, logit_bias=bias)
    schemes = TopK(k=small(rng) >> 1, mass=0.5), Dense(), Split(pairs=8), Split()
    seed = int(rng.integers(-(1 << 63), 1 << 63)) if coin(rng) else 2 * small(rng) * (NUMBERS >> 1)
    found = frames.Start(
        small(rng), small(rng), list(some_ids(rng)), sampling, schemes[rng.integers(4)], "both",
        small(rng), list(some_ids(rng)), seed if coin(rng) else None, coin(rng),
    )  # fmt: skip
    more: Entry = {"suppressed_ids": list(some_ids(rng)), "logprobs": 20, "turns": coin(rng)}
    return msgspec.structs.replace(found, **{k: v for k, v in more.items() if coin(rng)})


def hello(rng: np.random.Generator) -> frames.Hello:
    """Strings are not ASCII alone, and of all of msgpack's lengths."""
    agent = "dräft→" * int(rng.integers(0, 60))
    ticket = some(rng, 400)
    return frames.Hello(6, "5a" * 32, small(rng), ["topk"] * 20, agent, ticket, small(rng))


def rest_of_control(rng: np.random.Generator) -> frames.Frame:
    """The shorter messages."""
    numbers = [small(rng) for _ in range(4)]
    return (
        frames.Finish(*numbers[:2]), frames.Done(*numbers[:3]), frames.Switch(numbers[0], "draft"),
        frames.Switched(*numbers[:3]), frames.Resumed(*numbers[:2], coin(rng)),
        frames.Replay(numbers[0], [small(rng) >> 1 for _ in range(rng.integers(0, 400))]),
        frames.Progress(*numbers), frames.Refused("busy", "später", int(rng.integers(0, 3600))),
    )[rng.integers(8)]  # fmt: skip


# --- Ids, noise and draws ---


class Models:
    """An id model for each vocabulary, which goes from history to history as a session's does."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[IdModel, list[int]]] = {}

    def behind(self, vocab_size: int, history: list[int]) -> IdModel:
        """The one for so many ids, behind a history."""
        if vocab_size not in self._kept:
            self._kept[vocab_size] = IdModel(vocab_size), []
        model, known = self._kept[vocab_size]
        common = next(
            (i for i, (a, b) in enumerate(zip(known, history, strict=False)) if a != b),
            min(len(known), len(history)),
        )
        model.rollback(common)
        model.extend(history[common:])
        known[common:] = history[common:]
        return model


def ids(rng: np.random.Generator) -> Iterator[Entry]:
    """Sequences behind histories that repeat themselves, as texts do, and begin as the last one."""
    history: list[int] = []
    models = Models()
    for number in range(COUNT):
        vocab_size = (1000, 8192, 151_936)[number // 100 % 3]
        history = [] if number % 100 == 0 else history[: int(rng.integers(0, len(history) + 1))]
        for _ in range(int(rng.integers(0, 40))):
            few = coin(rng) and coin(rng)
            history.append(int(rng.integers(0, vocab_size if few else 12)))
        following = [int(rng.choice(history or [7])) for _ in range(rng.integers(1, 9))]
        following[-1] = int(rng.integers(0, vocab_size))
        out = RangeEncoder()
        models.behind(vocab_size, history).encode(out, following)
        payload, bits = out.finish()
        yield {"vocab_size": vocab_size, "history": history, "tokens": following, "bits": bits,
               "hex": payload.hex()}  # fmt: skip


def check_ids(entry: Entry, models: Models) -> None:
    """A sequence of the JVM's, decoded and encoded again."""
    model, out = models.behind(entry["vocab_size"], entry["history"]), RangeEncoder()
    model.encode(out, entry["tokens"])
    assert out.finish() == (bytes.fromhex(entry["hex"]), entry["bits"])
    source = RangeDecoder(bytes.fromhex(entry["hex"]))
    assert whole(model.decoding(source, len(entry["tokens"]))) == entry["tokens"]
    source.finish()


def noise_lines(rng: np.random.Generator) -> Iterator[tuple[Entry, np.ndarray]]:
    """Runs of ids at positions and under seeds of all sizes, and their noise."""
    for _ in range(NOISE):
        seed, position = int(rng.integers(1 << 63)), small(rng) * NUMBERS + small(rng)
        first = min(small(rng), NUMBERS - NOISE)
        race = gumbel.Race(noise.key_from_seed(seed, "coupled"))
        x = race.entries(position, np.arange(first, first + NOISE))
        yield {"seed": seed, "position": position, "first": first}, x


def picks(rng: np.random.Generator) -> Iterator[Entry]:
    """Rows of weights, some peaked and some with zeros, and the token that arrives first."""
    for number in range(500):
        weights = rng.dirichlet(np.full(int(rng.integers(1, 400)), rng.choice([0.01, 1.0])))
        weights[rng.random(len(weights)) < 0.2] = 0.0
        weights[rng.integers(len(weights))] = 0.5
        key = noise.key_from_seed(number, "coupled")
        pick = gumbel.Race(key).pick(number, weights)
        yield {"seed": number, "position": number, "weights": weights.tolist(), "pick": pick}


def draws(rng: np.random.Generator) -> Iterator[Entry]:
    """Keyed draws of all purposes, and digests of histories."""
    for number in range(2_000):
        key, position = rng.bytes(32), small(rng)
        purpose, total = noise.Purpose(number % 7), int(rng.integers(1, NUMBERS))
        history = [small(rng) >> 1 for _ in range(rng.integers(0, 200))]
        yield {
            "number": number,
            "key": key.hex(),
            "position": position,
            "purpose": purpose.name,
            "bits64": noise.bits64(key, position, purpose, 3, number % 256),
            "uniform": noise.uniform(key, position, purpose).hex(),
            "total": total,
            "below": noise.below(key, position, purpose, total, number % 8),
            "epoch": noise.key_of_epoch(key, position).hex(),
            "ids": history,
            "digest": frames_digest(history).hex(),
        }


def frames_digest(history: list[int]) -> bytes:
    """The protocol's digest of a history, from its definition."""
    message = b"".join(i.to_bytes(4, "little") for i in history)
    return hashlib.blake2b(message, digest_size=16).digest()
