"""What the drafting loop asks of the model: one call for what it lacks, then one for each token."""

from __future__ import annotations

import numpy as np
import pytest

from device_runtime.drafting.drafter import Drafter
from draftlink.distribution import noise
from draftlink.distribution.sampling import Sampling
from draftlink.protocol import frames
from draftlink.schemes.coupled import Coupled
from draftlink.schemes.dense import Dense
from draftlink.schemes.split import Split
from draftlink.schemes.topk import TopK
from tests.fake_models import FakeModel, random_logits

SIZE = 40


def drafter(model, scheme=None, temperature=1.0):
    start = frames.Start(
        generation=1,
        base=0,
        ids=[1],
        sampling=Sampling(temperature),
        scheme=scheme or TopK(8, 64),
        mode="draft",
        max_tokens=50,
        eos_ids=[],
        seed=1,
    )
    return Drafter(model, start, SIZE, noise.key_from_seed(1, "device"))


class Counted(FakeModel):
    """Notes how many tokens each call feeds."""

    def forward(self, ids, **kw):
        self.calls = [*getattr(self, "calls", []), len(ids)]
        return super().forward(ids, **kw)


def test_catching_up_is_one_call():
    model = Counted(random_logits(0, SIZE), rows=False)
    drafts = drafter(model)
    history = [3, 4, 5, 6]
    block = drafts.propose(list(history), 3, 4)
    assert model.calls == [4, 1, 1]
    # All accepted, and a bonus token: the last drafted one has still to be fed, with it.
    history += [*(one.drafted.token for one in block), 9]
    drafts.rollback(len(history) - 1)
    model.calls = []
    drafts.propose(list(history), 2, 8)
    assert model.calls == [2, 1]
    # The second is rejected, and corrected.
    history.append(7)
    drafts.rollback(len(history) - 1)
    model.calls = []
    drafts.propose(list(history), 1, 9)
    assert model.calls == [1]
    assert model.cache == history


@pytest.mark.parametrize("scheme", [TopK(8, 64), TopK(8, coding="fp16"), Split(8, 64), Dense(),
                                    Coupled()])  # fmt: skip
def test_logits_are_read_in_place_and_left_alone(scheme):
    """They are the model's own buffer: a write into it would be read as logits later."""
    table = random_logits(1, SIZE).astype(np.float32)
    table.setflags(write=False)
    for temperature in (0.0, 0.7):
        model = FakeModel(table, rows=False)
        assert len(drafter(model, scheme, temperature).propose([3, 4], 4, 2)) == 4


def test_a_row_is_not_the_next_rows_buffer():
    model = FakeModel(random_logits(2, SIZE), rows=False)
    (one,) = drafter(model, Dense()).propose([3], 1, 1)
    four = drafter(FakeModel(model.table, rows=False), Dense()).propose([3], 4, 1)
    assert np.array_equal(one.drafted.row.counts, four[0].drafted.row.counts)
    assert not np.array_equal(four[0].drafted.row.counts, four[1].drafted.row.counts)
