"""What is chosen follows from the costs, and from nothing that differs from run to run."""

from __future__ import annotations

import itertools
import json

import msgspec
import pytest

from device_runtime.model.bundle import MANIFEST
from device_runtime.model.costs import FORMAT, Cost, Costs, Kernel
from draftlink.link import shaping
from draftlink.planning.plan import Setting
from export import choose, front, rounder
from export.bundle import export_bundle
from export.choose import Asked
from export.front import Option, Plan, Point
from export.rounding import Rounding

SHAPES = [(300, 64), (128, 64), (192, 64), (64, 64), (64, 96)]


def table(machine: str = "x86_64", features: tuple[str, ...] = (), four: float = 0.5) -> Costs:
    """A device where 4 bits take a share of the time of 8."""
    kernels = [Kernel(8, 64), Kernel(8, 32), Kernel(4, 32), Kernel(4, 32, True)]
    return Costs(
        FORMAT, machine, list(features), "1.32", 2, 1e-6,
        [
            Cost(kernel, rows, width, rows * width * 1e-9 * (1 if kernel.bits == 8 else four))
            for kernel in kernels
            for rows, width in SHAPES
        ],
    )  # fmt: skip


def option(bits: int, seconds: float, loss: float) -> Option:
    return Option(Rounding(bits, 32), seconds, 100 * bits, loss)


def test_plans_are_the_lower_hull():
    """From the least loss to the least time; what is never the best of both is in none."""
    options = {
        "a": [option(8, 4.0, 0.1), option(4, 1.0, 0.5), option(2, 3.9, 0.6)],
        "b": [option(8, 4.0, 0.1), option(4, 3.0, 9.0)],
    }
    found = front.plans(options, 1.0)
    assert [(p.seconds, round(p.loss, 3)) for p in found] == [(9.0, 0.2), (6.0, 0.6), (5.0, 9.5)]
    for before, after in itertools.pairwise(found):
        assert before.loss < after.loss and before.seconds > after.seconds


def plan(loss: float) -> Plan:
    return Plan({}, 2.0 - loss, 0, loss)


def test_the_wanted_overlap_is_found_by_halving():
    """Of 101 plans with overlaps of 1 to 0.9, the one at 0.96, within eight measurements."""
    every = [plan(i / 100) for i in range(101)]
    found = front.measured(every, 16, lambda p: Point(p, 1.0 - 0.1 * p.loss, 0.0), 0.96)
    assert len(found) <= 16
    assert front.default(found).plan.loss == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("slope", [0.3, 0.48, 0.8])
def test_three_measurements_will_do(slope):
    """What is lost goes as the root of the loss. The control: three at even distances."""
    every = [plan(i / 10_000) for i in range(1, 10_000)]

    def measure(p: Plan) -> Point:
        return Point(p, 1.0 - slope * p.loss**0.5, 0.0)

    found = front.default(front.measured(every, 3, measure, 0.96))
    assert 0.96 <= found.overlap < 0.96 + front.CLOSE
    even = [measure(p).overlap for p in front.ladder(every, 3)]
    assert not any(0.96 <= overlap < 0.96 + front.CLOSE for overlap in even)


def test_where_all_are_good_enough_the_best_is_on_the_front_too():
    found = front.measured([plan(1e-6), plan(1e-5)], 3, lambda p: Point(p, 1.0 - p.loss, 0.0))
    assert [point.plan.loss for point in found] == [1e-6, 1e-5]


def test_the_default_is_the_fastest_that_is_good_or_else_the_best():
    points = [
        Point(plan(loss), overlap, 0.0) for loss, overlap in ((0, 0.98), (1, 0.961), (2, 0.9))
    ]
    assert front.default(points).overlap == 0.961
    assert front.default(points[2:]).overlap == 0.9


def test_as_many_bytes_are_spent_where_they_lose_the_least():
    """Of ten alike, but for the first two, which lose ten times what others do by 4 bits."""
    options = {
        str(i): [Option(Rounding(8, 64), 0.0, 200, 0.001), Option(Rounding(4, 32), 0.0, 100, loss)]
        for i, loss in enumerate([0.5, 0.4] + [0.05] * 8)
    }
    found = front.within(options, 1250)
    assert found.bytes == 1200 and found.loss == pytest.approx(2 * 0.001 + 8 * 0.05)
    assert {name for name, one in found.recipe.items() if one.bits == 8} == {"0", "1"}
    assert front.within(options, 5000).loss == pytest.approx(0.01)
    assert front.within(options, 10).bytes == 1000  # the control: there is nothing smaller


def test_a_measurement_by_which_smaller_blocks_are_faster_is_noise():
    """They read more; all between share what a byte takes. In order, times stay as they are."""
    even = {
        Rounding(8, block): 1e-6 * Rounding(8, block).bytes_per_weight for block in (16, 32, 64)
    }
    assert dict(front._ordered(even)) == pytest.approx(even)
    noisy = even | {Rounding(8, 16): 0.5e-6}
    found = dict(front._ordered(noisy))
    assert found[Rounding(8, 16)] > found[Rounding(8, 32)] > found[Rounding(8, 64)]
    assert sum(found.values()) == pytest.approx(sum(noisy.values()), rel=0.05)
    slow = even | {Rounding(8, 16): 9e-6}
    assert dict(front._ordered(slow)) == pytest.approx(slow)


def test_int4_takes_no_more_bytes_than_by_kind_and_loses_less(model_folder, tmp_path):
    """The control: the same kinds of products in 4 bits, whatever each loses."""
    model = model_folder("llama")
    lost = {}
    for name in ("by matrix", "by kind"):
        with pytest.MonkeyPatch.context() as patch:
            if name == "by kind":
                patch.setattr(choose, "fixed", lambda precision, made, careful: rounder.four(made))
            made = export_bundle(model, tmp_path / name, "int4", context=64)
        lost[name] = 1 - made.manifest.check.overlap
        size = sum(file.bytes for file in made.manifest.files.values())
        lost[f"{name}, bytes"] = size
    assert lost["by matrix, bytes"] <= 1.01 * lost["by kind, bytes"]
    assert lost["by matrix"] < lost["by kind"]


def test_choice_and_bytes_are_the_same_each_time(model_folder, tmp_path):
    made = []
    for name in ("a", "b"):
        asked = Asked("low", table())
        bundle = export_bundle(
            model_folder("llama"), tmp_path / name, "auto", asked=asked, context=64
        )
        made.append(bundle.manifest)
    assert made[0].files == made[1].files
    assert msgspec.structs.asdict(made[0]) == msgspec.structs.asdict(made[1])
    told = json.loads((tmp_path / "a" / MANIFEST).read_text())["quantization"]
    assert told["costs"]["node_s"] == 1e-6 and len(told["front"]) >= 2


def test_costs_that_are_measured_here_have_what_whole_drafts_take(
    model_folder, tmp_path, monkeypatch
):
    """Attention is no product, and no small sum either: its time is in that of other nodes."""
    monkeypatch.setattr(choose.measure, "measure", lambda *_, **__: table())
    monkeypatch.setattr(choose, "_seconds", lambda draft: 1.0)
    out = tmp_path / "out"
    told = export_bundle(
        model_folder("llama"), out, "auto", asked=Asked("low"), context=64
    ).manifest.quantization
    assert told is not None and told.costs is not None
    assert told.costs.products == table().products and told.costs.node_s > 1e-3
    assert all(point.seconds == pytest.approx(1.0, abs=0.01) for point in told.front)
    assert len({point.seconds for point in told.front}) == len(told.front) >= 2


def test_a_processor_without_int8_products_gets_none(model_folder, tmp_path):
    """And the control: the same table with dot products does."""
    bits = {}
    for features in ((), ("asimddp",)):
        asked = Asked("low", table("aarch64", features, four=2.0))
        bundle = export_bundle(
            model_folder("llama"), tmp_path / str(len(features)), "auto", asked=asked, context=64
        )
        assert bundle.manifest.quantization is not None
        bits[features] = {one.kernel.bits for one in bundle.manifest.quantization.kernels}
    assert bits == {(): {4}, ("asimddp",): {8}}


def test_with_a_target_it_is_the_point_with_the_most_tokens_a_second(model_folder, tmp_path):
    """On a slow device and a fast link the draft's time counts, on a slow link what it loses."""
    took = {}
    for link, share in (("wifi", 1e-3), ("satellite", 1e-9)):
        costs = table(four=0.25)
        costs = msgspec.structs.replace(costs, products=[
            msgspec.structs.replace(c, seconds=c.seconds * share / 1e-9) for c in costs.products
        ])  # fmt: skip
        asked = Asked("low", costs, Setting(0.5, 1.0, 0.045, 0.045, shaping.profile(link)))
        folder = model_folder("llama")
        out, options = tmp_path / link, {"asked": asked, "context": 64, "target": folder}
        bundle = export_bundle(folder, out, "auto", **options)
        assert bundle.manifest.quantization is not None and bundle.manifest.check is not None
        took[link] = {one.kernel.bits for one in bundle.manifest.quantization.kernels}
        check = bundle.manifest.check
        assert check.float_acceptance == pytest.approx(1.0, abs=1e-3)
        assert check.acceptance is not None and 0.5 < check.acceptance < 1.0
    assert 4 in took["wifi"] and took["satellite"] == {8}
