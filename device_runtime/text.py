"""Text out of tokens, in pieces that never have to be taken back. No I/O.

The text is a function of prompt and tokens: what ``decode(prompt + tokens)`` says beyond the part
that it has in common with ``decode(prompt)``, special tokens left out. So a SentencePiece text
keeps the space between prompt and text, and a character that the prompt begins is finished.

A piece is what no later token can change, and what is not the beginning of a stop string. Behind it
is held back:

- a U+FFFD at the end, which may be the first bytes of a character. It is one, however many bytes
  are there: decoders write one for the longest beginning of a character (Unicode, section 3.9);
- a run of byte tokens (``<0xF0>``), where the decoder puts bytes together: such a run is text or
  not as a whole, so its last byte decides what becomes of the first;
- the longest end that may begin a stop string.

Only the last few tokens are decoded for each piece, so that one costs the same wherever it stands.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer

REPLACEMENT = "\ufffd"
# Tokens that are decoded before what is new. No character is longer than 4, and what decoders do to
# the first token, or to the spaces before the first word, falls on them.
KEEP = 8
MOST = 256  # likewise, where those say nothing by themselves, as no decoder does that is known
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class Detokenizer:
    """The way back from ids to text. Nothing raises, whatever the tokenizer's decoder does."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder().items()
        self._special = frozenset(index for index, token in added if token.special)
        # What a decoder does is seen by what comes out; one of the caller's own has no other sign.
        probe = "<0x41>"
        try:
            decoder = tokenizer.decoder
            self._joins_bytes = decoder is not None and decoder.decode([probe]) != probe
        except BaseException as error:
            _of_the_decoder(error)
            self._joins_bytes = False

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of ``ids``; a U+FFFD for each where there is none.

        With ``special`` tokens as they are written, else without them.
        """
        try:
            text: str = self._tokenizer.decode(ids, skip_special_tokens=not special)
        except BaseException as error:
            _of_the_decoder(error)
            text = REPLACEMENT * len(ids)
        return text

    def word(self, token: int) -> str | None:
        """A token as the decoder sees it; None for a special token and for an id without one."""
        if token in self._special:
            return None
        try:
            word: str | None = self._tokenizer.id_to_token(token)
        except OverflowError:
            word = None
        return word

    def byte(self, word: str) -> int | None:
        """The byte that a word stands for, where the decoder puts bytes together."""
        found = _BYTE.fullmatch(word) if self._joins_bytes else None
        return None if found is None else int(found[1], 16)


def _of_the_decoder(error: BaseException) -> None:
    """Raise an error again that is no decoder's; one in Rust has no public name, nor a base."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


class Text:
    """The text behind a prompt, token by token.

    ``stopped``: a stop string has come; the text ends before it.
    """

    def __init__(
        self, detokenizer: Detokenizer, prompt: Sequence[int], stops: Sequence[str] = ()
    ) -> None:
        """``prompt``: all ids before the text; only the last are read. ``stops``: none is empty."""
        self.stopped = False
        self._detokenizer = detokenizer
        self._stops = stops
        self._ended = False
        self._held = ""  # settled, but it may begin a stop string
        # The last tokens, how many characters of their text are settled, and the bytes of the run
        # of byte tokens at their end.
        self._window, self._run = self._context(prompt)
        last = self._window[: len(self._window) - len(self._run)]
        self._settled = self._certain(detokenizer.decode(last))
        # What the prompt says behind that: a token may change it, and if none does it is no text.
        self._prompted = detokenizer.decode(self._window)[self._settled :]

    def push(self, token: int) -> str:
        """The piece of text that is certain with ``token``; empty once the text has ended."""
        word = None if self._ended else self._detokenizer.word(token)
        if word is None:
            return ""
        self._window.append(token)
        byte = self._detokenizer.byte(word)
        if byte is not None:
            self._run.append(byte)
            # If the text ends here, the run does. The decoder is asked where the bytes say so.
            ends = self._stops and self._found(self._run_text()) and self._found(self._rest())
            return self.finish() if ends else ""
        self._run.clear()
        self._held += self._settle()
        if self._found(""):
            return self.finish()
        keep = len(self._held) - self._beginning()
        piece, self._held = self._held[:keep], self._held[keep:]
        return piece

    def finish(self) -> str:
        """The text ends here: what was held back, up to the first stop string in it."""
        if self._ended:
            return ""
        self._ended = True
        rest = self._held + self._rest()
        self._held = ""
        ends = [place for place in map(rest.find, self._stops) if place >= 0]
        self.stopped = bool(ends)
        return rest[: min(ends)] if ends else rest

    def fork(self) -> Text:
        """The same text, to go on with apart from this one."""
        other = copy.copy(self)
        other._window = self._window.copy()
        other._run = self._run.copy()
        return other

    def _context(self, prompt: Sequence[int]) -> tuple[list[int], bytearray]:
        """The last tokens of a prompt, as many as it takes, and the run of bytes at its end."""
        window: list[int] = []  # backwards, as is the run
        run = bytearray()
        for token in reversed(prompt):
            word = self._detokenizer.word(token)
            if word is None:
                continue
            byte = self._detokenizer.byte(word) if len(run) == len(window) else None
            window.append(token)
            if byte is not None:
                run.append(byte)
                continue
            last = len(window) - len(run)
            if last == MOST:
                break
            # Something of it has to be settled: then the decoder's rule for the first is used up.
            if last % KEEP == 0:
                says = self._detokenizer.decode(window[: -last - 1 : -1])
                if self._certain(says):
                    break
        window.reverse()
        run.reverse()
        return window, run

    def _settle(self) -> str:
        """What is certain now that was not."""
        text = self._detokenizer.decode(self._window)
        certain = self._certain(text)
        new = text[self._settled : certain]
        own = self._own(new)
        self._prompted = self._prompted[len(new) :] if not own else ""
        self._settled = max(self._settled, certain)
        if len(self._window) >= 2 * KEEP:  # go on with fewer, if they say the same
            fewer = self._window[-KEEP:]
            says, rest = self._detokenizer.decode(fewer), text[self._settled :]
            same = says.endswith(rest) and len(says) > len(rest)
            if same or len(self._window) > MOST:
                self._window, self._settled = fewer, max(0, len(says) - len(rest))
        return own

    @staticmethod
    def _certain(text: str) -> int:
        """Characters of a text that further tokens leave as they are, unless it ends in a run."""
        return len(text) - text.endswith(REPLACEMENT)

    def _own(self, text: str) -> str:
        """Of what follows the settled part, what the prompt alone does not say."""
        same = 0
        for one, other in zip(self._prompted, text, strict=False):
            if one != other:
                break
            same += 1
        return text[same:]

    def _rest(self) -> str:
        """What the text would have behind what is settled, if it ended here."""
        return self._own(self._detokenizer.decode(self._window)[self._settled :])

    def _run_text(self) -> str:
        """What the run of bytes says as it is; nothing where it is no text."""
        try:
            return self._own(self._run.decode())
        except UnicodeDecodeError:
            return ""

    def _found(self, text: str) -> bool:
        """Whether a stop string is in what is held back and ``text``."""
        return any(stop in self._held + text for stop in self._stops)

    def _beginning(self) -> int:
        """Characters at the end of what is held that may begin a stop string."""
        longest = 0
        for stop in self._stops:
            for count in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:count]):
                    longest = count
                    break
        return longest


def stop_strings(stop: str | Iterable[str]) -> tuple[str, ...]:
    """Stop strings as a caller gives them; a string alone is one. Raises ValueError."""
    if not isinstance(stop, Iterable):
        raise ValueError(f"stop must be a text or several, not {stop!r}")
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for one in stops:
        if not isinstance(one, str) or not one:
            raise ValueError(f"a stop string must be a text of at least one character, not {one!r}")
    return stops
