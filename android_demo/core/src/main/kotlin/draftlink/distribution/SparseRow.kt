package draftlink.distribution

/**
 * The distribution q̂(ids(i)) = counts(i) / total, and rest / total for all other ids together
 * (docs/protocol.md, 7.1).
 *
 * [ids] ascending and distinct, [counts] at least 1 each, with sum [total] − [rest]. [total] is a Long
 * because the prior's row, and FP16's, reach 2²⁸.
 */
class SparseRow(val ids: IntArray, val counts: LongArray, val total: Long, val rest: Long = 0) {
    init {
        require(ids.size == counts.size && counts.sum() + rest == total) { "a row whose counts are not its total" }
    }

    /** The index into [ids] whose share of [0, total) holds [number]; their number for the rest. */
    fun draw(number: Long): Int {
        var left = number
        for (i in counts.indices) {
            left -= counts[i]
            if (left < 0) return i
        }
        return counts.size
    }

    /** q̂ of an [id]; 0 where the row does not list it. */
    fun probability(id: Int): Double {
        val i = ids.binarySearch(id)
        return if (i < 0) 0.0 else counts[i].toDouble() / total.toDouble()
    }

    override fun equals(other: Any?): Boolean = other is SparseRow && ids.contentEquals(other.ids) &&
        counts.contentEquals(other.counts) && total == other.total && rest == other.rest

    override fun hashCode(): Int = 31 * ids.contentHashCode() + counts.contentHashCode()

    override fun toString(): String = "SparseRow(${ids.toList()}, ${counts.toList()}, $total, $rest)"
}

/**
 * A drafted token, and what is known of the distribution that it was drawn from.
 *
 * [row] is what lists the token; [above]: the rows whose rest was drawn before it, the outermost
 * first. [row] is null where the prior drew it behind the last of them, and where the scheme sends
 * none. [count] of [total] is its own; both are 0 where there are no probabilities.
 */
data class Drafted(
    val token: Int,
    val count: Long = 0,
    val total: Long = 0,
    val row: SparseRow? = null,
    val above: List<SparseRow> = emptyList(),
) {
    companion object {
        /** Entry [index] of a [row]. */
        fun of(row: SparseRow, index: Int, above: List<SparseRow> = emptyList()) =
            Drafted(row.ids[index], row.counts[index], row.total, row, above)
    }
}
