"""From the bytes of a conversation's drafts to tokens, with the model of ids that they need."""

from __future__ import annotations

from collections.abc import Sequence

from draftlink.coding.ids import IdModel
from draftlink.coding.slices import Slices
from draftlink.distribution.sparse import Drafted
from draftlink.protocol.frames import Draft
from draftlink.schemes import Scheme
from draftlink.schemes.base import IdScheme


class Decoder:
    """Decodes drafts behind a history.

    Where a scheme codes ids against the history, a model of ids has seen a part of it; what has
    come since is added when the next draft is decoded. It outlives a generation.
    """

    def __init__(self, vocab_size: int) -> None:
        self._ids = IdModel(vocab_size)
        self._agreed = 0  # so many of the model's ids are the history's, if it has so many

    def rollback(self, length: int) -> None:
        """Of the history that was decoded for, the first ``length`` tokens are as they were."""
        self._agreed = min(self._agreed, length)

    def decoding(
        self,
        scheme: Scheme,
        drafts: Sequence[Draft],
        history: Sequence[int],
        beside: Sequence[int] = (),
    ) -> Slices[list[Drafted]]:
        """The tokens of drafts that follow one another behind ``history``, in slices of work.

        ``beside``: of a single draft's tokens the candidates, as ``IdScheme.decoding`` has them.

        Where it is closed before its end, or raises, nothing has changed but the model of ids,
        which then holds a part of the history. Raises ValueError for bytes that are no drafts.
        """
        drafted: list[Drafted] = []
        if not scheme.codes_ids:
            for draft in drafts:
                drafted += yield from scheme.decoding(draft.payload, draft.length, self._ids)
            return drafted
        ids, length, first = self._ids, len(history), drafts[0].first
        yield from ids.shrinking(min(ids.length, length, self._agreed))
        self._agreed = length
        try:
            yield from ids.extending(history[ids.length :])
            unknown = [] if first is None else [first]
            for draft in drafts:
                ids.extend(unknown)
                if beside:
                    assert isinstance(scheme, IdScheme)  # whose candidates no other has
                    reading = scheme.decoding(draft.payload, draft.length, ids, beside)
                else:
                    reading = scheme.decoding(draft.payload, draft.length, ids)
                found = yield from reading
                unknown = [d.token for d in found]
                drafted += found
        finally:  # of what was drafted, not all may be accepted
            ids.rollback(min(ids.length, length))
        return drafted
