package draftlink.session

import draftlink.wire.Frames
import draftlink.wire.Scheme

/** What a generation's drafts are: at temperature 0, [greedy], ids alone travel, whatever scheme was named. */
data class Rule(val scheme: Scheme, val greedy: Boolean) {
    /** Whether a drafted token is accepted exactly if the target's own token is the same. */
    val foretells: Boolean get() = greedy || scheme is Scheme.Coupled

    /** Whether the device writes the token after a rejection. */
    val corrects: Boolean get() = !greedy && scheme is Scheme.Split

    /** The most pairs that a device which corrects is sent before a whole row. */
    val recovers: Int get() = if (greedy) 0 else (scheme as? Scheme.Split)?.pairs ?: 0

    /** The most entries that a drafted token's payload makes its reader decode (docs/protocol.md, 7.8). */
    fun entries(vocabSize: Int): Long {
        val v = vocabSize.toLong()
        if (greedy) return ID
        return when (scheme) {
            is Scheme.Coupled, is Scheme.Split -> ID
            is Scheme.Dense -> ceil(v, FIXED)
            is Scheme.TopK -> if (scheme.coding == Scheme.FP16) ceil(minOf(scheme.k.toLong(), v), FIXED)
            else (0 until scheme.rows).sumOf { j -> minOf(scheme.k.toLong() shl j, scheme.total.toLong() shl j, v) }
        }
    }

    /** The most drafted tokens of a frame, where the base station takes [frameEntries] in one. May be 0. */
    fun longest(vocabSize: Int, frameEntries: Long): Long =
        minOf(MAX_DRAFT, 8L * (Frames.MAX_MESSAGE_BYTES - HEAD) / mostBits(vocabSize), frameEntries / entries(vocabSize))

    /** The most drafted tokens without a verdict, where so many entries may be. */
    fun deepest(vocabSize: Int, flightEntries: Long): Long = minOf(MAX_IN_FLIGHT, flightEntries / entries(vocabSize))

    /** No drafted token's payload is longer: as fixed fields. The coder needs less. */
    private fun mostBits(vocabSize: Int): Long {
        val id = width(vocabSize.toLong())
        if (greedy) return ID_BITS
        return when (scheme) {
            is Scheme.Coupled -> ID_BITS
            is Scheme.Split -> ID_BITS + width(scheme.total.toLong())
            is Scheme.Dense -> HALF * vocabSize + id
            is Scheme.TopK -> (0 until scheme.rows).sumOf { j ->
                val count = if (scheme.coding == Scheme.FP16) HALF else width(scheme.total.toLong() shl j) + 2
                ((scheme.k.toLong() shl j) + 2) * (count + id)
            }
        }
    }

    companion object {
        /** Drafted tokens in a frame, at most. */
        const val MAX_DRAFT = 64L

        /** And without a verdict. */
        const val MAX_IN_FLIGHT = 256L

        private const val ID = 32L // an id takes as long as so many entries of a row
        private const val FIXED = 512L // and so do so many of fixed width
        private const val ID_BITS = 64L // of an id that nothing foretold
        private const val HALF = 16L // of a value in FP16
        private const val HEAD = 64 // bytes of a frame beside its payload

        /** Bits that hold every number below [count]. */
        private fun width(count: Long): Long = 64L - (count - 1).countLeadingZeroBits()

        private fun ceil(a: Long, b: Long) = (a + b - 1) / b
    }
}
