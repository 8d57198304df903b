from draftlink.bitcode import *


class IdModel:
    def __init__(self, vocab_size):
        self.vocab_size = vocab_size
        self.history = []

    @property
    def length(self):
        return len(self.history)

    def extend(self, ids):
        self.history += ids

    def rollback(self, n):
        del self.history[n:]


def encode(model, ids, counts=None, total=0):
    out = BitWriter()
    out.write(ids, width_for(model.vocab_size))
    if total:
        out.write([c - 1 for c in counts], width_for(total))
    return out.bytes(), out.bits


def decode(model, payload, length, total=0):
    s = BitReader(payload)
    ids = s.read(length, width_for(model.vocab_size))
    c = []
    if (ids >= model.vocab_size).any():
        raise ValueError("id")
    if total:
        c = s.read(length, width_for(total)) + 1
        if (c > total).any():
            raise ValueError("count")
    s.finish()
    return [int(i) for i in ids], [int(i) for i in c]
