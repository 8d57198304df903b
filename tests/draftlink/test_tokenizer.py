"""Tokenizers are compared by what they do, and told apart by their first differences."""

from __future__ import annotations

import json

import pytest

from draftlink.protocol.tokenizer import differences, tokenizer_hash

BASE = {
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]},
    "normalizer": {"type": "NFC"},
    "added_tokens": [{"id": 3, "content": "<end>", "special": True, "lstrip": False}],
}


def changed(**model) -> str:
    return json.dumps(BASE | {"model": BASE["model"] | model})


def test_the_hash_knows_what_a_tokenizer_does_and_not_how_it_is_written():
    one = '{"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": ["a b"]}}'
    two = '{"model":{"merges":[["a","b"]],"vocab":{"b":1,"a":0},"type":"BPE","dropout":null}}'
    other = '{"model": {"type": "BPE", "vocab": {"a": 1, "b": 0}, "merges": ["a b"]}}'
    assert tokenizer_hash(one) == tokenizer_hash(two) != tokenizer_hash(other)
    for broken in ("", "[]", '{"no": 1}'):
        with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
            tokenizer_hash(broken)


def test_the_first_differences_are_told():
    base = json.dumps(BASE)
    assert differences(base, base) == []
    assert differences(base, changed(vocab={"a": 0, "c": 1, "ab": 2})) == ['id 1: "b" against "c"']
    assert differences(base, changed(vocab={"a": 0, "b": 1})) == ['id 2: "ab" against nothing']
    assert differences(base, changed(merges=[["b", "a"]])) == [
        'merge 0: ["a", "b"] against ["b", "a"]'
    ]
    assert differences(base, json.dumps(BASE | {"normalizer": None})) == [
        'normalizer: {"type": "NFC"} against nothing'
    ]
    assert differences(base, changed(byte_fallback=True)) == [
        "model's byte_fallback: nothing against true"
    ]
    end = [{"id": 3, "content": "<stop>", "special": True}]
    (line,) = differences(base, json.dumps(BASE | {"added_tokens": end}))
    assert line.startswith("added token 3: {") and " against {" in line


def test_many_differences_are_counted():
    lines = differences(changed(vocab={str(i): i for i in range(1000)}), changed(vocab={}))
    assert lines[:2] == ['id 0: "0" against nothing', 'id 1: "1" against nothing']
    assert lines[3] == "and 997 more of this kind" and len(lines) == 4


def test_differences_and_hashes_agree():
    """No difference: the same hash. Another order of added tokens is a difference, too."""
    token = BASE["added_tokens"][0]
    other = token | {"id": 4, "content": "<x>"}
    texts = [
        json.dumps(BASE),
        changed(merges=[["a", "b"]]),
        changed(unk_token="a"),
        json.dumps(BASE | {"added_tokens": [token, other]}),
        json.dumps(BASE | {"added_tokens": [other, token]}),
    ]
    for a in texts:
        for b in texts:
            assert (differences(a, b) == []) == (tokenizer_hash(a) == tokenizer_hash(b))
    with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
        differences("{}", texts[0])
