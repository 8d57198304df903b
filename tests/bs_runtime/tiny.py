"""Random models of five architectures, small enough to build in memory."""

import copy
import random

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from bs_runtime.checkpoint.facts import Facts
from bs_runtime.model.kv import Feed
from bs_runtime.model.target import Target

VOCAB = 67
CONTEXT = 48
SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": None,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SHAPE),
    "qwen3": Qwen3Config(**SHAPE, head_dim=16),
    "gemma": GemmaConfig(**SHAPE, head_dim=16),
    "gpt2": GPT2Config(
        vocab_size=VOCAB,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
    ),
}
IDS = [3, 14, 15, 9, 26, 5, 35, 8, 9, 7, 9, 32, 38, 46, 2, 64]


def build(config) -> PreTrainedModel:
    torch.manual_seed(0)
    # A target changes its model's configuration.
    model = AutoModelForCausalLM.from_config(copy.deepcopy(config)).eval()
    with torch.no_grad():  # apart from the usual 0.02, so that logits differ by more than rounding
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model


def tokenizer() -> Tokenizer:
    made = Tokenizer(models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w2"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


def take(model: PreTrainedModel) -> Target:
    return Target(model, tokenizer().to_str(), "tiny", Facts((1,)))


def full(model: PreTrainedModel, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return model(torch.tensor([ids]), use_cache=False).logits[0]


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def text(seed: int, length: int) -> list[int]:
    return random.Random(seed).choices(range(VOCAB), k=length)


def check_ragged_step(plain: PreTrainedModel, packed) -> tuple[list[int], list[int]]:
    """Prompts, drafts and single tokens in one step of a target or an engine.

    Every row is that of its own text, fed to the plain model. Returns the tokens of each forward
    that the model was called for, and of each session.
    """
    cases = [  # tokens cached, tokens fed, rows wanted
        (0, 20, 1),  # a prompt
        (7, 5, 5),  # a draft
        (30, 1, 1),  # stream
        (12, 16, 0),  # the middle of a long prompt
        (0, 1, 1),
        (CONTEXT - 9, 9, 9),
        (1, 3, 2),
    ]
    texts = [text(seed, cached + fed) for seed, (cached, fed, _) in enumerate(cases)]
    slots = [packed.open() for _ in cases]
    for slot, ids, (cached, _, _) in zip(slots, texts, cases, strict=True):
        if cached:
            slot.forward(ids[:cached], last=True)
    seen: list[int] = []
    hook = packed.model.register_forward_pre_hook(
        lambda _, __, kw: seen.append(kw["input_ids"].shape[1]), with_kwargs=True
    )
    rows = packed.forward(
        [
            Feed(slot, ids[cached:], count)
            for slot, ids, (cached, _, count) in zip(slots, texts, cases, strict=True)
        ]
    )
    hook.remove()
    wanted = [
        full(plain, ids)[len(ids) - count :]
        for ids, (_, _, count) in zip(texts, cases, strict=True)
    ]
    close(rows.cpu(), torch.cat(wanted))
    assert [slot.length for slot in slots] == [len(ids) for ids in texts]
    return seen, [fed for _, fed, _ in cases]


def check_random_histories(plain: PreTrainedModel, packed, sessions: int, steps: int) -> None:
    """Sessions come and go; every row that is made is that of the whole text so far."""
    rng = random.Random(5)
    histories: list[list[int]] = [[] for _ in range(sessions)]
    slots = [packed.open() for _ in histories]
    for _ in range(steps):
        chosen = rng.sample(range(sessions), rng.randint(1, sessions))
        feeds = []
        for i in chosen:
            if rng.random() < 0.1 or len(histories[i]) > CONTEXT - 8:
                slots[i].close()  # the session ends, and another takes its slot
                histories[i] = []
            kept = rng.randint(max(0, len(histories[i]) - 4), len(histories[i]))
            del histories[i][kept:]
            slots[i].rollback(kept)
            ids = text(rng.randrange(1 << 30), rng.randint(1, 8))
            histories[i] += ids
            feeds.append(Feed(slots[i], ids, rng.randint(0, len(ids))))
        rows = packed.forward(feeds)
        wanted = [
            full(plain, histories[i])[len(histories[i]) - feed.rows :]
            for i, feed in zip(chosen, feeds, strict=True)
        ]
        close(rows.cpu(), torch.cat(wanted))
