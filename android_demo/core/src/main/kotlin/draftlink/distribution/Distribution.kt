package draftlink.distribution

import draftlink.wire.Sampling

/** One row of logits to one distribution, in float64 (docs/protocol.md, 6, whose steps these are). */
object Distribution {
    private const val MARGIN = 1.0 / (1 shl 30) // what a cut is moved by, off masses that are as round as its number

    /**
     * Makes logits, [scores] (V,), the scores: after suppressed ids, bias and penalties. The text is
     * [history] from [begins] on; ids from V on are none.
     */
    fun shape(
        scores: DoubleArray,
        sampling: Sampling,
        history: List<Int>,
        begins: Int = 0,
        suppressed: List<Int> = emptyList(),
    ) {
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
    }

    /** The arg max of [scores], the lowest id of equals. Throws [IllegalStateException] where there is none. */
    fun greedy(scores: DoubleArray): Int {
        val largest = checkLargest(scores)
        var id = 0
        while (scores[id] != largest) id++
        return id
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
        var largest = Double.NEGATIVE_INFINITY
        for (score in scores) largest = Math.max(largest, score) // NaN where one is
        check(Math.abs(largest) <= Float.MAX_VALUE) { "the logits hold no largest number: the model is broken" }
        return largest
    }

    /** Equals of the k-th stay. */
    private fun topK(p: DoubleArray, scores: DoubleArray, k: Int) {
        val edge = scores[largest(scores, k) { true }.last()]
        keep(p) { scores[it] >= edge }
    }

    /** The scores say which of two ids is the likelier, never p, whose last bits differ between ends. */
    private fun topP(p: DoubleArray, scores: DoubleArray, mass: Double) {
        val kept = BooleanArray(p.size)
        var ranked = IntArray(0)
        var before = 0.0
        var at = 0
        while (at == 0 || before < mass - MARGIN) {
            if (at == ranked.size) { // most often a few hold the mass
                ranked = largest(scores, minOf(p.size, maxOf(64, 8 * at))) { p[it] > 0.0 }
                if (at == ranked.size) break
            }
            kept[ranked[at]] = true
            before += p[ranked[at++]]
        }
        keep(p) { kept[it] }
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
