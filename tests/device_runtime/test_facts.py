"""How a text begins, and what is told of suggestions that are not used."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from device_runtime import facts
from draftlink.cli import common
from draftlink.distribution.sampling import Sampling
from draftlink.protocol.frames import Welcome

WELCOME = Welcome(5, "x", 100, 512, ["topk"], "m", "float32")


def tokenizer(template: str | None = None) -> Tokenizer:
    made = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<s>": 7, "</s>": 8}, unk_token="a"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    if template is not None:
        made.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[("<s>", 7), ("</s>", 8)]
        )
    return made


@pytest.mark.parametrize("template", [None, "<s> $A", "$A </s>", "<s> $A </s>", "<s> <s> $A"])
@pytest.mark.parametrize(
    ("bos", "text", "ids"),
    [
        ((), "a b", [0, 1]),
        ((7,), "a b", [7, 0, 1]),
        ((7,), "<s> a b", [7, 0, 1]),  # a rendered chat template
        ((7,), "<s><s> a b", [7, 7, 0, 1]),  # what is written stands
        ((7, 8), "a", [7, 8, 0]),
        ((7, 8), "<s></s> a", [7, 8, 0]),
        ((7, 8), "<s> a", [7, 8, 7, 0]),
        ((7,), "</s> a", [7, 8, 0]),
    ],
)
def test_a_text_begins_as_the_targets_do_and_once_so(template, bos, text, ids):
    """Whatever the draft's own tokenizer would put before or behind it."""
    welcome = Welcome(5, "x", 100, 512, ["topk"], "m", "float32", bos_ids=list(bos))
    assert facts.prompt_ids(text, tokenizer(template), welcome, first=True) == ids
    begun = ids[len(bos) :] if not text.startswith("<") else None
    if begun is not None:  # a later turn does not begin a text
        assert facts.prompt_ids(text, tokenizer(template), welcome, first=False) == begun


def saying(sampling: Sampling | None, *unapplied: str) -> Welcome:
    return Welcome(
        5, "x", 100, 512, ["topk"], "m", "float32", sampling=sampling, unapplied=list(unapplied)
    )


@pytest.mark.parametrize(
    ("welcome", "used", "line"),
    [
        (saying(None), Sampling(0.8), None),
        (saying(Sampling(0.8)), Sampling(0.8), None),
        (
            saying(Sampling(0.6, top_k=20, top_p=0.95)),
            Sampling(0.8, top_k=20),
            "the target suggests temperature 0.6, top-p 0.95; --sampling target uses it",
        ),
        (
            saying(Sampling(0.6, repetition_penalty=1.05), "num_beams=4"),
            Sampling(0.6),
            "the target suggests repetition penalty 1.05, num_beams=4 (which Draftlink cannot"
            " apply)",
        ),
        (
            saying(None, "bad_words_ids=\x07"),
            Sampling(),
            r"the target suggests bad_words_ids=\x07 (which Draftlink cannot apply)",
        ),
    ],
)
def test_one_line_says_what_of_a_suggestion_is_not_used(welcome, used, line, capsys):
    assert facts.differing(welcome, used) == line
    stated = {"temperature": used.temperature, "top_k": used.top_k, "min_p": None}
    assert common.sampling(welcome, None, stated, Sampling()) == used
    told = capsys.readouterr()
    assert told.err == ("" if line is None else line + "\n") and not told.out


def test_what_is_stated_goes_before_what_is_suggested(capsys):
    welcome = saying(Sampling(0.6, top_k=20, top_p=0.95))
    stated = {"temperature": 0.0, "top_k": None, "top_p": 1.0}
    assert common.sampling(welcome, "target", stated, Sampling(0.8)) == Sampling(0.0, top_k=20)
    assert not capsys.readouterr().err
    with pytest.raises(ValueError, match="suggest no sampling"):
        common.sampling(saying(None), "target", stated, Sampling(0.8))
