package draftlink.coding

import draftlink.distribution.Drafted
import draftlink.distribution.SparseRow
import draftlink.wire.demand

/** What bounds a row: at most [k] entries, sum [total]; [nested] rows code a rest. */
internal data class Shape(val k: Int, val total: Long, val nested: Boolean) {
    companion object {
        /** Those of a drafted token's rows: each has room for twice as much as the one before. */
        fun of(k: Int, total: Int, tiers: Int) = List(tiers) { j -> Shape(k shl j, total.toLong() shl j, tiers > 1) }
    }
}

/**
 * Drafted tokens with their rows through a range coder (docs/protocol.md, 9.4): of a row the counts,
 * the largest first, the drawn entry, and the ids as a set for each group of equal counts.
 */
internal class LatticeCoder(private val shapes: List<Shape>, private val vocabSize: Int) {
    private val prior = IdPrior(vocabSize)
    private val sets = IdSets(prior)

    /** The payload of [drafted] tokens. Throws [IllegalArgumentException] for rows of other shapes. */
    fun encode(drafted: List<Drafted>): Payload {
        val out = RangeEncoder()
        for (token in drafted) write(out, token)
        return out.finish()
    }

    private fun write(out: RangeEncoder, token: Drafted) {
        val rows = token.above + listOfNotNull(token.row)
        require(rows.size <= shapes.size && (token.row != null || rows.size == shapes.size)) {
            "a token of ${rows.size} rows, where ${shapes.size} are coded"
        }
        rows.forEachIndexed { j, row -> writeRow(out, row, if (row === token.row) token.token else null, shapes[j]) }
        if (token.row == null) {
            val share = prior.share(token.token)
            val listed = Listed(rows)
            out.push(share.below - listed.below(token.token), share.weight, listed.left)
        }
    }

    private fun writeRow(out: RangeEncoder, row: SparseRow, drawn: Int?, shape: Shape) {
        require(row.ids.size <= shape.k && row.total == shape.total && (row.rest == 0L || shape.nested)) {
            "a row of ${row.ids.size} entries of ${row.total}, where ${shape.k} of ${shape.total} are coded"
        }
        val order = row.ids.indices.sortedWith(compareByDescending<Int> { row.counts[it] }.thenBy { row.ids[it] })
        if (shape.nested) writeRest(out, row.rest, shape.total)
        var left = shape.total - row.rest
        var most = shape.total
        var slots = minOf(shape.k, vocabSize).toLong()
        var below = 0L
        var rankBelow = left
        var rankCount = row.rest
        for (i in order) {
            val count = row.counts[i]
            if (most > 1) { // else only ones are left
                val fewest = ceilDiv(left, slots)
                out.uniform(count - fewest, minOf(most, left) - fewest + 1)
                left -= count
                slots--
            }
            if (row.ids[i] == drawn) {
                rankBelow = below
                rankCount = count
            }
            below += count
            most = count
        }
        out.push(rankBelow, rankCount, shape.total)
        for (group in order.groupBy { row.counts[it] }.values) { // in order: equals are neighbours
            sets.write(out, IntArray(group.size) { row.ids[group[it]] })
        }
    }

    private fun writeRest(out: RangeEncoder, rest: Long, total: Long) {
        val size = bits(rest)
        out.uniform(size.toLong(), bits(total) + 1L)
        if (size > 1) {
            val fewest = 1L shl size - 1
            out.uniform(rest - fewest, minOf(2 * fewest, total + 1) - fewest)
        }
    }

    /** The [length] tokens of a payload. Throws MalformedException for bytes that [encode] never writes. */
    fun decode(source: RangeDecoder, length: Int): List<Drafted> {
        val drafted = List(length) { read(source) }
        source.finish()
        return drafted
    }

    private fun read(source: RangeDecoder): Drafted {
        val above = ArrayList<SparseRow>()
        val known = HashSet<Int>()
        for (shape in shapes) {
            val (row, index) = readRow(source, shape)
            demand(row.ids.all(known::add)) { "a row's ids are repeated" }
            demand(row.rest == 0L || known.size < vocabSize) { "a row has a rest, where no ids are left" }
            if (index != null) return Drafted.of(row, index, above)
            above += row
        }
        val listed = Listed(above)
        val token = prior.owner(listed.skip(source.peek(listed.left)))
        val share = prior.share(token)
        source.take(share.below - listed.below(token), share.weight)
        return Drafted(token, share.weight, listed.left, null, above)
    }

    /** A row, and which of its entries was drawn: an index, or null for the rest. */
    private fun readRow(source: RangeDecoder, shape: Shape): Pair<SparseRow, Int?> {
        val rest = if (shape.nested) readRest(source, shape.total) else 0L
        val counts = readCounts(source, shape, shape.total - rest)
        val spans = counts + rest
        val rank = source.choose(spans.size, shape.total) { spans[it] }
        val ids = IntArray(counts.size)
        var at = 0
        while (at < counts.size) {
            var end = at
            while (end < counts.size && counts[end] == counts[at]) end++
            sets.read(source, end - at).copyInto(ids, at)
            at = end
        }
        val order = ids.indices.sortedBy { ids[it] }
        val sorted = IntArray(ids.size) { ids[order[it]] }
        demand((1 until sorted.size).all { sorted[it - 1] < sorted[it] }) { "a row's ids are repeated" }
        val row = SparseRow(sorted, LongArray(ids.size) { counts[order[it]] }, shape.total, rest)
        return row to if (rank < ids.size) sorted.binarySearch(ids[rank]) else null
    }

    private fun readRest(source: RangeDecoder, total: Long): Long {
        val size = source.uniform(bits(total) + 1L).toInt()
        if (size <= 1) return size.toLong()
        val fewest = 1L shl size - 1
        return fewest + source.uniform(minOf(2 * fewest, total + 1) - fewest)
    }

    private fun readCounts(source: RangeDecoder, shape: Shape, sum: Long): List<Long> {
        val counts = ArrayList<Long>()
        var left = sum
        var most = shape.total
        var slots = minOf(shape.k, vocabSize).toLong()
        while (left > 0) {
            if (most == 1L && counts.isNotEmpty()) {
                repeat(left.toInt()) { counts += 1L } // as many as slots at most: the last bound saw to it
                break
            }
            val fewest = ceilDiv(left, slots)
            val count = fewest + source.uniform(minOf(most, left) - fewest + 1)
            counts += count
            left -= count
            most = count
            slots--
        }
        return counts
    }

    /** The ids that [rows] list, taken out of the prior. */
    private inner class Listed(rows: List<SparseRow>) {
        private val ids = rows.flatMap { it.ids.asList() }.sorted()
        private val weights = ids.map { prior.share(it).weight }.runningFold(0L, Long::plus)

        /** The weights of all ids that are left. */
        val left = prior.total - weights.last()

        /** The weights of those below an [id] that is none of them. */
        fun below(id: Int): Long = weights[ids.count { it < id }]

        /** Where [value] of [0, left) lies among the weights of all ids. */
        fun skip(value: Long): Long {
            var place = value
            for (id in ids) {
                val share = prior.share(id)
                if (place < share.below) break
                place += share.weight
            }
            return place
        }
    }

    private fun ceilDiv(a: Long, b: Long) = (a + b - 1) / b

    private fun bits(value: Long) = Long.SIZE_BITS - value.countLeadingZeroBits()
}
