"""A device's table of costs: measured without ``onnx``, read with suspicion."""

from __future__ import annotations

import msgspec
import onnx
import pytest

from device_runtime.model import costs, kernels, measure, tiny_onnx
from device_runtime.model.costs import FORMAT, Cost, Costs, Kernel


def test_every_kernel_is_measured_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "LASTS_S", 0.0)
    found = measure.measure([(64, 64), (32, 256)], count=1, read_bytes=1)
    machine, _ = kernels.features()
    assert found.kernels() == sorted(measure.all_kernels(machine, 256))
    assert all(0 < one.seconds < 1 for one in found.products) and found.node_s > 0
    costs.write(found, tmp_path / "costs.json")
    assert costs.read(tmp_path / "costs.json") == found


def test_the_bytes_are_a_graph_as_onnx_knows_it():
    graph = tiny_onnx.model(
        [tiny_onnx.node("MatMul", ["x", "w"], "y")],
        [tiny_onnx.tensor("w", tiny_onnx.FLOAT, (2, 300), bytes(2400))],
        [tiny_onnx.value("x", (1, 2))],
        [tiny_onnx.value("y", (1, 300))],
    )
    onnx.checker.check_model(onnx.load_from_string(graph), full_check=True)


def test_costs_between_shapes_lie_on_a_line():
    kernel = Kernel(8, 32)
    rows = [Cost(kernel, n, 100, 1e-6 + n * 1e-7) for n in (10, 100, 1000)]
    table = Costs(FORMAT, "x86_64", [], "1", 1, 0.0, rows)
    assert table.seconds(kernel, 100, 100) == 1e-6 + 100 * 1e-7  # as measured
    assert table.seconds(kernel, 500, 100) == pytest.approx(5.1e-5, rel=1e-3)
    assert table.seconds(kernel, 1, 1) > 0
    with pytest.raises(ValueError, match="no 4 bits"):
        table.seconds(Kernel(4, 32), 100, 100)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"format": 1}', "x" * (2 << 20)])
def test_a_file_that_is_none(tmp_path, text):
    path = tmp_path / "costs.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="is no table of costs") as caught:
        costs.read(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="is no table of costs"):
        costs.read(tmp_path / "none.json")


def test_a_table_of_another_time_is_refused(tmp_path):
    table = Costs(FORMAT + 1, "x86_64", [], "1", 1, 0.0, [])
    (tmp_path / "costs.json").write_bytes(msgspec.json.encode(table))
    with pytest.raises(ValueError, match="has format"):
        costs.read(tmp_path / "costs.json")


def test_processors_without_dot_products_are_told():
    assert kernels.slow({8, 4}, "aarch64", ["i8mm"]) is not None
    for bits, machine, present in [
        ({8}, "aarch64", ["asimddp"]),
        ({8}, "x86_64", []),
        ({4}, "aarch64", []),
    ]:
        assert kernels.slow(bits, machine, present) is None
    assert not kernels.takes_zero_points("aarch64") and kernels.takes_zero_points("x86_64")
