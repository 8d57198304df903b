"""A text is a function of prompt and tokens, and nothing of a stop string is shown."""

from __future__ import annotations

import functools
from os.path import commonprefix

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models

from device_runtime.text import KEEP, MOST, Detokenizer, Text, stop_strings
from tests.device_runtime.tokenizers_by_kind import CORPUS, KINDS

PHRASES = [phrase for text in dict.fromkeys(CORPUS) for phrase in (text, text[3:17], text[-9:])]


@functools.cache
def made(kind: str) -> Tokenizer:
    return KINDS[kind]()


def reference(tokenizer: Tokenizer, prompt: list[int], tokens: list[int]) -> str:
    """What is decoded of both together, without what it has in common with the prompt alone."""
    whole, alone = tokenizer.decode(prompt + tokens), tokenizer.decode(prompt)
    return whole[len(commonprefix([whole, alone])) :]  # noqa: RUF071


def ids(kind: str) -> st.SearchStrategy[list[int]]:
    """Ids at random, bytes above all, among encoded phrases that may be cut anywhere."""
    tokenizer = made(kind)
    vocab = tokenizer.get_vocab()
    size = max(vocab.values()) + 1
    bytes_ = [index for word, index in vocab.items() if word.startswith("<0x")]
    special = [index for index, one in tokenizer.get_added_tokens_decoder().items() if one.special]
    one = [st.integers(0, size + 1), st.sampled_from(special)]
    one += [st.sampled_from(bytes_)] * 3 if bytes_ else []
    encoded = st.sampled_from(
        [tokenizer.encode(text, add_special_tokens=False).ids for text in PHRASES]
    )
    cut = st.tuples(encoded, st.integers(0, 30), st.integers(0, 30)).map(
        lambda part: part[0][min(part[1], len(part[0])) : len(part[0]) - part[2]]
    )
    chunk = st.one_of(st.lists(st.one_of(one), max_size=6), cut)
    return st.lists(chunk, max_size=6).map(lambda chunks: [i for chunk in chunks for i in chunk])


def write(kind: str, prompt: list[int], tokens: list[int], stops=()) -> tuple[list[str], Text]:
    """The pieces, the last of them what was held back; as a generation puts them together."""
    text = Text(Detokenizer(made(kind)), prompt, stops)
    pieces = []
    for token in tokens:
        pieces.append(text.push(token))
        if text.stopped:
            return pieces, text
    return [*pieces, text.finish()], text


def each(examples: int = 60) -> settings:
    return settings(derandomize=True, deadline=None, max_examples=examples, database=None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_pieces_joined_are_the_decoded_text(kind):
    @each()
    @given(ids(kind), ids(kind))
    def check(prompt, tokens):
        pieces, text = write(kind, prompt, tokens)
        assert "".join(pieces) == reference(made(kind), prompt, tokens)
        assert not text.stopped

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_prompt_it_is_what_the_tokenizer_says(kind):
    @each(30)
    @given(ids(kind))
    def check(tokens):
        for prompt in ([], list(made(kind).get_added_tokens_decoder())[:1]):
            assert "".join(write(kind, prompt, tokens)[0]) == made(kind).decode(tokens)

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_a_stop_is_ever_shown(kind):
    """Stops are cut out of the text, across tokens and amid what may still change."""

    @each(80)
    @given(ids(kind), ids(kind), st.data())
    def check(prompt, tokens, data):
        whole = reference(made(kind), prompt, tokens)
        places = st.integers(0, len(whole))
        cuts = data.draw(st.lists(st.tuples(places, st.integers(1, 9)), max_size=3))
        stops = [whole[at : at + size] for at, size in cuts if whole[at : at + size]]
        stops += data.draw(st.lists(st.text("ab\n \ufffd", min_size=1, max_size=3), max_size=1))
        pieces, text = write(kind, prompt, tokens, stops)
        shown = "".join(pieces)
        count = len(pieces) if text.stopped else len(tokens)
        said = reference(made(kind), prompt, tokens[: min(count, len(tokens))])
        ends = [at for at in map(said.find, stops) if at >= 0]
        assert shown == (said[: min(ends)] if ends else said)
        assert text.stopped == bool(ends)
        # A stop of whole characters ends the text at once, and each is found in the end.
        if not any("\ufffd" in stop for stop in stops):
            earlier = [reference(made(kind), prompt, tokens[:n]) for n in range(count)]
            assert not any(stop in said for said in earlier for stop in stops)

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_certain_comes_at_once(kind):
    """No piece waits for longer than a character, or a run of byte tokens, is incomplete."""

    @each(30)
    @given(ids(kind), ids(kind))
    def check(prompt, tokens):
        vocab = {index: word for word, index in made(kind).get_vocab().items()}
        said = [vocab.get(token, "") for token in tokens]
        pieces, _ = write(kind, prompt, tokens)
        for count in range(1, len(tokens) + 1):
            now = reference(made(kind), prompt, tokens[:count])
            if now.endswith("\ufffd") or any("<0x" in word for word in said[:count][-9:]):
                continue
            assert "".join(pieces[:count]) == now

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_a_fork_goes_on_where_the_text_is_and_leaves_it_alone(kind):
    @each(40)
    @given(ids(kind), ids(kind), ids(kind), ids(kind), st.sampled_from(["", "a", " s", "e s"]))
    def check(prompt, tokens, guesses, others, stop):
        def goes_on(text, shown, taken, more):
            for token in more:
                if not text.stopped:
                    shown += text.push(token)
                    taken = [*taken, token]
            shown += text.finish()
            said = reference(made(kind), prompt, taken)
            assert shown == (said.partition(stop)[0] if stop else said)
            assert text.stopped == (bool(stop) and stop in said)

        text = Text(Detokenizer(made(kind)), prompt, (stop,) if stop else ())
        shown, taken = "", []
        for token in tokens:
            if not text.stopped:
                shown += text.push(token)
                taken.append(token)
        goes_on(text.fork(), shown, taken, guesses)
        goes_on(text, shown, taken, others)

    check()


def byte_tokens(kind: str, data: bytes) -> list[int]:
    return [made(kind).token_to_id(f"<0x{byte:02X}>") for byte in data]


def test_a_character_in_bytes_half_of_another_and_a_word():
    """tokenizers' own stream raises here: what was a character is none, looking back."""
    word = made("phi-3").token_to_id("▁s")
    tokens = [*byte_tokens("phi-3", b"\xf0\x93\x80\x80\xf0"), word]
    assert write("phi-3", [], tokens)[0] == ["", "", "", "", "", "\ufffd" * 5 + " s", ""]
    assert write("phi-3", [], tokens[:4])[0][-1] == "\U00013000"


def test_a_word_keeps_its_space_behind_a_prompt():
    tokenizer = made("llama-2")
    prompt, sky = tokenizer.encode("I see").ids, tokenizer.encode("sky").ids
    assert "".join(write("llama-2", prompt, sky)[0]) == " sky"
    assert "".join(write("llama-2", [], sky)[0]) == "sky"


def test_the_end_brings_what_was_held_back():
    tokenizer = made("gpt-2")
    half = tokenizer.encode("🦆").ids[:-1]
    *pieces, last = write("gpt-2", [], half)[0]
    assert not any(pieces) and last == "\ufffd"
    real = tokenizer.encode("a\ufffd").ids
    assert "".join(write("gpt-2", [], real)[0]) == "a\ufffd"


def test_a_prompt_s_half_character_is_finished_by_the_text():
    duck = made("gpt-2").encode("🦆!").ids
    assert "".join(write("gpt-2", duck[:2], duck[2:])[0]) == "🦆!"


def test_a_line_end_in_bytes_is_a_stop_at_once():
    """In many vocabularies it is a byte token, and a run of them is open until a word comes."""
    tokens = byte_tokens("llama-2", b"a\n")
    pieces, text = write("llama-2", made("llama-2").encode("I see").ids, tokens, ("\n",))
    assert pieces == ["", "a"] and text.stopped


def test_a_first_space_that_the_decoder_drops_is_no_stop():
    pieces, text = write(
        "phi-3", [], [*byte_tokens("phi-3", b" "), made("phi-3").token_to_id("s")], (" ",)
    )
    assert "".join(pieces) == "s" and not text.stopped


def test_the_beginning_of_a_stop_that_does_not_come_is_text():
    pieces, text = write("gpt-2", [], made("gpt-2").encode("xabxab").ids, ("abc",))
    assert "".join(pieces) == "xabxab" and not text.stopped


def test_a_piece_costs_the_same_wherever_it_stands():
    """Tokens decoded for each piece, not their time; also where the text never settles."""

    class Counting(Detokenizer):
        most = 0

        def decode(self, ids):
            self.most = max(self.most, len(ids))
            return super().decode(ids)

    for kind in KINDS:
        vocab = made(kind).get_vocab()
        for tokens in (
            [token for _ in range(30) for text in PHRASES for token in made(kind).encode(text).ids],
            [vocab.get("ð", 5)] * 300,  # a character that only begins
            [vocab.get("▁", 6)] * 300,
        ):
            counting = Counting(made(kind))
            # A run of byte tokens is decoded once, when it ends.
            plain = [token for token in tokens if counting.byte(counting.word(token) or "") is None]
            text = Text(counting, plain[:100])
            for token in plain:
                text.push(token)
            assert counting.most <= 2 * KEEP + 1, kind


def test_a_decoder_that_says_nothing_costs_no_more_for_a_long_text():
    class Counting(Detokenizer):
        most = 0

        def decode(self, ids):
            self.most = max(self.most, len(ids))
            return ""

    counting = Counting(made("gpt-2"))
    text = Text(counting, [5] * 3000)
    assert not any(text.push(5) for _ in range(3000))
    assert text.finish() == "" and counting.most <= MOST + 1


def test_a_long_run_of_bytes_is_decoded_once():
    class Counting(Detokenizer):
        decoded = 0

        def decode(self, ids):
            self.decoded += len(ids)
            return super().decode(ids)

    counting = Counting(made("gemma"))
    text = Text(counting, [])
    run = byte_tokens("gemma", "አ".encode() * 1000)
    assert not any(map(text.push, run))
    assert counting.decoded == 0
    assert text.push(made("gemma").token_to_id("s")) == "አ" * 1000 + "s"
    assert counting.decoded <= len(run) + 1 + 2 * KEEP


class Failing:
    def decode(self, tokens):
        raise RuntimeError("a decoder of somebody's")

    decode_chain = decode


@pytest.mark.parametrize(
    "decoder",
    [decoders.Strip(" ", 1, 1), decoders.Decoder.custom(Failing())],
    ids=["panics", "raises"],
)
def test_a_decoder_that_fails_ends_nothing(decoder):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, " ": 1, "b": 2}, unk_token="a"))
    tokenizer.decoder = decoder
    with pytest.raises(BaseException, match=r"slice index|somebody's"):
        tokenizer.decode([0, 1])
    text = Text(Detokenizer(tokenizer), [1, 1, 0], ("zz",))
    pieces = [text.push(token) for token in [0, 1, 2, 7, -1, 2**40, *[0] * 40]]
    assert all(isinstance(piece, str) for piece in pieces)
    assert "a" in "".join(pieces) or "\ufffd" in "".join([*pieces, text.finish()])


def test_stop_strings_as_callers_give_them():
    assert stop_strings("abc") == ("abc",)
    assert stop_strings(["a", "b"]) == ("a", "b") and stop_strings(()) == ()
    for wrong in ("", ["a", ""], [b"a"], [None]):
        with pytest.raises(ValueError, match="a stop string must be a text of at least one"):
            stop_strings(wrong)
