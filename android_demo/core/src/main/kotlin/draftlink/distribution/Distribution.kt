package draftlink.distribution

import draftlink.wire.Sampling

/** One row of logits to one distribution, in float64 (docs/protocol.md, 6, whose steps these are). */
object Distribution {
    private const val MARGIN = 1.0 / (1 shl 30) // what a cut is moved by, off masses that are as round as its number

    /**
     * Scores: [logits] (V,) after suppressed ids, bias and penalties. The text is [history] from
     * [begins] on; ids from V on are none.
     */
    fun scores(
        logits: DoubleArray,
        sampling: Sampling,
        history: List<Int>,
        begins: Int = 0,
        suppressed: List<Int> = emptyList(),
    ): DoubleArray {
        val scores = logits.copyOf()
        for (id in suppressed) if (id < scores.size) scores[id] = Double.NEGATIVE_INFINITY
        for ((id, value) in sampling.logitBias.orEmpty()) if (id < scores.size) scores[id] += value
        val penalty = sampling.repetitionPenalty
        if (penalty != 1.0) {
            for (id in history.toSet()) {
                if (id < scores.size) scores[id] = if (scores[id] > 0) scores[id] / penalty else scores[id] * penalty
            }
        }
        val frequency = sampling.frequencyPenalty ?: 0.0
        val presence = sampling.presencePenalty ?: 0.0
        if (frequency != 0.0 || presence != 0.0) {
            for ((id, times) in history.drop(begins).groupingBy { it }.eachCount()) {
                if (id < scores.size) scores[id] -= frequency * times + presence
            }
        }
        return scores
    }

    /** The arg max of [scores], the lowest id of equals. Throws [IllegalStateException] where there is none. */
    fun greedy(scores: DoubleArray): Int {
        checkLargest(scores)
        return scores.indices.maxBy { scores[it] } // the first of equals
    }

    /**
     * The distribution (V,) that a token is drawn from at a temperature above 0. Throws
     * [IllegalStateException] for scores without a largest number.
     */
    fun of(scores: DoubleArray, sampling: Sampling): DoubleArray {
        val largest = checkLargest(scores)
        val p = DoubleArray(scores.size) { Math.exp((scores[it] - largest) / sampling.temperature) }
        normalise(p)
        if (sampling.topK > 0 && sampling.topK < p.size) topK(p, scores, sampling.topK.toInt())
        if (sampling.topP < 1.0) topP(p, scores, sampling.topP)
        if (sampling.minP > 0.0) {
            val least = (1.0 - MARGIN) * sampling.minP * p.max()
            keep(p) { p[it] >= least }
        }
        return p
    }

    private fun checkLargest(scores: DoubleArray): Double {
        val largest = scores.fold(Double.NEGATIVE_INFINITY) { a, b -> maxOf(a, b) } // NaN where one is
        check(Math.abs(largest) <= Float.MAX_VALUE) { "the logits hold no largest number: the model is broken" }
        return largest
    }

    /** Equals of the k-th stay. */
    private fun topK(p: DoubleArray, scores: DoubleArray, k: Int) {
        val edge = scores.sortedArray()[scores.size - k]
        keep(p) { scores[it] >= edge }
    }

    /** The scores say which of two ids is the likelier, never p, whose last bits differ between ends. */
    private fun topP(p: DoubleArray, scores: DoubleArray, mass: Double) {
        val order = p.indices.filter { p[it] > 0.0 }.sortedWith(compareByDescending<Int> { scores[it] }.thenBy { it })
        val kept = HashSet<Int>()
        var before = 0.0
        for (id in order) {
            if (kept.isNotEmpty() && before >= mass - MARGIN) break
            kept += id
            before += p[id]
        }
        keep(p) { it in kept }
    }

    private inline fun keep(p: DoubleArray, stays: (Int) -> Boolean) {
        for (id in p.indices) if (!stays(id)) p[id] = 0.0
        normalise(p)
    }

    private fun normalise(p: DoubleArray) {
        val sum = p.sum()
        for (id in p.indices) p[id] /= sum
    }
}
