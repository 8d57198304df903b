"""A token alone as text and bytes, for those who ask what else could have stood in its place.

Unlike a text's pieces (``text.py``) these are single tokens, which may hold a part of a character:
their bytes joined are the text's.
"""

from __future__ import annotations

from tokenizers import Tokenizer

from device_runtime.text import Detokenizer

_SPACE = "\u0120"  # how byte-level vocabularies write a space


class Spelling:
    """The tokens of a vocabulary."""

    def __init__(self, tokenizer: Tokenizer, detokenizer: Detokenizer) -> None:
        self._tokenizer, self._detokenizer = tokenizer, detokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._added: dict[int, str] = {token: each.content for token, each in added.items()}
        # What a decoder does is seen by what comes out, as the detokenizer does.
        by_byte = tokenizer.decoder is not None and tokenizer.decoder.decode([_SPACE]) == " "
        self._letters = _letters() if by_byte else {}
        self._known: dict[int, bytes] = {}

    def octets(self, token: int) -> bytes:
        """What a token adds to a text; nothing for an id that the tokenizer lacks."""
        if token not in self._known:
            self._known[token] = self._bytes(token)
        return self._known[token]

    def text(self, token: int) -> str:
        """The same as text; bytes that are none as OpenAI writes them: ``\\xf0\\x9f``."""
        return self.octets(token).decode("utf-8", "backslashreplace")

    def _bytes(self, token: int) -> bytes:
        word = self._detokenizer.word(token)
        byte = None if word is None else self._detokenizer.byte(word)
        if byte is not None:
            return bytes((byte,))
        if word is None or token in self._added:  # a special token, or an id without any
            return self._added.get(token, "").encode()
        if self._letters.keys() >= set(word):
            return bytes(self._letters[letter] for letter in word)
        # Behind itself, since decoders take the space off the first of all.
        alone = self._detokenizer.decode([token])
        both = self._detokenizer.decode([token, token])
        return (both[len(alone) :] if both.startswith(alone) else alone).encode()


def _letters() -> dict[str, int]:
    """Of each letter of a byte-level vocabulary its byte: those of Latin-1 that can be seen stand
    for themselves, the others for the letters behind it (GPT-2, ``bytes_to_unicode``)."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in seen]
    return {chr(byte): byte for byte in seen} | {chr(256 + i): b for i, b in enumerate(others)}
