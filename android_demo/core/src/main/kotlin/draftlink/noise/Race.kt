package draftlink.noise

/**
 * The noise of `coupled` (docs/protocol.md, 11.3): independent Exp(1) numbers x(t, v), the same at
 * both ends, by a [key] of 32 bytes. The token at t is the id of least x(t, v) / w(v).
 */
class Race(key: ByteArray) {
    private val k0: Long
    private val k1: Long
    private val words = LongArray(4) // of the counter at hand; a race is one thread's

    init {
        val seed = Blake2b.digest("race".toByteArray(), 8, key)
        k0 = little(seed, 0)
        k1 = little(seed, 4)
    }

    /** The two words that Philox is keyed by. */
    internal val keyWords: Pair<Long, Long> get() = k0 to k1

    /** x at [position], of 64 bits without a sign, of one [id] from 0 to 2³² − 1. */
    fun x(position: Long, id: Long): Double {
        require(id in 0..MASK) { "no token has the id $id" }
        return clocks(position, (id / BLOCK).toInt(), DoubleArray(BLOCK))[(id % BLOCK).toInt()]
    }

    /** x at [position] of the 64 ids of a [block], in [out]. */
    fun clocks(position: Long, block: Int, out: DoubleArray): DoubleArray {
        val least = least(position, block)
        val winner = (words[2] ushr 26).toInt()
        for (i in 0 until BLOCK / 2) {
            philox(position, block * (BLOCK / 2L) + i, 1)
            out[i] = least + Philox.exponential(words[0], words[1])
            out[i + BLOCK / 2] = least + Philox.exponential(words[2], words[3])
        }
        out[winner] = least
        return out
    }

    private fun least(position: Long, block: Int): Double {
        philox(position, block.toLong(), 0)
        return Philox.exponential(words[0], words[1]) * (1.0 / BLOCK)
    }

    private fun philox(position: Long, counter: Long, purpose: Long) =
        Philox.words(counter, purpose, position and MASK, position ushr 32, k0, k1, words)

    /**
     * The id that minimises x / weight among those of a weight above 0, the lowest of equals.
     * [weights] (V,) need not be normalised. Throws [IllegalArgumentException] where the largest is
     * not finite, or not above 1e-300, or one is NaN.
     */
    fun pick(position: Long, weights: DoubleArray): Int {
        val blocks = (weights.size + BLOCK - 1) / BLOCK
        val peaks = DoubleArray(blocks) { block -> peak(weights, block) }
        val largest = peaks.fold(0.0) { a, b -> maxOf(a, b) } // NaN where one is
        require(largest > TINIEST && largest < Double.POSITIVE_INFINITY) { "the weights hold no largest number" }
        // No id of a block arrives before its bound, so a block whose bound is above the best arrival stays closed.
        val bounds = DoubleArray(blocks) { if (peaks[it] > 0.0) least(position, it) / peaks[it] else Double.POSITIVE_INFINITY }
        val nearest = bounds.indices.minBy { bounds[it] }
        val best = Best()
        val x = DoubleArray(BLOCK)
        open(position, nearest, weights, x, best)
        for (block in 0 until blocks) {
            if (block != nearest && peaks[block] > 0.0 && bounds[block] <= best.arrival) open(position, block, weights, x, best)
        }
        return best.id
    }

    private class Best(var id: Int = -1, var arrival: Double = Double.POSITIVE_INFINITY)

    private fun open(position: Long, block: Int, weights: DoubleArray, x: DoubleArray, best: Best) {
        clocks(position, block, x)
        val first = block * BLOCK
        for (id in first until minOf(first + BLOCK, weights.size)) {
            if (weights[id] <= 0.0) continue
            val arrival = x[id - first] / weights[id]
            if (arrival < best.arrival || (arrival == best.arrival && (best.id < 0 || id < best.id))) {
                best.id = id
                best.arrival = arrival
            }
        }
    }

    private fun peak(weights: DoubleArray, block: Int): Double {
        var largest = 0.0
        for (id in block * BLOCK until minOf((block + 1) * BLOCK, weights.size)) largest = maxOf(largest, weights[id])
        return largest
    }

    internal companion object {
        /** Ids whose minimum is drawn first; part of the noise's definition. */
        const val BLOCK = 64

        private const val MASK = 0xFFFF_FFFFL
        private const val TINIEST = 1e-300

        private fun little(bytes: ByteArray, at: Int): Long {
            var value = 0L
            for (i in 3 downTo 0) value = value shl 8 or (bytes[at + i].toLong() and 0xFF)
            return value
        }
    }
}
