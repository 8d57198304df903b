"""The golden files: what ``docs/protocol.md`` says, as bytes. They change only with the version."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections import deque
from pathlib import Path
from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from tokenizers import Tokenizer

from bs_runtime.engine.paths import Paths
from draftlink import schemes
from draftlink.coding.ids import IdModel
from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.coding.sets import _split_law, read_set, write_set
from draftlink.coding.slices import whole
from draftlink.distribution import gumbel, noise, philox, sampling, sparse
from draftlink.distribution.prior import IdPrior, prior
from draftlink.distribution.sampling import Sampling
from draftlink.distribution.sparse import Drafted, SparseRow
from draftlink.protocol import frames, logprobs
from draftlink.protocol.control import Turn
from draftlink.protocol.logprobs import UNIT, Logprobs
from draftlink.protocol.session import ProtocolError, Session
from draftlink.protocol.tokenizer import tokenizer_hash
from draftlink.schemes import AnyScheme, split
from draftlink.schemes.base import Scheme
from draftlink.schemes.greedy import Greedy
from draftlink.schemes.topk import Coding, TopK

Entry = dict[str, Any]
FOLDER = Path(__file__).parent / "golden"
FILES = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
BOTH = FILES["both"]  # what the feature of that name adds, of each kind
TOLD, PENALTIES, RECOVERY = FILES["logprobs"], FILES["penalties"], FILES["recovery"]  # likewise
LEAVES = FILES["leaves"]  # likewise; see ``test_golden_leaves``
STREAMED = FILES["streamed"]  # likewise
BRANCHES = FILES["branches"]  # likewise; see ``test_golden_branches``
CONTROL = [
    entry
    for file in (FILES["control"], BOTH, TOLD, PENALTIES, RECOVERY, LEAVES, STREAMED, BRANCHES)
    for entry in file["control"]
]
HOT_FILES = FILES["hot"], BOTH, TOLD, LEAVES, STREAMED, BRANCHES
HOT = [entry for file in HOT_FILES for entry in file["hot"]]
MALFORMED = [entry for file in HOT_FILES for entry in file["malformed"]]
PROPOSALS = [{**path, **entry} for path in BOTH["paths"] for entry in path["proposals"]]
DRAFTS = FILES["drafts"]["drafts"]
CODER, NOISE, ROWS = FILES["coder"], FILES["noise"], FILES["rows"]


def each(entries: list[Entry]) -> pytest.MarkDecorator:
    """One test per entry."""
    names = [str(entry.get("name", i)) for i, entry in enumerate(entries)]
    return pytest.mark.parametrize("entry", entries, ids=names)


def test_the_files_are_of_this_version_and_small():
    assert {name: file["version"] for name, file in FILES.items()} == dict.fromkeys(
        FILES, frames.VERSION
    )
    sizes = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sizes.pop("window.json") < 65_000
    assert sizes.pop("paths.json") < 55_000
    assert sizes.pop("both.json") < 50_000
    assert sizes.pop("logprobs.json") + sizes.pop("penalties.json") < 30_000
    assert sizes.pop("recovery.json") < 25_000
    assert sizes.pop("leaves.json") + sizes.pop("streamed.json") < 15_000
    assert sizes.pop("branches.json") < 15_000
    assert sum(sizes.values()) < 100_000


# --- Frames ---


def scheme_of(entry: Entry) -> Scheme:
    return msgspec.convert(entry["scheme"], AnyScheme | Greedy)


def test_every_frame_scheme_and_coding_has_an_entry():
    """A new one without golden bytes fails here."""
    kinds = {entry["type"] for entry in CONTROL + HOT} | {"Draft"}
    assert kinds == {kind.__name__ for kind in get_args(frames.Frame)}
    sent = [scheme_of(entry) for entry in DRAFTS]
    assert {type(scheme) for scheme in sent} == {*schemes.BY_NAME.values(), Greedy}
    assert {s.coding for s in sent if isinstance(s, TopK)} == set(get_args(Coding))
    assert {s.tiers > 1 for s in sent if isinstance(s, TopK)} == {True, False}
    assert {entry["first"] is None for entry in DRAFTS} == {True, False}
    assert {entry["waits"] for entry in DRAFTS} == {True, False}
    starts = [entry["fields"] for entry in CONTROL if entry["type"] == "Start"]
    assert {start["scheme"]["type"] for start in starts} == set(schemes.BY_NAME)
    assert {start["mode"] for start in starts} == set(get_args(frames.Phase))
    switches = [entry["fields"] for entry in CONTROL if entry["type"] == "Switch"]
    assert {switch["mode"] for switch in switches} == set(get_args(Turn))
    codes = msgspec.inspect.type_info(frames.Refused).fields[0].type.values
    refused = [entry["fields"]["code"] for entry in CONTROL if entry["type"] == "Refused"]
    assert sorted(refused) == sorted(codes)
    for entry in HOT:
        known = set(getattr(frames, entry["type"]).__dataclass_fields__)
        lacks = {"logprobs"} if entry not in TOLD["hot"] + STREAMED["hot"] else set()
        if entry["type"] == "Tokens" and entry not in STREAMED["hot"]:
            lacks |= {"surprisals"}
        lacks |= {"beside"} if entry not in LEAVES["hot"] + BRANCHES["hot"] else set()
        lacks |= {"behind"} if entry not in BRANCHES["hot"] else set()
        assert set(entry["fields"]) == known - lacks
    flags = {"Verdict": {1, 2, 4, 8, 16}, "Tokens": {1, 16, 32}, "Propose": {1, 2, 4, 8, 16}}
    flags["Written"] = {1, 2, 4, 8, 16, 32, 64, 128}
    for name, known in flags.items():
        sets = [bytes.fromhex(entry["hex"])[1] for entry in HOT if entry["type"] == name]
        assert {given & flag for given in sets for flag in known} == {0, *known}
    assert {proposal["scheme"]["type"] for proposal in PROPOSALS} == {"coupled", "greedy"}
    draws = NOISE["draws"] + RECOVERY["draws"]
    assert {draw["purpose"] for draw in draws} == set(noise.Purpose.__members__)


@each(CONTROL)
def test_control_messages(entry):
    frame = msgspec.convert(entry["fields"], frames.Control)
    assert type(frame).__name__ == entry["type"]
    assert frames.encode(frame).hex() == entry["hex"]
    assert frames.decode(bytes.fromhex(entry["hex"])) == frame


@each(HOT)
def test_hot_frames(entry):
    fields = dict(entry["fields"])
    for name in {"row", "surprisals", "payload", "logprobs"} & fields.keys():
        fields[name] = bytes.fromhex(fields[name])
    for name in {"ids", "beside"} & fields.keys():
        fields[name] = tuple(fields[name])
    frame = getattr(frames, entry["type"])(**fields)
    assert frames.encode(frame).hex() == entry["hex"]
    assert frames.decode(bytes.fromhex(entry["hex"])) == frame


def test_varints():
    for entry in FILES["hot"]["varints"]:
        tokens = frames.Tokens(entry["value"], 0, (0,), False)
        data = bytes.fromhex(f"0400{entry['hex']}000100")
        assert frames.encode(tokens) == data and frames.decode(data) == tokens


@each(MALFORMED)
def test_malformed_frames(entry):
    with pytest.raises(ValueError):
        frames.decode(bytes.fromhex(entry["hex"]))


def drafted_of(entry: Entry, scheme: Scheme) -> list[Drafted]:
    """What a draft entry says was drafted."""
    drafted = []
    for item in entry["drafted"]:
        if "rows" in item:
            rows = [sparse_row(row, scheme.total << j) for j, row in enumerate(item["rows"])]
            *above, last = rows
            if item["token"] in last.ids:
                drafted.append(Drafted.of(last, last.ids.tolist().index(item["token"]), above))
            else:
                left = sparse.remainder(rows, entry["vocab_size"])
                index = left.ids.tolist().index(item["token"])
                drafted.append(msgspec.structs.replace(Drafted.of(left, index, rows), row=None))
        elif "ids" in item:
            counts = np.array(item["counts"])
            row = SparseRow(np.array(item["ids"]), counts, int(counts.sum()))
            drafted.append(Drafted.of(row, item["ids"].index(item["token"])))
        elif "count" in item:
            drafted.append(Drafted(item["token"], item["count"], entry["scheme"]["total"]))
        else:
            drafted.append(Drafted(item["token"]))
    return drafted


def sparse_row(item: Entry, total: int) -> SparseRow:
    return SparseRow(np.array(item["ids"], np.int64), np.array(item["counts"], np.int64), total,
                     item["rest"])  # fmt: skip


def plain(drafted: list[Drafted]) -> list[object]:
    return [
        (d.token, d.count, d.total, *((r.ids.tolist(), r.counts.tolist(), r.total, r.rest)
                                      for r in (*d.above, *([d.row] if d.row else []))))
        for d in drafted
    ]  # fmt: skip


@each(DRAFTS)
def test_drafts(entry):
    scheme, first = scheme_of(entry), entry["first"]
    ids = IdModel(entry["vocab_size"])
    ids.extend([*entry["history"], *([] if first is None else [first])])
    drafted = drafted_of(entry, scheme)
    payload, bits = scheme.encode(drafted, ids)
    assert (bits, entry["base"]) == (entry["bits"], len(entry["history"]))
    numbers = entry["epoch"], entry["base"], entry["length"]
    frame = frames.Draft(*numbers, payload, first, entry["waits"])
    assert frames.encode(frame).hex() == entry["hex"]
    assert frames.decode(bytes.fromhex(entry["hex"])) == frame
    assert plain(scheme.decode(payload, entry["length"], ids)) == plain(drafted)


@each(PROPOSALS)
def test_proposals(entry):
    """Coded behind the text before the path's base and the path's own earlier tokens."""
    scheme, text = scheme_of(entry), entry["text"]
    earlier = path_of(entry)[: entry["first"]]
    drafted = [Drafted(token) for token in entry["tokens"]]
    payload, bits = scheme.encode(drafted, behind(entry, [*text[: entry["base"]], *earlier]))
    assert (bits, entry["length"]) == (entry["bits"], len(drafted))
    where = entry["path"], entry["base"], entry["known"], entry["first"], entry["length"]
    frame = frames.Propose(*where, payload, entry["goes_on"])
    assert frames.encode(frame).hex() == entry["hex"]
    assert frames.decode(bytes.fromhex(entry["hex"])) == frame
    context = behind(entry, [*text[: entry["base"]], *earlier])
    assert plain(scheme.decode(payload, entry["length"], context)) == plain(drafted)


def path_of(entry: Entry) -> list[int]:
    """All tokens of a proposal's path."""
    return [token for proposal in entry["proposals"] for token in proposal["tokens"]]


def behind(entry: Entry, context: list[int]) -> IdModel:
    ids = IdModel(entry["vocab_size"])
    ids.extend(context)
    return ids


def test_proposals_tell_the_contexts_apart_that_an_end_may_take_for_the_right_one():
    """The control: behind what was written since, or without the path, they are other bytes."""

    def coded(entry: Entry, context: list[int]) -> bytes:
        drafted = [Drafted(token) for token in entry["tokens"]]
        return scheme_of(entry).encode(drafted, behind(entry, context))[0]

    told: dict[str, int] = {"written since": 0, "without the path": 0}
    for entry in PROPOSALS:
        text, earlier = entry["text"], path_of(entry)[: entry["first"]]
        true = coded(entry, [*text[: entry["base"]], *earlier])
        told["written since"] += true != coded(entry, [*text, *earlier])
        told["without the path"] += true != coded(entry, text[: entry["base"]])
    assert all(count >= 3 for count in told.values())


@each(BOTH["paths"])
def test_a_base_station_reads_paths(entry):
    """Whatever it has written since, as long as that has not refuted them."""
    history = list(entry["text"])
    found, text = path_of(entry), history[entry["base"] :]
    right = found[: len(text)] == text
    if not right:  # all but the first of it would be dropped unread
        del history[entry["base"] :]
    paths = Paths(scheme_of(entry), entry["vocab_size"], history)
    for proposal in entry["proposals"]:
        frame = frames.decode(bytes.fromhex(proposal["hex"]))
        assert isinstance(frame, frames.Propose)
        whole(paths.adding(frame))
    assert paths.end == entry["base"] + len(found)
    assert paths.following(len(found)) == found[len(text) * right :]
    history += text[len(history) - entry["base"] :]
    assert paths.following(len(found)) == (found[len(text) :] if right else [])


@each(TOLD["hot"])
def test_log_probabilities(entry):
    """In units, as they are written, and back."""
    told = [
        Logprobs(-one["own"] * UNIT, tuple((i, -units * UNIT) for i, units in one["top"]))
        for one in entry["told"]
    ]
    block = bytes.fromhex(entry["fields"]["logprobs"])
    assert b"".join(logprobs.encode(told)) == block
    assert logprobs.decode(block, len(told), entry["count"], entry["vocab_size"]) == told


@each(TOLD["refused"])
def test_log_probabilities_that_cannot_be(entry):
    counts = entry["tokens"], entry["count"], entry["vocab_size"]
    with pytest.raises(ValueError):
        logprobs.decode(bytes.fromhex(entry["hex"]), *counts)


@each(PENALTIES["refused"])
def test_penalties_that_cannot_be(entry):
    start = frames.decode(bytes.fromhex(entry["hex"]))
    assert isinstance(start, frames.Start)
    with pytest.raises(ValueError):
        start.sampling.check()


SESSIONS = FILES["sessions"]["sessions"] + BOTH["sessions"] + TOLD["sessions"]
SESSIONS += RECOVERY["sessions"]


class Conversation:
    """Both ends of a conversation, what is under way between them, and what comes again."""

    def __init__(self, entry: Entry) -> None:
        self.vocab_size, self.history = entry["vocab_size"], entry["history"]
        self.ends = {role: Session(role, self.vocab_size) for role in ("device", "bs")}
        self.under_way: dict[str, deque[bytes]] = {"device": deque(), "bs": deque()}
        self.again: dict[str, deque[bytes]] = {"device": deque(), "bs": deque()}
        self.parked: Session | None = None

    def play(self, step: Entry) -> None:
        """One step: who said, sent or received what, and the numbers of that end afterwards."""
        for verb in ("from", "sent", "received", "again"):
            if verb in step:
                role, other = step[verb], "bs" if step[verb] == "device" else "device"
                getattr(self, f"_{verb}")(step, role, other)
                return
        device = self.ends["device"]
        device.reopen()
        self.parked = self.ends["bs"] if step["kept"] else None
        self.ends["bs"] = Session("bs", self.vocab_size)
        self.under_way = {"device": deque(), "bs": deque()}

    def _from(self, step: Entry, role: str, other: str) -> None:
        """Sent and received: both ends have the same numbers then."""
        self._sent(step, role, other)
        self._received({**step, "overtaken": False}, other, role)
        with pytest.raises(ProtocolError):  # nothing here may come twice
            self.ends[other].receive(bytes.fromhex(step["hex"]))

    def _sent(self, step: Entry, role: str, other: str) -> None:
        end, data = self.ends[role], bytes.fromhex(step["hex"])
        frame = frames.decode(data)
        assert type(frame).__name__ == step["type"]
        if isinstance(frame, frames.Resume):
            assert end.resume(self.history) == frame
        assert end.send(frame) == data
        self.under_way[other].append(data)
        self._check(step, role)

    def _received(self, step: Entry, role: str, other: str) -> None:
        """What was sent; or, with bytes of its own, a frame that no true peer sends here."""
        stray = "hex" in step and "from" not in step
        data = bytes.fromhex(step["hex"]) if stray else self.under_way[role].popleft()
        self._take(step, role, data)

    def _again(self, step: Entry, role: str, other: str) -> None:
        """Sent again over a new connection, and received."""
        assert self.again[role].popleft().hex() == step["hex"]
        self._take(step, other, bytes.fromhex(step["hex"]))

    def _take(self, step: Entry, role: str, data: bytes) -> None:
        end, frame = self.ends[role], frames.decode(data)
        assert type(frame).__name__ == step["type"]
        assert end.receive(data) == (None if step["overtaken"] else frame)
        self._check(step, role)
        if isinstance(frame, frames.Resume):
            live = self.parked is not None and end.adopt(self.parked)
            assert live == (self.parked is not None)
            self.again["bs"] = deque(end.resend(frame.seen) if live else [])
        if isinstance(frame, frames.Resumed):
            if not frame.replay:
                self.again["device"] = deque(end.resend(frame.handled))
        elif isinstance(frame, frames.Replay):
            self.again["device"] = deque(self.ends["device"].resend(0))

    def _check(self, step: Entry, role: str) -> None:
        end = self.ends[role]
        assert (end.state.name, end.epoch, end.length) == (
            step["state"],
            step["epoch"],
            step["length"],
        )


@each(SESSIONS)
def test_sessions(entry):
    conversation = Conversation(entry)
    for step in entry["steps"]:
        conversation.play(step)
    assert not any(conversation.under_way.values()) and not any(conversation.again.values())


def test_sessions_hold_every_way_that_frames_may_go():
    steps = [step for entry in SESSIONS for step in entry["steps"]]
    assert {step["kept"] for step in steps if "lost" in step} == {True, False}
    assert {step["again"] for step in steps if "again" in step} == {"device", "bs"}
    said = {(s.get("from") or s.get("sent"), s["type"]) for s in steps if "lost" not in s}
    assert {name for end, name in said if end} == {f.__name__ for f in get_args(frames.Frame)}
    overtaken = {step["type"] for step in steps if step.get("overtaken")}
    assert overtaken == {
        "Draft", "Switch", "Verdict", "Tokens", "Switched", "Propose", "Written"
    }  # fmt: skip


# --- Coders ---


@each(CODER["range"])
def test_range_coder(entry):
    out = RangeEncoder()
    for symbol in entry["symbols"]:
        out.push(*symbol)
    assert out.finish() == (bytes.fromhex(entry["hex"]), entry["bits"])
    source = RangeDecoder(bytes.fromhex(entry["hex"]))
    for start, frequency, total in entry["symbols"]:
        assert start <= source.peek(total) < start + frequency
        source.take(start, frequency)
    source.finish()


@each(CODER["refused"])
def test_payloads_that_no_encoder_writes(entry):
    source = RangeDecoder(bytes.fromhex(entry["hex"]))
    for start, frequency, total in entry["symbols"]:
        assert start <= source.peek(total) < start + frequency
        source.take(start, frequency)
    with pytest.raises(ValueError):
        source.finish()


@each(CODER["priors"])
def test_prior(entry):
    law = IdPrior(entry["vocab_size"])
    assert law.total == entry["total"]
    shares = [law.share(first) for first in entry["starts"]]
    assert [weight for _, weight in shares] == entry["weights"]
    assert law.starts[:-1] == entry["starts"]


@each(CODER["laws"])
def test_split_law(entry):
    names = ("count", "left", "right", "left_weight", "right_weight")
    fewest, edges = _split_law(*(entry[name] for name in names))
    assert (fewest, list(edges)) == (entry["fewest"], entry["edges"])


@each(CODER["sets"])
def test_id_sets(entry):
    law, out = prior(entry["vocab_size"]), RangeEncoder()
    write_set(out, entry["ids"], law)
    assert out.finish() == (bytes.fromhex(entry["hex"]), entry["bits"])
    source = RangeDecoder(bytes.fromhex(entry["hex"]))
    assert read_set(source, len(entry["ids"]), law) == entry["ids"]
    source.finish()


# --- Noise and draws ---


def test_keys_and_draws():
    for entry in NOISE["keys"]:
        assert noise.key_from_seed(entry["seed"], entry["role"]).hex() == entry["key"]
    for entry in NOISE["draws"]:
        where = bytes.fromhex(entry["key"]), entry["position"], noise.Purpose[entry["purpose"]]
        tier = entry.get("tier", 0)
        assert noise.bits64(*where, tier) == entry["bits64"]
        assert tier or noise.uniform(*where).hex() == entry["uniform"]
        assert noise.below(*where, 256, tier) == entry["below_256"]


def test_race():
    for entry in NOISE["philox"]:
        assert list(philox.philox(entry["counter"], entry["key"])) == entry["words"]
    for entry in NOISE["log"]:
        u = np.array([float.fromhex(entry["u"])])
        assert float(philox.log(u, np)[0]).hex() == entry["log"]
    for entry in NOISE["race"]:
        key = noise.key_from_seed(entry["seed"], "coupled")
        words = gumbel.words([key], [entry["position"]])
        assert [int(word[0, 0]) for word in words[:2]] == entry["philox_key"]
        x = gumbel.Race(key).entries(entry["position"], entry["ids"])
        assert [value.hex() for value in x.tolist()] == entry["x"]


def test_picks():
    for entry in NOISE["picks"]:
        plain_row = entry["weights"] == "v + 1 for v below 1000"
        row = np.arange(1.0, 1001.0) if plain_row else np.array(entry["weights"])
        positions = range(*entry["positions"])
        keys = [noise.key_from_seed(entry["seed"], "coupled")] * len(positions)
        p = np.broadcast_to(row, (len(positions), len(row)))
        assert gumbel.pick_many(keys, positions, p).tolist() == entry["picks"]


# --- Rows, sampling, tokenizers ---


@each(ROWS["target"])
def test_target_rows(entry):
    logits = np.array([float.fromhex(x) for x in entry["logits"]], dtype=entry["dtype"])
    found = split.unpack_row(bytes.fromhex(entry["packed"]), len(logits))
    assert found.dtype == logits.dtype and (found == logits).all()
    ours = split.pack_row(logits)  # which zlib bytes it is made of is the library's choice
    assert ours[0] == logits.itemsize and zlib.decompress(ours[1:]).hex() == entry["planes"]


@each(ROWS["truncate"])
def test_truncation_and_rounding(entry):
    q = np.array(entry["weights"]) / sum(entry["weights"])
    scheme = scheme_of(entry)
    if "rows" in entry:
        found = [
            {"ids": r.ids.tolist(), "counts": r.counts.tolist(), "rest": r.rest, "total": r.total}
            for r in scheme.rows(q)
        ]
        assert found == entry["rows"]
        return
    if isinstance(scheme, TopK):
        row = scheme.row(q)
    elif isinstance(scheme, split.Split):
        row = sparse.lattice(q, scheme.k, scheme.total)
    else:
        row = sparse.half(q, len(q))
    assert (row.ids.tolist(), row.counts.tolist()) == (entry["ids"], entry["counts"])
    assert row.total == entry["total"]


@each(ROWS["sampling"] + PENALTIES["sampling"])
def test_sampling(entry):
    params = msgspec.convert(entry["sampling"], Sampling)
    where = entry["history"], entry.get("begins", 0)
    p = sampling.distribution(np.array(entry["logits"]), params, *where)
    assert p == pytest.approx(np.array(entry["p"]), rel=1e-12, abs=0)


@each(ROWS["tokenizer"])
def test_tokenizer_hash(entry):
    assert tokenizer_hash(Tokenizer.from_str(entry["tokenizer_json"])) == entry["hash"]
    assert hashlib.sha256(entry["hashed"].encode()).hexdigest() == entry["hash"]
