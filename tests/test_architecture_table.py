"""Every architecture of docs/architectures.md writes, through both ends, what `generate` does."""

from __future__ import annotations

import asyncio
import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from bs_runtime.model.target import Target
from device_runtime.device import Device, Sampling
from export.bundle import export_bundle
from tests.architecture_rows import DOCS, MAJOR, ROWS, rewritten
from tests.bs_runtime.architectures import sized
from tests.conftest import HAS_PORTABLE
from tests.fakes import served

PROMPTS = ("Once upon a time", "User: a table for two", "a boat")
TOKENS = 24
NEAR_TIE = 1e-4  # two leading scores this close may swap with the shape of a forward
NAMES = [row.models for row in ROWS]
DRAFTS = [row for row in ROWS if row.draft is not None]


def configured(row, vocab: int):
    common = {"vocab_size": vocab, "bos_token_id": 0, "eos_token_id": 0}
    if row.kind != "gemma3":
        return sized(row.kind, **common | row.changes)
    text = sized("gemma3_text", **common | row.changes).to_dict()
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
    }  # fmt: skip
    return AutoConfig.for_model(
        "gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4,
        boi_token_index=1, eoi_token_index=2, image_token_index=3,
    )  # fmt: skip


@pytest.fixture(scope="session")
def folder(tmp_path_factory, tokenizer):
    """A function from a row to a folder with a random model of it."""
    made = {}

    def make(row):
        if row.models not in made:
            path = tmp_path_factory.mktemp("row")
            torch.manual_seed(0)
            config = configured(row, len(tokenizer))
            model = AutoModelForCausalLM.from_config(copy.deepcopy(config))
            with torch.no_grad():  # apart from the usual 0.02, so that texts are no repeats
                for parameter in model.parameters():
                    if parameter.dim() > 1:
                        parameter.mul_(4)
            model.save_pretrained(path)
            tokenizer.save_pretrained(path)
            made[row.models] = path
        return made[row.models]

    return make


def texts(path, tokenizer) -> list[tuple[list[int], list[int]]]:
    """Prompts, and what transformers writes behind them, by the plainest of its attentions."""
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    )
    model.generation_config.eos_token_id = None
    found = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt)["input_ids"]
        given = torch.tensor([ids])
        out = model.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=TOKENS
        )
        found.append((ids, out[0, len(ids) :].tolist()))
    return found


def through(bundle, target, prompts) -> tuple[list[list[int]], int, int]:
    """What a device writes behind prompts, and how many tokens it drafted and were accepted."""
    written, drafted, accepted = [], 0, 0

    async def run(url: str) -> None:
        nonlocal drafted, accepted
        async with Device(bundle, url) as device:
            for ids in prompts:
                generation = device.generate(
                    ids, max_tokens=TOKENS, sampling=Sampling(temperature=0.0), eos_ids=(),
                    mode="stop-and-wait", gamma=4,
                )  # fmt: skip
                written.append([token.id async for token in generation])
                drafted += generation.result.drafted
                accepted += generation.result.accepted

    with served(target) as url:
        asyncio.run(run(url))
    return written, drafted, accepted


def check(found, wanted, target) -> None:
    """Token for token, up to near-ties of the target."""
    for written, (ids, text) in zip(found, wanted, strict=True):
        if written != text:
            at = next(i for i in range(TOKENS) if written[i : i + 1] != text[i : i + 1])
            row = target.open().forward([*ids, *text[:at]], last=True)[0]
            first, second = row.topk(2).values.tolist()
            assert first - second < NEAR_TIE, (at, written, text)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_as_a_target(row, folder, tokenizer, bundle):
    """Whoever drafts: here it is another model, of which little is accepted."""
    wanted = texts(folder(row), tokenizer)
    assert len({token for _, text in wanted for token in text}) > 3  # or any model would do
    target = Target.load(folder(row))
    assert target.engine.packed == (row.packed == "always" or (row.packed == "5" and MAJOR >= 5))
    found, _, _ = through(bundle(), target, [ids for ids, _ in wanted])
    check(found, wanted, target)


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=[] if row.quick else pytest.mark.full) for row in DRAFTS],
    ids=[row.models for row in DRAFTS],
)
def test_as_a_draft_of_itself(row, folder, tokenizer, tmp_path):
    """The float graph is PyTorch's, so that its drafts are the target's own text."""
    if row.draft == "portable" and not HAS_PORTABLE:
        pytest.skip("optimum-onnx asks for transformers below 4.58")
    made = export_bundle(folder(row), tmp_path / "out", "fp32", graph=row.draft)
    assert made.manifest.check.max_logit_difference <= 1e-3
    wanted = texts(folder(row), tokenizer)
    target = Target.load(folder(row))
    found, drafted, accepted = through(made, target, [ids for ids, _ in wanted])
    check(found, wanted, target)
    assert accepted > 0.9 * drafted > 0


def test_the_page_has_this_table():
    """`python -m tests.architecture_rows` writes it."""
    page = DOCS.read_text(encoding="utf-8")
    assert rewritten(page) == page
