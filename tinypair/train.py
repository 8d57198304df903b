"""Train the embedded pair: tokenizer, target, and a draft distilled from the target.

    python -m tinypair.train --text stories.txt:2 --text dialogues.txt --work build/pair

Every stage keeps its progress under ``--work`` and goes on where it stopped; a finished stage is
not run again. The pair is written to ``--out`` as two transformers folders with 16-bit weights.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import tinypair
from draftlink.host import files
from export import ExportError, place
from tinypair.corpus import Source, split, token_row, train_tokenizer
from tinypair.publish import publish, published

CHECKPOINT_SECONDS = 120.0
EVAL_TOKENS = 131_072


@dataclass(frozen=True)
class Shape:
    """A Llama model's sizes."""

    hidden: int
    layers: int
    mlp: int
    heads: int
    kv_heads: int

    def config(self, tokenizer: PreTrainedTokenizerFast, context: int) -> LlamaConfig:
        """The model's configuration."""
        return LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            intermediate_size=self.mlp,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=context,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )


# The target has 8.5 times the draft's non-embedding parameters. Wide and shallow: on a CPU a
# 384 x 6 model trains as fast as a 288 x 8 one with 3/4 of its parameters.
TARGET = Shape(hidden=384, layers=6, mlp=1024, heads=6, kv_heads=2)
DRAFT = Shape(hidden=256, layers=2, mlp=512, heads=4, kv_heads=1)


@dataclass(frozen=True)
class Recipe:
    """How long and how fast a model is trained."""

    tokens: int
    rate: float  # of Muon, for the matrices inside the layers; AdamW's for the rest is a tenth
    batch: int
    length: int
    warmup: int = 200
    decay: float = 0.35  # the share of the steps at the end in which the rate falls to zero

    @property
    def steps(self) -> int:
        """Optimizer steps in all."""
        return max(1, self.tokens // (self.batch * self.length))

    def rate_at(self, step: int) -> float:
        """The learning rate: warm-up, constant, linear decay to zero."""
        left = (self.steps - step) / max(1.0, self.decay * self.steps)
        return self.rate * min(1.0, (step + 1) / self.warmup, left)


def batches(row: np.ndarray, recipe: Recipe, start: int, device: str) -> Iterator[Tensor]:
    """Batches (batch, length + 1) of windows, in an order that depends only on the step."""
    windows = (len(row) - 1) // recipe.length
    for step in range(start, recipe.steps):
        rows = []
        for i in range(step * recipe.batch, (step + 1) * recipe.batch):
            epoch, index = divmod(i, windows)
            order = np.random.default_rng(epoch).permutation(windows)
            # Each epoch cuts the row at other places, so that no window is seen twice.
            shift = (epoch * 97) % recipe.length if epoch else 0
            begin = min(int(order[index]) * recipe.length + shift, len(row) - recipe.length - 1)
            rows.append(row[begin : begin + recipe.length + 1])
        yield torch.from_numpy(np.stack(rows).astype(np.int64)).to(device)


def logits(model: LlamaForCausalLM, ids: Tensor) -> Tensor:
    """Float32 logits (batch, n, V) of ids (batch, n)."""
    found: Tensor = model(input_ids=ids, use_cache=False).logits.float()
    return found


def text_loss(model: LlamaForCausalLM, batch: Tensor, progress: Tensor) -> Tensor:
    """Cross-entropy with the text, in nats per token."""
    return F.cross_entropy(logits(model, batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())


def distillation_loss(target: LlamaForCausalLM) -> Callable[..., Tensor]:
    """From KL(p || q), smooth far from the goal, to 1 - sum min(p, q), which *is* the goal.

    The acceptance of speculative sampling is 1 - TV(p, q) (arXiv 2211.17192, theorem 3.5), so the
    total variation is what the draft is trained for once it is near enough (as arXiv 2310.08461).
    """

    def loss(model: LlamaForCausalLM, batch: Tensor, progress: Tensor) -> Tensor:
        with torch.no_grad():
            p = F.softmax(logits(target, batch[:, :-1]), dim=-1)
        log_q = F.log_softmax(logits(model, batch[:, :-1]), dim=-1)
        cross = -(p * log_q).sum(-1).mean()
        variation = 1.0 - torch.minimum(p, log_q.exp()).sum(-1).mean()
        weight = progress.clamp(0.0, 1.0) * 0.9
        return (1.0 - weight) * cross + weight * 4.0 * variation

    return loss


def made_for(model: LlamaForCausalLM, recipe: Recipe) -> list[tuple[torch.optim.Optimizer, float]]:
    """The optimizers of a model's parameters, each with its share of the recipe's rate.

    Muon (Jordan et al. 2024) needs about half of AdamW's tokens for the matrices of the layers; the
    table of embeddings and the norms are not what it is for.
    """
    inner = [p for p in model.model.layers.parameters() if p.dim() == 2]
    outer = [p for p in model.parameters() if not any(p is q for q in inner)]
    return [
        (torch.optim.Muon(inner, lr=recipe.rate, weight_decay=0.1), 1.0),
        (torch.optim.AdamW(outer, betas=(0.9, 0.98), weight_decay=0.01, fused=True), 0.1),
    ]


def train(
    name: str,
    model: LlamaForCausalLM,
    row: np.ndarray,
    recipe: Recipe,
    loss_of: Callable[..., Tensor],
    work: Path,
    device: str,
    compiled: bool,
) -> LlamaForCausalLM:
    """Train ``model``, resuming from ``work/name.pt`` where there is one."""
    torch.nn.Module.to(model, device).train()
    optimizers = made_for(model, recipe)
    path, done = work / f"{name}.pt", 0
    if path.exists():
        state = torch.load(path, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        for (optimizer, _), saved_state in zip(optimizers, state["optimizers"], strict=False):
            optimizer.load_state_dict(saved_state)
        done = state["tokens"]
    step = done // (recipe.batch * recipe.length)

    def save() -> None:
        states = [optimizer.state_dict() for optimizer, _ in optimizers]
        tokens = step * recipe.batch * recipe.length
        state = {"model": model.state_dict(), "optimizers": states, "tokens": tokens}
        with files.whole(path) as partial:
            torch.save(state, partial)

    step_loss = torch.compile(loss_of) if compiled else loss_of
    log, saved, mean = (work / f"{name}.log").open("a"), time.monotonic(), math.nan
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task(name, total=recipe.steps, completed=step)
        for batch in batches(row, recipe, step, device):
            for optimizer, share in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = share * recipe.rate_at(step)
            with torch.autocast(batch.device.type, torch.bfloat16):
                loss = step_loss(model, batch, torch.tensor(step / recipe.steps, device=device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimizer, _ in optimizers:
                optimizer.step()
            model.zero_grad(set_to_none=True)
            step += 1
            mean = loss.item() if math.isnan(mean) else 0.98 * mean + 0.02 * loss.item()
            bar.update(task, completed=step, description=f"{name} loss {mean:.3f}")
            if step % 50 == 0:
                log.write(json.dumps({"step": step, "loss": mean, "time": time.time()}) + "\n")
                log.flush()
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                save()
                saved = time.monotonic()
    save()
    log.close()
    model.eval()
    return model


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, row: np.ndarray, length: int, device: str) -> float:
    """Cross-entropy in nats per token over the first ``EVAL_TOKENS`` of a held-out row."""
    total, count = 0.0, 0
    for begin in range(0, min(len(row) - 1, EVAL_TOKENS), length):
        window = torch.from_numpy(row[begin : begin + length + 1].astype(np.int64)).to(device)
        loss = text_loss(model, window[None], torch.tensor(0.0))
        total, count = total + loss.item() * (len(window) - 1), count + len(window) - 1
    return total / count


def corpus(
    sources: list[Source], work: Path, vocab_size: int
) -> tuple[PreTrainedTokenizerFast, np.ndarray, np.ndarray]:
    """Tokenizer, training row, held-out row; kept under ``work``."""
    if (work / "held_out.npy").exists():
        tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
        return tokenizer, np.load(work / "train.npy"), np.load(work / "held_out.npy")
    training: list[str] = []
    held_out: list[str] = []
    for source in sources:
        train_texts, held_texts = split(source.path)
        training += train_texts * source.repeats
        held_out += held_texts
    tokenizer = train_tokenizer(training, vocab_size)
    tokenizer.save_pretrained(work / "tokenizer")
    row, held_row = token_row(tokenizer, training, 0), token_row(tokenizer, held_out, 1)
    for name, ids in (("train.npy", row), ("held_out.npy", held_row)):  # the last says: all here
        with files.whole(work / name) as partial:
            np.save(partial, ids)
    return tokenizer, row, held_row


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--text", action="append", required=True, metavar="FILE[:REPEATS]")
    parser.add_argument("--work", type=Path, required=True, help="folder for the progress")
    parser.add_argument("--out", type=Path, default=tinypair.ROOT, help="folder for the pair")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--target-tokens", type=int, default=10_000_000)
    parser.add_argument("--draft-tokens", type=int, default=7_000_000)
    parser.add_argument("--length", type=int, default=512, help="tokens in a window, the context")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", action="store_true", help="where no C++ compiler is")
    parser.add_argument("--stop-after", choices=("corpus", "target", "draft"), default="draft")
    options = parser.parse_args()

    torch.manual_seed(0)
    options.work.mkdir(parents=True, exist_ok=True)
    sources = [Source.parse(text) for text in options.text]
    tokenizer, row, held_out = corpus(sources, options.work, options.vocab_size)
    tokenizer.model_max_length = options.length
    print(f"{len(row):,} training tokens, {len(held_out):,} held out, vocabulary {len(tokenizer)}")
    if options.stop_after == "corpus":
        return
    shapes = {"target": TARGET, "draft": DRAFT}
    try:
        for name in shapes if options.stop_after == "draft" else ("target",):
            config = shapes[name].config(tokenizer, options.length)
            place.check(options.out / name, published(config))
    except ExportError as error:
        parser.error(str(error))

    def stage(
        name: str, shape: Shape, tokens: int, rate: float, loss: Callable[..., Tensor]
    ) -> LlamaForCausalLM:
        recipe = Recipe(tokens=tokens, rate=rate, batch=8, length=options.length)
        model = train(
            name,
            LlamaForCausalLM(shape.config(tokenizer, options.length)),
            row,
            recipe,
            loss,
            options.work,
            options.device,
            not options.no_compile,
        )
        nats = held_out_loss(model, held_out, options.length, options.device)
        print(f"{name}: held-out loss {nats:.4f} nats per token")
        return model

    target = stage("target", TARGET, options.target_tokens, 1e-2, text_loss)
    if options.stop_after == "draft":
        draft = stage("draft", DRAFT, options.draft_tokens, 1e-2, distillation_loss(target))
        publish(draft, tokenizer, options.out / "draft")
    publish(target, tokenizer, options.out / "target")


if __name__ == "__main__":
    main()
