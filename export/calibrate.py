"""What a draft's products are fed with, and what its text depends on: measured on its own text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn
from transformers import GenerationConfig
from transformers.pytorch_utils import Conv1D

from bs_runtime.checkpoint.words import Words
from export import losses
from export.edit import Edit
from export.products import PASSED, Product, products, tables

TOKENS = 128  # written after each prompt, with a normal effort
SEED = 20_260_000
Prompts = Sequence[tuple[str, str]]


def own_text(
    model: Any, words: Words, prompts: Prompts, context: int, tokens: int, seed: int = SEED
) -> list[list[int]]:
    """The prompts, and ``tokens`` that the model writes after each at temperature 1, as ids."""
    begun = [_prompted(words, kind, text)[: max(1, context // 2)] for kind, text in prompts]
    longest = max(map(len, begun))
    count = min(tokens, context - longest)
    if count < 1:
        return begun
    ids = torch.zeros(len(begun), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, one in enumerate(begun):
        ids[row, longest - len(one) :] = torch.tensor(one)
        mask[row, longest - len(one) :] = 1
    eos = model.generation_config.eos_token_id
    how = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=count,
        min_new_tokens=count, pad_token_id=0, eos_token_id=eos,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=how)
    return [row[longest - len(one) :].tolist() for row, one in zip(out, begun, strict=True)]


def _prompted(words: Words, kind: str, text: str) -> list[int]:
    """A prompt's ids, at least one; chat by the model's own template where it has one."""
    made = words.asked(text) if kind == "chat" else None
    if made is not None:
        return list(words.tokenizer.encode(made, add_special_tokens=False).ids)
    if kind == "chat":
        text = f"User: {text}\nAssistant:"
    return list(words.tokenizer.encode(text).ids) or [words.id_of("bos_token") or 0]


@dataclass(frozen=True)
class Sample:
    """What was seen along a text; arrays lie in files and are mapped."""

    inputs: dict[str, NDArray[np.float32]]  # (n, width), by the value that products take
    # Of the text's negative log-likelihood with regard to a product's output, (m, rows), at the m
    # positions in ``losses.places(graded)``. There is no entry for the head, and none for what is
    # no product of PyTorch's. A table's are at all ``graded`` positions, under the name of what is
    # gathered.
    gradients: dict[str, NDArray[np.float32]]
    ids: NDArray[np.int64]  # (graded,): a table's gradients are with regard to its rows

    def some(self, value: str) -> Tensor:
        """What products took, (m, width), at the positions of the gradients."""
        return losses.some(self.inputs[value][: len(self.ids)])


def sample(
    graph: Path, model: Any, rows: Sequence[Sequence[int]], graded: int, scratch: Path
) -> Sample:
    """Run the float ``graph`` and the ``model`` that it was made from along ``rows`` of ids.

    Gradients are had of the first ``graded`` of them.
    """
    edit = Edit(onnx.load(graph))
    values = {edit.behind(one.source, PASSED): one.shape[1] for one in products(edit) if one.source}
    inputs = _inputs(graph, values, rows, scratch)
    ids = np.concatenate([np.asarray(row, np.int64) for row in rows[:graded]])
    return Sample(inputs, _gradients(edit, model, rows[:graded], scratch), ids)


def _inputs(
    graph: Path, values: dict[str, int], rows: Sequence[Sequence[int]], scratch: Path
) -> dict[str, NDArray[np.float32]]:
    """The ``values`` of a graph, by name with their widths, along ``rows``."""
    proto = onnx.load(graph, load_external_data=False)
    del proto.graph.output[:]
    proto.graph.output.extend(
        helper.make_tensor_value_info(value, TensorProto.FLOAT, None) for value in values
    )
    for given in proto.graph.input:
        if given.name.startswith("past."):
            given.type.tensor_type.shape.dim[2].dim_param = "past"
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # Fused nodes have lost the values between them.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    folder = "session.model_external_initializers_file_folder_path"
    options.add_session_config_entry(folder, str(graph.parent))
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    count = sum(map(len, rows))
    found: dict[str, NDArray[np.float32]] = {
        value: np.lib.format.open_memmap(
            scratch / f"input-{index}.npy", "w+", np.float32, (count, width)
        )
        for index, (value, width) in enumerate(values.items())
    }
    begin = 0
    for row in rows:
        taken = session.run(list(values), feed(session, row, len(row)))
        for value, array in zip(values, taken, strict=True):
            found[value][begin : begin + len(row)] = array.reshape(len(row), -1)
        begin += len(row)
    return found


def feed(session: ort.InferenceSession, ids: Sequence[int], past: int) -> dict[str, NDArray[Any]]:
    """The inputs of either graph for a whole text at once; ``past``: entries of a shared cache."""
    count = len(ids)
    made: dict[str, NDArray[Any]] = {
        "input_ids": np.asarray([ids], np.int64),
        "position_ids": np.arange(count, dtype=np.int64)[None],
        "attention_mask": np.ones((1, count), np.int64),
        "seqlens_k": np.array([count - 1], np.int32),
        "total_sequence_length": np.array(count, np.int32),
        "attention_bias": np.zeros((1, 1, count, count), np.float32),
        "rows": np.array([count - 1], np.int64),
    }
    found = {}
    for given in session.get_inputs():
        if given.name in made:
            found[given.name] = made[given.name]
        else:
            length = past if given.name.startswith("past.") else 0
            shape = (1, given.shape[1], length, given.shape[3])
            found[given.name] = np.zeros(shape, np.float32)
    return found


def _gradients(
    edit: Edit, model: Any, rows: Sequence[Sequence[int]], scratch: Path
) -> dict[str, NDArray[np.float32]]:
    parts = _parts(edit, model)
    count = sum(map(len, rows))
    kept = losses.places(count)
    found: dict[str, NDArray[np.float32]] = {
        name: np.lib.format.open_memmap(
            scratch / f"gradient-{index}.npy", "w+", np.float32,
            (len(kept), sum(_rows_of(module) for module in modules)),
        )
        for index, (name, modules) in enumerate(parts.items())
    }  # fmt: skip
    homes = {
        module: (name, sum(_rows_of(other) for other in modules[:index]))
        for name, modules in parts.items()
        for index, module in enumerate(modules)
    }
    table = model.get_input_embeddings().weight
    gathered = next((node.output[0] for node in tables(edit).values()), "")
    found[gathered] = np.zeros((count, table.shape[1]), np.float32)
    at = 0

    def keep(module: nn.Module, _: Any, out: tuple[Tensor, ...]) -> None:
        name, offset = homes[module]
        value = out[0].reshape(-1, out[0].shape[-1])
        begin, end = np.searchsorted(kept, (at, at + len(value)))
        part = value.numpy()[kept[begin:end] - at]
        found[name][begin:end, offset : offset + value.shape[1]] = part

    def begin_here(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> Tensor:
        """A leaf. Its gradient is with regard to the table's row; a module may have scaled it."""
        row = table[given[0]]
        share = float((out * row).sum() / row.square().sum().clamp(min=1e-30))
        leaf = out.detach().requires_grad_()

        def keep_row(gradient: Tensor) -> None:
            found[gathered][at : at + row.shape[1]] = share * gradient[0].numpy()

        leaf.register_hook(keep_row)
        return leaf

    hooks = [module.register_full_backward_hook(keep) for module in homes]
    hooks.append(model.get_input_embeddings().register_forward_hook(begin_here))
    asked = [value for value in model.parameters() if value.requires_grad]
    model.requires_grad_(False)
    try:
        for row in rows:
            ids = torch.tensor([list(row)])
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").backward()
            at += len(row)
    finally:
        for hook in hooks:
            hook.remove()
        for value in asked:
            value.requires_grad_(True)
    return found


def _parts(edit: Edit, model: nn.Module) -> dict[str, list[nn.Module]]:
    """What of PyTorch's makes each product of the graph but the head."""
    known, all_ids = _modules(model), vocabulary(edit)
    return {
        one.name: part
        for one in products(edit)
        if one.source and one.shape[0] != all_ids and (part := _made_of(one, known))
    }


def vocabulary(edit: Edit) -> int:
    """The logits of a graph: the product that makes so many is its head."""
    (logits,) = (value for value in edit.graph.output if value.name == "logits")
    return int(logits.type.tensor_type.shape.dim[-1].dim_value)


def _rows_of(module: nn.Module) -> int:
    return int(module.weight.shape[1 if isinstance(module, Conv1D) else 0])  # type: ignore


def _modules(model: nn.Module) -> dict[bytes, nn.Module]:
    """PyTorch's products, by the first row of their weights (out, in)."""
    found: dict[bytes, nn.Module] = {}
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D):
            found[_matrix(module)[0].tobytes()] = module
    return found


def _matrix(module: nn.Module) -> NDArray[np.float32]:
    value: NDArray[np.float32] = module.weight.detach().numpy()  # type: ignore
    return value.T if isinstance(module, Conv1D) else value


def _made_of(one: Product, known: dict[bytes, nn.Module]) -> list[nn.Module]:
    """The modules whose products lie side by side in the graph's; none if one is not there."""
    weight, found, row = one.weight, [], 0
    while row < len(weight):
        module = known.get(np.ascontiguousarray(weight[row]).tobytes())
        if module is None or not np.array_equal(
            _matrix(module), weight[row : row + _rows_of(module)]
        ):
            return []
        found.append(module)
        row += _rows_of(module)
    return found
