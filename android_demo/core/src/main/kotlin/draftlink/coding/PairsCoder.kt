package draftlink.coding

import draftlink.wire.demand

/** A token [id] and its [probability], in (0, 1]. */
data class IdShare(val id: Int, val probability: Double)

/** Pairs of an id and its probability: draws from a distribution, and all of one (docs/protocol.md, 10.3). */
internal class PairsCoder(vocabSize: Int) {
    private val prior = IdPrior(vocabSize)
    private val sets = IdSets(prior)

    /** Appends [draws] of known number, in the order drawn. */
    fun writeDraws(out: RangeEncoder, draws: List<IdShare>) {
        val places = LinkedHashMap<Int, Int>()
        val times = ArrayList<Long>()
        draws.forEachIndexed { drawn, (id, probability) ->
            val total = drawn + times.size.toLong()
            val place = places[id]
            if (place != null) {
                out.push(times.subList(0, place).sum(), times[place], total)
                times[place]++
            } else {
                if (total > 0) out.push(drawn.toLong(), times.size.toLong(), total)
                prior.write(out, id)
                writeShare(out, probability)
                places[id] = times.size
                times += 1L
            }
        }
    }

    /** [number] draws. Throws MalformedException for what cannot have been drawn. */
    fun readDraws(source: RangeDecoder, number: Int): List<IdShare> {
        val known = ArrayList<IdShare>()
        val times = ArrayList<Long>()
        val ids = HashSet<Int>()
        val draws = List(number) { drawn ->
            val size = times.size
            val place = if (drawn == 0) 0 else {
                source.choose(size + 1, (drawn + size).toLong()) { if (it < size) times[it] else size.toLong() }
            }
            if (place == size) {
                val id = prior.read(source)
                demand(ids.add(id)) { "the id $id is drawn for the first time twice" }
                known += IdShare(id, readShare(source))
                times += 1L
            } else {
                times[place]++
            }
            known[place]
        }
        demand(known.sumOf { it.probability } <= 1.0 + SLACK) { "the draws are of more than a distribution" }
        return draws
    }

    /** Appends all ids of a distribution, ascending, of known number, with their probabilities. */
    fun writeAll(out: RangeEncoder, pairs: List<IdShare>) {
        sets.write(out, IntArray(pairs.size) { pairs[it].id })
        for (pair in pairs) writeShare(out, pair.probability)
    }

    /** A distribution of [number] ids. Throws MalformedException for what is none. */
    fun readAll(source: RangeDecoder, number: Int): List<IdShare> {
        val pairs = sets.read(source, number).map { IdShare(it, readShare(source)) }
        val sum = pairs.sumOf { it.probability }
        demand(Math.abs(sum - 1.0) <= SLACK) { "a distribution of sum $sum" }
        return pairs
    }

    private fun writeShare(out: RangeEncoder, probability: Double) {
        val bits = probability.toRawBits()
        for (at in 48 downTo 0 step 16) out.uniform(bits ushr at and 0xFFFF, 1L shl 16)
    }

    private fun readShare(source: RangeDecoder): Double {
        var bits = 0L
        repeat(4) { bits = bits shl 16 or source.uniform(1L shl 16) }
        val probability = Double.fromBits(bits)
        demand(probability > 0.0 && probability <= 1.0) { "$probability is no probability" } // nor is NaN
        return probability
    }

    private companion object {
        const val SLACK = 1e-6 // of a sum of probabilities
    }
}
