import numpy as np

from draftlink.bitcode import *
from draftlink.sparse import Drafted, SparseRow

MAX_TOTAL = 1 << 24


def encode(drafted, k, total, vocab_size):
    out = BitWriter()
    for token in drafted:
        row = token.row
        out.write(len(row.ids) - 1, width_for(k))
        out.write(row.ids, width_for(vocab_size))
        out.write(row.counts - 1, width_for(total))
        out.write(token.index, width_for(len(row.ids)))
    return out.bytes(), out.bits


def decode(payload, length, k, total, vocab_size):
    source = BitReader(payload)
    drafted = []
    for _ in range(length):
        count = int(source.read(1, width_for(k))[0]) + 1
        if count > k:
            raise ValueError("k")
        ids = source.read(count, width_for(vocab_size))
        if ids[-1] >= vocab_size or (np.diff(ids) <= 0).any():
            raise ValueError("ids")
        counts = source.read(count, width_for(total)) + 1
        if int(counts.sum()) != total:
            raise ValueError("sum")
        index = int(source.read(1, width_for(count))[0])
        if index >= count:
            raise ValueError("index")
        drafted.append(Drafted.of(SparseRow(ids, counts, total), index))
    source.finish()
    return drafted
