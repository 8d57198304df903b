package draftlink.coding

import draftlink.distribution.Drafted
import draftlink.distribution.Rounding.Half
import draftlink.distribution.SparseRow
import draftlink.wire.demand
import okio.Buffer
import okio.ByteString

/** FP16 rows as plain fields of fixed width (docs/protocol.md, 10.1); `k` = V is the form of `dense`. */
internal class Fp16Rows(private val k: Int, private val vocabSize: Int) {
    fun encode(drafted: List<Drafted>): Payload {
        val out = BitWriter()
        for (token in drafted) {
            val row = requireNotNull(token.row) { "a token without its row" }
            if (k < vocabSize) {
                out.write(row.ids.size - 1, width(k))
                for (id in row.ids) out.write(id, width(vocabSize))
                for (count in row.counts) out.write(pattern(count), 16)
                out.write(row.ids.binarySearch(token.token), width(row.ids.size))
            } else {
                val values = IntArray(vocabSize)
                row.ids.forEachIndexed { i, id -> values[id] = pattern(row.counts[i]) }
                for (value in values) out.write(value, 16)
                out.write(token.token, width(vocabSize))
            }
        }
        return Payload(out.bytes(), out.bits)
    }

    /** The [length] tokens of a payload. Throws MalformedException for anything but true rows. */
    fun decode(payload: ByteString, length: Int): List<Drafted> {
        val source = BitReader(payload)
        val drafted = List(length) { if (k < vocabSize) readFew(source) else readAll(source) }
        source.finish()
        return drafted
    }

    private fun readFew(source: BitReader): Drafted {
        val size = source.read(width(k)) + 1
        demand(size <= k) { "a row of $size entries, where k is $k" }
        val ids = IntArray(size) { source.read(width(vocabSize)) }
        demand(ids.last() < vocabSize && (1 until size).all { ids[it - 1] < ids[it] }) {
            "a row's ids are out of range, repeated or out of order"
        }
        val counts = LongArray(size) { units(source) }
        demand(counts.all { it > 0 }) { "a row has an entry of probability 0" }
        val index = source.read(width(size))
        demand(index < size) { "the drawn entry is $index, where the row has $size" }
        return Drafted.of(SparseRow(ids, counts, counts.sum()), index)
    }

    private fun readAll(source: BitReader): Drafted {
        source.has(16L * vocabSize)
        val counts = LongArray(vocabSize) { units(source) }
        val token = source.read(width(vocabSize))
        demand(token < vocabSize && counts[token] > 0) { "the drawn token has no probability" }
        val ids = counts.indices.filter { counts[it] > 0 }.toIntArray()
        val kept = LongArray(ids.size) { counts[ids[it]] }
        return Drafted.of(SparseRow(ids, kept, kept.sum()), ids.binarySearch(token))
    }

    private fun units(source: BitReader): Long {
        val bits = source.read(16)
        demand(bits <= Half.ONE) { "a row's FP16 values are not probabilities" } // NaN and signs are above it
        return Half.units(bits)
    }

    private fun pattern(count: Long) = Half.bits(Math.scalb(count.toDouble(), -24))

    /** The bits that tell [values] values apart. */
    private fun width(values: Int) = Int.SIZE_BITS - (values - 1).countLeadingZeroBits()
}

/** Fields without gaps: the first field's least significant bit is bit 0 of byte 0. */
private class BitWriter {
    private val out = Buffer()
    private var pending = 0L
    var bits = 0
        private set

    fun write(value: Int, width: Int) {
        pending = pending or (value.toLong() shl bits % 8)
        var filled = bits % 8 + width
        bits += width
        while (filled >= 8) {
            out.writeByte(pending.toInt())
            pending = pending ushr 8
            filled -= 8
        }
    }

    fun bytes(): ByteString = Buffer().also { all ->
        all.write(out.snapshot())
        if (bits % 8 != 0) all.writeByte(pending.toInt())
    }.readByteString()
}

private class BitReader(private val data: ByteString) {
    private var at = 0L // bits read

    /** So many [bits] are left. */
    fun has(bits: Long) = demand(at + bits <= 8L * data.size) { "a row ends too early" }

    fun read(width: Int): Int {
        has(width.toLong())
        var value = 0L
        var got = 0
        while (got < width) {
            val byte = data[((at + got) / 8).toInt()].toLong() and 0xFF
            val skip = ((at + got) % 8).toInt()
            value = value or (byte ushr skip shl got)
            got += 8 - skip
        }
        at += width
        return (value and (1L shl width) - 1).toInt()
    }

    /** Nothing but the padding's zero bits is left. */
    fun finish() {
        val left = 8L * data.size - at
        demand(left < 8 && read(left.toInt()) == 0) { "a payload has bytes or bits left over" }
    }
}
