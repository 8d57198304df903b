"""A prompt that goes on with a conversation keeps its ids, and always decodes to its own text."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from device_runtime import facts
from device_runtime.prompt import prompt_ids
from device_runtime.text import Detokenizer, Text
from draftlink.protocol.frames import Welcome
from tests.device_runtime.tokenizers_by_kind import CORPUS, KINDS

# Kinds whose decoder gives back what was encoded.
INVERTIBLE = [kind for kind in KINDS if kind not in ("bert", "bert as it is", "word ends", "words")]


@functools.cache
def made(kind: str) -> tuple[Tokenizer, Detokenizer]:
    tokenizer = KINDS[kind]()
    return tokenizer, Detokenizer(tokenizer)


def welcome(*bos: int) -> Welcome:
    return Welcome(5, "x", 1000, 1 << 20, ["topk"], "m", "float32", bos_ids=list(bos))


def encoded(kind: str, text: str, *bos: int) -> list[int]:
    return facts.prompt_ids(text, made(kind)[0], welcome(*bos), first=True)


def ids_of(kind: str, text: str, history: list[int], *bos: int) -> list[int]:
    return prompt_ids(text, history, *made(kind), welcome(*bos))


def says(kind: str, ids: list[int]) -> str:
    return made(kind)[1].decode(ids, special=True)


def sampled(kind: str, rng: np.random.Generator, count: int) -> list[int]:
    """Ids at random, as at a high temperature: hardly ever what the tokenizer would make."""
    tokenizer, detokenizer = made(kind)
    words = [i for i in range(tokenizer.get_vocab_size()) if detokenizer.word(i) is not None]
    return rng.choice(words, count).tolist()


def written(kind: str, prompt: list[int], ids: list[int]) -> str:
    """What a generation shows of its tokens."""
    text = Text(made(kind)[1], prompt)
    return "".join([text.push(token) for token in ids]) + text.finish()


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_the_target_sees_the_prompts_text(kind, data):
    """Whatever history there is, and however the prompt goes on with it or departs from it."""
    phrase = st.sampled_from(CORPUS).flatmap(
        lambda text: st.tuples(st.integers(0, 20), st.integers(1, 20)).map(
            lambda cut: text[cut[0] : cut[0] + cut[1]] or text
        )
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 1 << 32)))
    bos = data.draw(st.sampled_from([(), (0,)]))
    first = data.draw(phrase)
    history = encoded(kind, first, *bos)
    text = first
    for _ in range(data.draw(st.integers(0, 3))):
        new = sampled(kind, rng, int(rng.integers(1, 9)))
        text += written(kind, history, new)
        history += new
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(text))))
    prompt = (text if cut is None else text[:cut]) + data.draw(phrase)
    found = ids_of(kind, prompt, history, *bos)
    afresh = encoded(kind, prompt, *bos)
    assert found[: len(bos)] == list(bos)
    # An encoding afresh may lose something (an unknown character), which the ids had.
    assert says(kind, found[len(bos) :]) in (prompt, says(kind, afresh[len(bos) :]))


@pytest.mark.parametrize("bos", [(), (0,)], ids=["", "with a BOS"])
@pytest.mark.parametrize("kind", INVERTIBLE)
def test_ids_that_were_sampled_are_kept(kind, bos):
    """Ten turns of random ids: what has to be fed again is the new turn, or little more."""
    rng = np.random.default_rng(1)
    text, history = "I see the sky.", encoded(kind, "I see the sky.", *bos)
    again = lost = 0
    for _ in range(10):
        new = sampled(kind, rng, 12)
        text += written(kind, history, new)
        history += new
        text += " The sky is blue."
        ids = ids_of(kind, text, history, *bos)
        same = next((i for i, (a, b) in enumerate(zip(ids, history, strict=False)) if a != b), None)
        kept = min(len(ids), len(history)) if same is None else same
        again += len(history) - kept
        afresh = encoded(kind, text, *bos)
        lost += len(history) - next(
            (i for i, (a, b) in enumerate(zip(afresh, history, strict=False)) if a != b),
            len(history),
        )
        history = ids
    assert again == 0
    assert lost > 300  # control: encoded afresh, they part at once


@pytest.mark.parametrize("kind", ["gpt-2", "llama-3", "qwen", "llama-2", "phi-3", "gemma"])
def test_an_edit_in_the_middle_keeps_what_stands_before_it(kind):
    tokenizer, rng = made(kind)[0], np.random.default_rng(2)
    first = encoded(kind, "I see the sky.")
    # Without what the small tokenizers do not know: an encoding afresh would lose it.
    unknown = tokenizer.token_to_id("<unk>")
    new = [i for i in sampled(kind, rng, 60) if unknown not in encoded(kind, says(kind, [5, i]))]
    before = first + new
    text = "I see the sky." + written(kind, first, before[len(first) :])
    history = ids_of(kind, text + " The sky is blue.", before)
    assert history[: len(before)] == before
    new = new[::-1]
    edited = text + " The river flies." + written(kind, history, new)
    ids = ids_of(kind, edited, history + new)
    assert says(kind, ids) == says(kind, encoded(kind, edited))
    assert ids[: len(before)] == before
    afresh = encoded(kind, edited)
    assert afresh[: len(before)] != before  # control


def test_an_eos_that_the_text_does_not_name_is_dropped():
    tokenizer, _ = made("qwen")
    eos = tokenizer.token_to_id("<|im_end|>")
    history = [*encoded("qwen", "I see"), *encoded("qwen", " the sk"), *encoded("qwen", "y"), eos]
    rest = encoded("qwen", ". The sky")
    assert ids_of("qwen", "I see the sky. The sky", history) == history[:-1] + rest
    named = ids_of("qwen", "I see the sky<|im_end|>. The sky", history)
    assert named == history + rest


def test_another_prompt_is_encoded_as_if_nothing_had_been_said():
    for kind in KINDS:
        history = encoded(kind, CORPUS[0]) + sampled(kind, np.random.default_rng(3), 20)
        for text in CORPUS[1:6]:
            assert ids_of(kind, text, history) == encoded(kind, text)
