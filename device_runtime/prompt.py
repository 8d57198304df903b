"""The ids of a prompt that is given as text, where a conversation has been going on.

What a model samples is often not what a tokenizer makes of its text: " ca" and "t", for " cat".
Were a conversation's text encoded again for each turn, its ids would part from those in both KV
caches at the first such place, and all behind it would be fed again. So the ids of what was written
are kept as far as the prompt says the same, and only the rest is encoded. Either way the target
sees ids that decode to the prompt's text, which is checked; where it cannot be had with the old
ids, all of the prompt is encoded.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from tokenizers import Tokenizer

from device_runtime import facts
from device_runtime.text import Detokenizer
from draftlink.protocol.frames import Welcome
from draftlink.protocol.history import common

MOST_BACK = 16  # tokens before an edit among which a place is looked for where both encodings part


def prompt_ids(
    text: str,
    history: Sequence[int],
    tokenizer: Tokenizer,
    detokenizer: Detokenizer,
    welcome: Welcome,
) -> list[int]:
    """The ids of a whole prompt, those of the conversation so far as long as it says the same.

    Raises ValueError for what is no text.
    """
    facts.check_text(text)
    begin = list(welcome.bos_ids)
    said = detokenizer.decode(begin, special=True)
    if said and text.startswith(said):
        begin = []  # a rendered chat template says so itself
    written = list(history[len(begin) :])
    fits = bool(written) and list(history[: len(begin)]) == begin
    continued = [] if not fits else _continued(text, written, tokenizer, detokenizer)
    for ids in continued:
        if detokenizer.decode(ids, special=True) == text:
            return begin + ids
    afresh = facts.prompt_ids(text, tokenizer, welcome, first=True)
    if not fits or afresh[: len(begin)] != begin:
        return afresh
    # A tokenizer may change the text, to lower case for example: then both have to say the same.
    wanted = detokenizer.decode(afresh[len(begin) :], special=True)
    for ids in continued:
        if detokenizer.decode(ids, special=True) == wanted:
            return begin + ids
    edited = _edited(written, afresh[len(begin) :], wanted, detokenizer)
    return afresh if edited is None else begin + edited


def _continued(
    text: str, written: list[int], tokenizer: Tokenizer, detokenizer: Detokenizer
) -> list[list[int]]:
    """All that was written, and the ids of what the text says behind it, if it goes on so.

    There are several ways, since some tokenizers put a space before whatever they encode: behind a
    line's end, which is left out again, none is put. Special tokens at the end, such as an EOS, are
    dropped where the text does not name them.
    """
    kept = len(written)
    said = detokenizer.decode(written, special=True)
    while not text.startswith(said) and kept and detokenizer.word(written[kept - 1]) is None:
        kept -= 1
        said = detokenizer.decode(written[:kept], special=True)
    if not kept or not text.startswith(said):
        return []
    found = []
    for mark in ("", "\n"):
        before: list[int] = tokenizer.encode(mark, add_special_tokens=False).ids
        ids: list[int] = tokenizer.encode(mark + text[len(said) :], add_special_tokens=False).ids
        if ids[: len(before)] == before:
            found.append(written[:kept] + ids[len(before) :])
    return found


def _edited(
    written: list[int], afresh: list[int], wanted: str, detokenizer: Detokenizer
) -> list[int] | None:
    """As much as possible of what was written, and the new encoding behind it.

    The two are joined where they have said the same, so each token of the new encoding stands in
    the text that it was made in. ``wanted``: what both have to say in the end.
    """

    def says(ids: Sequence[int]) -> str:
        return detokenizer.decode(ids, special=True)

    same = common(says(written), wanted)
    if not same:
        return None
    most = _tokens(written, same, says)
    for kept in range(most, max(0, most - MOST_BACK), -1):
        said = says(written[:kept])
        if not wanted.startswith(said):
            continue
        place = _tokens(afresh, len(said), says)
        joined = written[:kept] + afresh[place:]
        if says(afresh[:place]) == said and says(joined) == wanted:
            return joined
    return None


def _tokens(ids: list[int], characters: int, says: Callable[[Sequence[int]], str]) -> int:
    """How many tokens say no more than so many characters."""
    return bisect_right(range(1, len(ids) + 1), characters, key=lambda n: len(says(ids[:n])))
