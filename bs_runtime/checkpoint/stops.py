"""The tokens that end a text: those that files name, and the one that ends a turn of a chat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

SAID: Final = "draftlink"  # by the assistant: what the template puts behind it ends a turn


def stop_ids(
    stated: Iterable[int | list[int] | None],
    template: str | None,
    tokenizer: Tokenizer,
    tokens: dict[str, str],
) -> list[int]:
    """Every id once, in the order in which files state them; then the template's own.

    ``stated``: EOS ids as configurations write them. ``tokens``: what a template may be filled
    with, ``bos_token`` and ``eos_token``.
    """
    found: list[int] = []
    for ids in stated:
        found += [] if ids is None else [ids] if isinstance(ids, int) else ids
    end = None if template is None else turn_end(template, tokenizer, tokens)
    return list(dict.fromkeys(found if end is None else [*found, end]))


def turn_end(template: str, tokenizer: Tokenizer, tokens: dict[str, str]) -> int | None:
    """The special token that a template puts behind what the assistant says, if there is one."""
    turns = [("user", "a"), ("assistant", SAID), ("user", "b")]
    messages = [{"role": role, "content": content} for role, content in turns]
    text = rendered(messages, template, tokenizer, tokens)
    if text is None:
        return None
    behind = text.rpartition(SAID)[2].lstrip()
    ids: list[int] = tokenizer.encode(behind, add_special_tokens=False).ids
    added = tokenizer.get_added_tokens_decoder()
    return ids[0] if ids and ids[0] in added and added[ids[0]].special else None


def rendered(
    messages: list[dict[str, str]],
    template: str,
    tokenizer: Tokenizer,
    tokens: dict[str, str],
    *,
    answers: bool = False,
) -> str | None:
    """A chat as its template writes it; with ``answers`` up to where the assistant's turn begins.

    None where the template makes nothing of it. It runs in transformers' sandbox, as it does for
    everybody who uses the model.
    """
    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)
    try:
        text: Any = words.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=answers
        )
    except Exception:  # whatever a template makes of these turns
        return None
    return str(text)
