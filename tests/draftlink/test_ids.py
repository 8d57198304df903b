import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from draftlink.coding.ids import IdModel
from draftlink.coding.rangecoder import RangeDecoder, RangeEncoder
from draftlink.coding.slices import whole

# Recorded with bench.coder.collect: two texts of the embedded pair, and blocks drafted along them.
TEXTS = json.loads((Path(__file__).parent / "pair_sample.json").read_text())["texts"]
VOCAB = 8192


def write(model, ids):
    out = RangeEncoder()
    model.encode(out, ids)
    return out.finish()


def read(model, payload, count):
    source = RangeDecoder(payload)
    ids = whole(model.decoding(source, count))
    source.finish()
    return ids


def state(model):
    """All that a model holds, in order."""
    held = {**vars(model), **vars(model._seen)}
    return json.dumps([(k, str(v)) for k, v in held.items() if k not in ("_prior", "_seen")])


@st.composite
def sessions(draw):
    """A vocabulary, and ids that repeat themselves a lot."""
    vocab_size = draw(st.sampled_from((1, 2, 100, 8192, 152_064)))
    few = draw(st.lists(st.integers(0, vocab_size - 1), min_size=1, max_size=6))
    token = st.one_of(st.sampled_from(few), st.integers(0, vocab_size - 1))
    return vocab_size, draw(st.lists(token, max_size=80)), draw(st.lists(token, max_size=12))


@settings(deadline=None)
@given(sessions())
def test_round_trip_leaves_the_history_alone(session):
    vocab_size, history, ids = session
    device, station = IdModel(vocab_size), IdModel(vocab_size)
    device.extend(history)
    station.extend(history)
    before = state(device)
    payload, bits = write(device, ids)
    assert len(payload) == (bits + 7) // 8
    assert read(station, payload, len(ids)) == ids
    assert state(device) == state(station) == before


@settings(deadline=None)
@given(sessions(), st.lists(st.tuples(st.floats(0, 1), st.lists(st.integers(0, 1), max_size=9))))
def test_rolling_back_leaves_no_trace(session, steps):
    vocab_size, history, ids = session
    model = IdModel(vocab_size)
    model.extend(history)
    for keep, more in steps:
        kept = int(keep * model.length)
        model.rollback(kept)
        history = history[:kept] + [i % vocab_size for i in more]
        model.extend(history[kept:])
        write(model, ids)
    fresh = IdModel(vocab_size)
    fresh.extend(history)
    assert state(model) == state(fresh)
    model.rollback(0)
    assert state(model) == state(IdModel(vocab_size))


def test_a_context_with_many_followers_stays_exact():
    rng = random.Random(0)
    history = [token for _ in range(300) for token in (7, rng.randrange(100))]
    model = IdModel(VOCAB)
    model.extend(history)
    for token in (*range(100), 7, 8000):
        ids = [7, token]
        assert read(model, write(model, ids)[0], 2) == ids
    model.rollback(0)
    assert state(model) == state(IdModel(VOCAB))


def bits_per_id(shuffled=False):
    bits = count = 0
    for text in TEXTS:
        model = IdModel(VOCAB)
        history = list(text["ids"])
        if shuffled:
            history = [(i * 4099 + 1) % VOCAB for i in history]  # another session's
        for block in text["blocks"]:
            model.extend(history[model.length : block["base"]])
            payload, size = write(model, block["ids"])
            assert read(model, payload, len(block["ids"])) == block["ids"]
            bits += size
            count += len(block["ids"])
    return bits / count


def test_real_ids_cost_far_less_than_log2_v():
    found = bits_per_id()
    assert found < 0.75 * math.log2(VOCAB)
    # The control: with a history that says nothing of the ids, most of the gain is gone.
    assert bits_per_id(shuffled=True) > found + 1


def test_a_repeated_text_is_nearly_free():
    rng = random.Random(0)
    text = [rng.randrange(VOCAB) for _ in range(60)]
    model = IdModel(VOCAB)
    model.extend(text * 3)
    assert write(model, text[:20])[1] < 20 * 2


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=40), st.integers(0, 12), sessions())
def test_any_bytes_are_their_own_ids_or_raise(payload, count, session):
    vocab_size, history, _ = session
    model = IdModel(vocab_size)
    model.extend(history)
    before = state(model)
    try:
        ids = read(model, payload, count)
    except ValueError:
        assert state(model) == before
        return
    assert all(0 <= i < vocab_size for i in ids)
    assert state(model) == before
    assert write(model, ids)[0] == payload


def test_what_cannot_be_is_refused_and_changes_nothing():
    model = IdModel(100)
    model.extend([1, 2, 3])
    before = state(model)
    for ids in ([100], [-1], [1, 100]):
        with pytest.raises(ValueError, match="vocabulary"):
            write(model, ids)
        assert state(model) == before
    for length in (-1, 4):
        with pytest.raises(ValueError, match="roll"):
            model.rollback(length)
    assert state(model) == before


def test_golden_bytes():
    text = TEXTS[0]
    model = IdModel(VOCAB)
    model.extend(text["ids"][:60])
    assert write(model, text["ids"][60:68])[0].hex() == "8c60afb09a3cc91080"
    crowded = IdModel(VOCAB)  # 7 has been followed by more ids than a context learns
    crowded.extend([token for i in range(50) for token in (7, i)])
    assert write(crowded, [7, 45, 7, 3, 8000])[0].hex() == "2468d699"
