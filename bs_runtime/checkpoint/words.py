"""How a checkpoint's texts become ids, where they end, and how a chat is written.

The tokenizer is what ``tokenizer.json`` says, read by the library whose file it is. transformers 5
builds many families' tokenizers anew from the vocabulary alone, and in other ways than 4.57 did.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from tokenizers import AddedToken, Tokenizer, processors
from transformers import AutoTokenizer
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

from bs_runtime.checkpoint.errors import CheckpointError
from bs_runtime.checkpoint.gguf_file import GgufFile
from bs_runtime.checkpoint.gguf_tokenizer import read_tokenizer, special_id
from bs_runtime.checkpoint.stops import rendered, stop_ids

FILE: Final = "tokenizer.json"
SETTINGS: Final = "tokenizer_config.json"
TEMPLATE: Final = "chat_template.jinja"
NAMED: Final = ("bos_token", "eos_token", "unk_token", "pad_token")
FLAGS: Final = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class Words:
    """A tokenizer, and what else files say of texts."""

    tokenizer: Tokenizer
    template: str | None = None  # of a chat, in Jinja
    tokens: dict[str, str] = field(default_factory=dict)  # such as bos_token, that it may name

    def id_of(self, name: str) -> int | None:
        """The id of a token that has a name, such as ``bos_token``; None where there is none."""
        token = self.tokens.get(name)
        found: int | None = None if token is None else self.tokenizer.token_to_id(token)
        return found

    def asked(self, question: str) -> str | None:
        """A user's question as the chat template writes it, up to where the answer begins.

        None where there is no template, or it makes nothing of that.
        """
        if self.template is None:
            return None
        turn = [{"role": "user", "content": question}]
        return rendered(turn, self.template, self.tokenizer, self.tokens, answers=True)

    def end_texts(self, generation: Any) -> None:
        """Have a GenerationConfig name every token that ends a text, not only its own."""
        stated = (generation.eos_token_id, self.id_of("eos_token"))
        ends = stop_ids(stated, self.template, self.tokenizer, self.tokens)
        generation.eos_token_id = ends or None


def read_gguf_words(file: GgufFile) -> Words:
    """Those of a GGUF file. Raises CheckpointError for a tokenizer that is not known."""
    tokenizer = read_tokenizer(file)
    ids = {name: special_id(file, name) for name in ("bos", "eos")}
    tokens = {f"{name}_token": tokenizer.id_to_token(i) for name, i in ids.items() if i is not None}
    return Words(tokenizer, file.text("tokenizer.chat_template"), tokens)


def read_words(source: str, *, local_files_only: bool = False) -> Words:
    """Those of a folder or hub id.

    Raises CheckpointError for a tokenizer that is not there, that no device reads, that needs code
    of its own, or whose files contradict each other; and what transformers raises where it has to
    convert one that brings code.
    """
    places = {name: _file(source, name, local_files_only) for name in (FILE, SETTINGS, TEMPLATE)}
    place, settings = places[FILE], places[SETTINGS]
    try:
        said = {} if settings is None else dict(json.loads(settings.read_text(encoding="utf-8")))
        _check_code(source, said)
        read = None if place is None else _read(source, place, said)
        template = places[TEMPLATE]
        written = None if template is None else template.read_text(encoding="utf-8")
    except (
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
    ) as error:  # what is no JSON of this kind
        raise CheckpointError(f"{source} has a tokenizer that cannot be read: {error}") from None
    tokenizer = read or _converted(source, said, local_files_only)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    named = {name: _content(said.get(name)) for name in NAMED}
    tokens = {name: token for name, token in named.items() if token is not None}
    return Words(tokenizer, written or _template(said.get("chat_template")), tokens)


def _file(source: str, name: str, local_files_only: bool) -> Path | None:
    """A file of a folder, or of the hub's; None where there is none."""
    if Path(source).is_dir():
        path = Path(source, name)
        return path if path.is_file() else None
    try:
        return Path(hf_hub_download(source, name, local_files_only=local_files_only))
    except (EntryNotFoundError, LocalEntryNotFoundError):
        return None


def _check_code(source: str, said: dict[str, Any]) -> None:
    """Refuse a tokenizer of a class that only its own code knows: it may do more than its file."""
    own = "AutoTokenizer" in (said.get("auto_map") or {})
    if own and tokenizer_class_from_name(str(said.get("tokenizer_class"))) is None:
        raise CheckpointError(
            f"{source} has a tokenizer that needs code of its own, which is never run; use a model"
            " that transformers itself knows"
        )


def _converted(source: str, said: dict[str, Any], local_files_only: bool) -> Tokenizer:
    """Of files of other kinds, as transformers converts them."""
    try:
        known: Any = AutoTokenizer.from_pretrained(
            source, trust_remote_code=False, local_files_only=local_files_only
        )
    except Exception as error:  # of what is there: each converter has its own
        line = (str(error).strip() or repr(error)).splitlines()[0]
        if "trust_remote_code" in line:
            raise
        tells = isinstance(error, ImportError | OSError | ValueError)
        why = f" ({line.rstrip('.')})" if tells else ""
        raise CheckpointError(
            f"{source} has no {FILE}, and nothing that transformers makes one of{why}; put it"
            " there, as save_pretrained of its tokenizer writes it"
        ) from None
    if not getattr(known, "is_fast", False):
        raise CheckpointError(
            f"{source} has no fast tokenizer ({FILE}), the one form that the device reads"
        )
    for name in NAMED:
        said.setdefault(name, getattr(known, name, None))
    return Tokenizer.from_str(known.backend_tokenizer.to_str())


def _template(said: Any) -> str | None:
    """A chat template as settings write it: a text, or a list of which one is the default."""
    if isinstance(said, list):
        said = next((each["template"] for each in said if each.get("name") == "default"), None)
    return said if isinstance(said, str) else None


def _read(source: str, place: Path, said: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a ``tokenizer.json``, and what the settings beside it add."""
    try:
        tokenizer = Tokenizer.from_file(str(place))
    except Exception as error:  # tokenizers has no exceptions of its own
        raise CheckpointError(f"{source} has a {FILE} that cannot be read: {error}") from None
    added = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for index, token in _stated(said, added):
        if index is not None or tokenizer.token_to_id(token.content) is not None:
            tokenizer.add_tokens([token])
        if index not in (None, found := tokenizer.token_to_id(token.content)):
            raise CheckpointError(
                f"{source}: {SETTINGS} has the token {token.content} at {index}, and {FILE} at"
                f" {found}; save both again with one tokenizer"
            )
    _frame(tokenizer, said)
    return tokenizer


def _stated(said: dict[str, Any], added: set[str]) -> Iterator[tuple[int | None, AddedToken]]:
    """Tokens that the settings name, with their ids where those are said, in the order of ids.

    ``added``: those that ``tokenizer.json`` has as such.
    """
    listed = said.get("added_tokens_decoder") or {}
    for index in sorted(map(int, listed)):
        entry = listed[str(index)]
        yield index, AddedToken(entry["content"], **{n: bool(entry.get(n)) for n in FLAGS})
    added = added | {entry["content"] for entry in listed.values()}
    for name in NAMED:
        content = _content(said.get(name))
        if content is not None and content not in added:
            yield None, AddedToken(content, special=True, normalized=False)


def _content(token: Any) -> str | None:
    """A token as settings write it: its text, or an object with that text."""
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) else None


def _frame(tokenizer: Tokenizer, said: dict[str, Any]) -> None:
    """Put a BOS before texts, and an EOS behind, where the settings say otherwise than the file."""
    whole, plain = (tokenizer.encode("a", add_special_tokens=flag).ids for flag in (True, False))
    wanted = {}
    for name in ("bos", "eos"):
        flag, token = said.get(f"add_{name}_token"), _content(said.get(f"{name}_token"))
        index = None if token is None else tokenizer.token_to_id(token)
        is_there = index is not None and index in (whole[:1] if name == "bos" else whole[-1:])
        wanted[name] = (token, index, is_there, is_there if flag is None else bool(flag))
    others = len(whole) - len(plain) - sum(there for _, _, there, _ in wanted.values())
    if others or all(there == want or index is None for _, index, there, want in wanted.values()):
        return
    put = {
        name: token
        for name, (token, index, _, want) in wanted.items()
        if want and index is not None
    }
    before, behind = ([put[name]] if name in put else [] for name in ("bos", "eos"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *behind],
        pair=[*before, "$A", *behind, *before, "$B:1", *behind],
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in put.values()],
    )
