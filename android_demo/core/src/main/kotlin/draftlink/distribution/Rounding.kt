package draftlink.distribution

/**
 * Distributions to rows that can be sent: truncated, rounded to counts, and only then drawn from
 * (docs/protocol.md, 7.1). Drawing first would be biased.
 */
object Rounding {
    private const val TIE = 1e-9 // taken off a rest: an id comes first where their remainders are equal

    /**
     * Ids, ascending, of the [k] largest of [q] (V,), the lower of equals; none of 0. With a [mass]
     * below 1 only those, largest first, that it takes to hold that much.
     */
    fun top(q: DoubleArray, k: Int, mass: Double = 1.0): IntArray {
        val ranked = largest(q, k) { q[it] > 0.0 }
        if (mass >= 1.0) return ranked.sortedArray()
        var before = 0.0
        var kept = 0
        for (id in ranked) {
            if (before >= mass) break
            before += q[id]
            kept++
        }
        return ranked.copyOf(kept).sortedArray()
    }

    /** [top], renormalised and rounded to counts with sum [total]. Entries that round to 0 leave it. */
    fun lattice(q: DoubleArray, k: Int, total: Long, mass: Double = 1.0): SparseRow {
        val ids = top(q, k, mass)
        val scale = total / ids.sumOf { q[it] }
        val counts = rounded(DoubleArray(ids.size) { q[ids[it]] * scale }, total)
        return row(ids, counts, total, 0)
    }

    /** The [k] largest of [q] and all others as a rest, rounded to counts with sum [total]. */
    fun nested(q: DoubleArray, k: Int, total: Long): SparseRow {
        val ids = top(q, k)
        var outside = 0.0
        var next = 0
        for (id in q.indices) if (next < ids.size && id == ids[next]) next++ else outside += q[id]
        val scale = total / (ids.sumOf { q[it] } + outside)
        val shares = DoubleArray(ids.size + 1) { if (it < ids.size) q[ids[it]] * scale else outside * scale * (1.0 - TIE) }
        val counts = rounded(shares, total)
        return row(ids, counts.copyOf(ids.size), total, counts.last())
    }

    /** [top], renormalised and rounded to FP16, whose values are the counts. */
    fun half(q: DoubleArray, k: Int, mass: Double = 1.0): SparseRow {
        val ids = top(q, k, mass)
        val sum = ids.sumOf { q[it] }
        val counts = LongArray(ids.size) { Half.units(Half.bits(q[ids[it]] / sum)) }
        return row(ids, counts, counts.sum(), 0)
    }

    /**
     * The rows that a token of the scheme may be drawn from, of [q] (V,): while the last has a rest,
     * the next, of what [q] has there, twice as large; [tiers] of them at most.
     *
     * The last has no rest if q is 0 anywhere: behind one the prior draws, which knows all ids.
     */
    fun rows(q: DoubleArray, k: Int, total: Long, tiers: Int): Sequence<SparseRow> = sequence {
        var left = q
        for (j in 0 until tiers) {
            val restless = j == tiers - 1 && (tiers == 1 || q.any { it <= 0.0 })
            val row = if (restless) lattice(left, k shl j, total shl j) else nested(left, k shl j, total shl j)
            yield(row)
            if (row.rest == 0L) return@sequence
            if (j == 0) left = q.copyOf() // seldom come to
            for (id in row.ids) left[id] = 0.0
        }
    }

    /** Counts with sum [total] for [shares] of that sum: the largest remainders go up, of equals the first. */
    private fun rounded(shares: DoubleArray, total: Long): LongArray {
        val counts = LongArray(shares.size) { shares[it].toLong() }
        val missing = total - counts.sum()
        if (missing > 0) {
            val order = shares.indices.sortedWith(compareBy<Int> { counts[it] - shares[it] }.thenBy { it })
            for (i in order.take(missing.toInt())) counts[i]++
        } else if (missing < 0) { // a share was rounded up past an integer
            counts[counts.indices.maxBy { counts[it] }] += missing
        }
        return counts
    }

    private fun row(ids: IntArray, counts: LongArray, total: Long, rest: Long): SparseRow {
        val kept = counts.indices.filter { counts[it] > 0 }
        return SparseRow(kept.map { ids[it] }.toIntArray(), kept.map { counts[it] }.toLongArray(), total, rest)
    }

    /** FP16 from 0 to 1, as bit patterns. */
    internal object Half {
        /** The pattern of 1. */
        const val ONE = 0x3C00

        /** The pattern nearest to [value] in [0, 1], of two the even one. */
        fun bits(value: Double): Int {
            if (value >= 1.0) return ONE
            // A step of the pattern is 2^-24 below 2^-14, and 2^(e-10) in the binade of 2^e above.
            val exponent = maxOf(Math.getExponent(value), -14)
            val mantissa = Math.rint(Math.scalb(value, 10 - exponent)).toInt()
            return (exponent + 14 shl 10) + mantissa
        }

        /** The value of a pattern from 0 to [ONE], in units of 2^-24. */
        fun units(bits: Int): Long {
            val binade = bits shr 10
            return if (binade == 0) bits.toLong() else (1024L + (bits and 1023)) shl binade - 1
        }
    }
}
