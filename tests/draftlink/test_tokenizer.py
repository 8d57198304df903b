"""Tokenizers are compared by what they do, and told apart by their first differences."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from draftlink.protocol.tokenizer import differences, tokenizer_hash
from tests.device_runtime.tokenizers_by_kind import KINDS

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def made(
    tokens: tuple[str, ...] = ("th", "the"),
    merges: tuple[tuple[str, str], ...] = (("t", "h"), ("th", "e")),
    added: tuple[str, ...] = ("<end>",),
    **options: object,
) -> Tokenizer:
    vocab = {token: index for index, token in enumerate([*ALPHABET, *tokens])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(merges), **options))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(list(added))
    return tokenizer


class Written:
    """What is said, with ids of none."""

    def __init__(self, text: str) -> None:
        self.text = text

    def to_str(self) -> str:
        return self.text

    def encode(self, sequence: str, *, add_special_tokens: bool) -> SimpleNamespace:
        return SimpleNamespace(ids=[])


def test_the_hash_knows_what_a_tokenizer_does_and_not_how_it_is_written():
    one = Written('{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}}')
    two = Written(
        '{"model":{"merges":[["a","b"]],"vocab":{"b":1,"a":0},"type":"BPE","dropout":null,'
        '"end_of_word_suffix":""},"post_processor":null}'
    )
    other = Written('{"model": {"type": "BPE", "vocab": {"a": 1, "b": 0}, "merges": ["a b"]}}')
    assert tokenizer_hash(one) == tokenizer_hash(two) != tokenizer_hash(other)
    for broken in ("", "[]", '{"no": 1}'):
        with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
            tokenizer_hash(Written(broken))


def with_(change: Callable[[Tokenizer], None]) -> Tokenizer:
    tokenizer = made()
    change(tokenizer)
    return tokenizer


def normalized(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.NFC()


def digits_apart(tokenizer: Tokenizer) -> None:
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), level])


def begun(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<end> $A", special_tokens=[("<end>", tokenizer.token_to_id("<end>"))]
    )


def ended(tokenizer: Tokenizer) -> None:
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", tokenizer.token_to_id("<end>"))]
    )


OTHERS = {
    "one merge less": lambda: made(merges=(("t", "h"),)),
    "one merge more": lambda: made(
        merges=(("t", "h"), ("th", "e"), ("h", "t")), tokens=("th", "the", "ht")
    ),
    "merges in another order": lambda: made(merges=(("th", "e"), ("t", "h"))),
    "another token": lambda: made(tokens=("th", "the", "x")),
    "another special token": lambda: made(added=("<stop>",)),
    "one special token more": lambda: made(added=("<end>", "<stop>")),
    "whole words first": lambda: made(ignore_merges=True),
    "another normalizer": lambda: with_(normalized),
    "another post-processor": lambda: with_(begun),
    "an EOS behind": lambda: with_(ended),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_tokenizer_has_another_hash_and_says_why(name):
    one, other = made(), OTHERS[name]()
    assert tokenizer_hash(one) != tokenizer_hash(other)
    assert tokenizer_hash(one) == tokenizer_hash(made())
    lines = differences(one, other)
    assert lines and all(" against " in line or "more of this kind" in line for line in lines)


def test_digits_apart_by_a_step_or_by_a_pattern_are_the_same():
    apart = with_(digits_apart)

    def by_pattern(tokenizer: Tokenizer) -> None:
        level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        split = pre_tokenizers.Split(Regex(r"\p{N}"), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])

    merges = (("t", "h"), ("1", "2"))
    for change, same in ((by_pattern, True), (normalized, False)):
        other = with_(change)
        assert (tokenizer_hash(apart) == tokenizer_hash(other)) == same
    assert tokenizer_hash(made(("th", "12"), merges)) != tokenizer_hash(apart)


def test_the_first_differences_are_told():
    base = made()
    assert differences(base, base) == []
    at = len(ALPHABET)
    other = made(tokens=("th", "the", "tha"))
    assert differences(base, other)[0] == f'id {at + 2}: "<end>" against "tha"'
    lines = differences(base, made(merges=(("th", "e"), ("t", "h"))))
    assert lines[0] == 'merge 0: ["t", "h"] against ["th", "e"]'
    lines = differences(with_(normalized), base)
    assert 'normalizer: {"type": "NFC"} against nothing' in lines
    assert any(line.startswith("ids of 'Déjà") for line in lines)
    lines = differences(base, made(ignore_merges=True))
    assert "model's ignore_merges: nothing against true" in lines
    lines = differences(base, made(added=("<stop>",)))
    assert f'added token {at + 2}: "<end>" against "<stop>"' in lines
    lines = differences(base, with_(begun))
    assert any(line.startswith("post_processor: nothing against {") for line in lines)
    assert any(line.startswith("ids of '': [] against [") for line in lines)


def test_many_differences_are_counted():
    def numbered(count: int) -> Written:
        vocab = {str(i): i for i in range(count)}
        return Written(json.dumps({"model": {"type": "BPE", "vocab": vocab, "merges": []}}))

    lines = differences(numbered(1000), numbered(0))
    assert lines[:2] == ['id 0: "0" against nothing', 'id 1: "1" against nothing']
    assert lines[3] == "and 997 more of this kind" and len(lines) == 4


def test_differences_and_hashes_agree():
    """No difference: the same hash. Where nothing differs but the order, that is told."""
    several = [make() for make in OTHERS.values()] + [make() for make in KINDS.values()]
    for a in several:
        for b in several:
            assert (differences(a, b) == []) == (tokenizer_hash(a) == tokenizer_hash(b))
    with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
        differences(Written("{}"), several[0])
