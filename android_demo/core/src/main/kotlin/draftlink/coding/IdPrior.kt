package draftlink.coding

/** The sum of the weights of all ids [below] one, and that id's own [weight]. */
internal data class Share(val below: Long, val weight: Long)

/**
 * Weights of token ids before any token (docs/protocol.md, 9.1): constant within an octave, small ids
 * likelier. Throws [IllegalArgumentException] for a vocabulary that is not coded.
 */
internal class IdPrior(val vocabSize: Int) {
    /** The octaves' first ids, and behind them [vocabSize]. */
    val starts: IntArray
    private val weights: LongArray
    private val sums: LongArray

    init {
        require(vocabSize in 1..MOST_IDS) { "a vocabulary of $vocabSize, where 1 to $MOST_IDS are coded" }
        var octaves = 1
        while (FIRST * ((1L shl octaves) - 1) < vocabSize) octaves++
        starts = IntArray(octaves + 1) { j -> minOf(FIRST * ((1L shl j) - 1), vocabSize.toLong()).toInt() }
        val mass = FIRST shl octaves - 1
        val uniform = maxOf(1L, (mass * octaves + vocabSize / 2) / vocabSize)
        weights = LongArray(octaves) { j -> uniform + (1L shl octaves - 1 - j) }
        sums = LongArray(octaves + 1)
        for (j in 0 until octaves) sums[j + 1] = sums[j] + weights[j] * (starts[j + 1] - starts[j])
    }

    /** How many octaves there are. */
    val octaves: Int get() = weights.size

    /** The sum of all weights, below 2²⁸. */
    val total: Long get() = sums[octaves]

    /** The sum of the weights of all ids below an [octave]. */
    fun below(octave: Int): Long = sums[octave]

    fun share(id: Int): Share {
        val j = last(starts.size - 1) { starts[it] <= id }
        return Share(sums[j] + weights[j] * (id - starts[j]), weights[j])
    }

    /** The id that owns [value] in [0, total). */
    fun owner(value: Long): Int {
        val j = last(octaves) { sums[it] <= value }
        return starts[j] + ((value - sums[j]) / weights[j]).toInt()
    }

    private inline fun last(count: Int, fits: (Int) -> Boolean): Int {
        var j = count - 1
        while (!fits(j)) j--
        return j
    }

    /** Writes one id. */
    fun write(out: RangeEncoder, id: Int) {
        val share = share(id)
        out.push(share.below, share.weight, total)
    }

    /** Reads one id of those whose weights lie from [base] on and have the sum [sum]. */
    fun read(source: RangeDecoder, base: Long = 0, sum: Long = total): Int {
        val id = owner(base + source.peek(sum))
        val share = share(id)
        source.take(share.below - base, share.weight)
        return id
    }

    companion object {
        private const val FIRST = 64L // ids in the first octave
        private const val MOST_IDS = 1 shl 22
    }
}
