package draftlink.coding

import draftlink.wire.demand

/**
 * The history of a session, and what it says of the next id (docs/protocol.md, 9.5): prediction by
 * partial matching over two tokens of context, one, all that was seen, and the prior.
 *
 * The model is a function of the history alone, however it came about: rolling back leaves no trace.
 */
class IdModel(val vocabSize: Int) {
    private val prior = IdPrior(vocabSize)
    private val history = ArrayList<Int>()
    private val followers = HashMap<Long, LinkedHashMap<Int, Int>>()
    private val seen = LinkedHashMap<Int, Int>()
    private val learned = ArrayList<List<LinkedHashMap<Int, Int>>>() // per token: the maps that counted it

    /** Tokens in the history. */
    val length: Int get() = history.size

    /** Appends tokens to the history. Throws [IllegalArgumentException] for an id out of range, or too many. */
    fun extend(ids: List<Int>) {
        for (id in ids) {
            check(id)
            learn(id)
        }
    }

    /** Cuts the history back to [length] tokens. */
    fun rollback(length: Int) {
        require(length in 0..history.size) { "cannot roll ${history.size} tokens back to $length" }
        while (history.size > length) {
            val id = history.removeAt(history.lastIndex)
            for (counts in learned.removeAt(learned.lastIndex)) {
                // An id that counts once entered last of those that are left, so the order stays right.
                if (counts.getValue(id) == 1) counts.remove(id) else counts[id] = counts.getValue(id) - 1
            }
        }
    }

    /**
     * Appends [ids], the next tokens, each in the context of those before it, and [beside] each those that
     * may stand in its place; it goes on from the token alone. The history stays as it is. Throws
     * [IllegalArgumentException] for ids in one place that are the same.
     */
    fun encode(out: RangeEncoder, ids: List<Int>, beside: List<List<Int>> = emptyList()) {
        val length = history.size
        try {
            ids.forEachIndexed { place, id ->
                val here = LinkedHashSet<Int>()
                for (each in listOf(id) + (beside.getOrNull(place) ?: emptyList())) {
                    check(each)
                    require(each !in here) { "id $each stands twice in one place" }
                    write(out, each, here)
                    here += each
                }
                learn(id)
            }
        } finally {
            rollback(length)
        }
    }

    /** The next [count] ids. The history stays as it is. Throws MalformedException for other bytes. */
    fun decode(source: RangeDecoder, count: Int): List<Int> = decode(source, List(count) { 0 }).map { it.first() }

    /** The next ids, each with so many behind it that may stand in its place. */
    fun decode(source: RangeDecoder, beside: List<Int>): List<List<Int>> {
        val length = history.size
        try {
            return beside.map { others ->
                val here = LinkedHashSet<Int>()
                repeat(1 + others) {
                    val id = read(source, here)
                    demand(here.add(id)) { "id $id stands twice in one place" }
                }
                learn(here.first())
                here.toList()
            }
        } finally {
            rollback(length)
        }
    }

    private fun check(id: Int) {
        require(id in 0 until vocabSize) { "id $id, where the vocabulary is $vocabSize" }
        require(history.size < MOST_HISTORY) { "a history of more than $MOST_HISTORY tokens" }
    }

    /** The key of the last [size] tokens, 1 or 2. Ids are below 2²², so no two contexts share one. */
    private fun context(size: Int): Long {
        val last = history[history.size - 1].toLong()
        return if (size == 1) last else (history[history.size - 2] + 1L shl 32) or last
    }

    private fun learn(id: Int) {
        val counted = ArrayList<LinkedHashMap<Int, Int>>(3)
        var known = false
        for (size in minOf(2, history.size) downTo 1) {
            val ids = followers.getOrPut(context(size)) { LinkedHashMap() }
            val count = ids[id]
            known = count != null
            if (known || ids.size < FOLLOWERS) {
                ids[id] = (count ?: 0) + 1
                counted += ids
            }
            if (known) break
        }
        if (!known) {
            seen[id] = (seen[id] ?: 0) + 1
            counted += seen
        }
        learned += counted
        history += id
    }

    /** A step of the model: those [ids] that no step before has, their [frequencies], and the escape's. */
    private class Step(val ids: IntArray, val frequencies: LongArray, val escape: Long) {
        val total = frequencies.sum() + escape
    }

    private fun step(counts: Map<Int, Int>, tried: Set<Int>, discount: Int, constant: Int): Step {
        val left = counts.filterKeys { it !in tried }
        val frequencies = LongArray(left.size)
        left.values.forEachIndexed { i, count -> frequencies[i] = ONE.toLong() * count - discount }
        return Step(left.keys.toIntArray(), frequencies, discount.toLong() * left.size + constant)
    }

    /** The steps for the next token, the longest context first; [tried] grows by what each escaped from. */
    private inline fun steps(tried: HashSet<Int>, each: (Step) -> Boolean) {
        for (size in minOf(2, history.size) downTo 1) {
            val counts = followers[context(size)] ?: continue
            val step = if (size == 2) step(counts, tried, 8, 0) else step(counts, tried, 10, 4)
            if (step.ids.isEmpty()) continue
            if (each(step)) return
            tried += counts.keys
        }
        each(step(seen, tried, 6, 60 * ONE))
    }

    private fun write(out: RangeEncoder, id: Int, here: Set<Int>) {
        var found = false
        steps(HashSet(here)) { step -> // what stands in this place it is not
            val place = step.ids.indexOf(id)
            found = place >= 0
            var start = 0L
            for (i in 0 until if (found) place else step.ids.size) start += step.frequencies[i]
            out.push(start, if (found) step.frequencies[place] else step.escape, step.total)
            found
        }
        if (!found) prior.write(out, id)
    }

    private fun read(source: RangeDecoder, here: Set<Int>): Int {
        var found = -1
        steps(HashSet(here)) { step ->
            val count = step.ids.size
            val place = source.choose(count + 1, step.total) { i -> if (i < count) step.frequencies[i] else step.escape }
            if (place < count) found = step.ids[place]
            found >= 0
        }
        if (found >= 0) return found
        val id = prior.read(source)
        demand(id !in seen) { "an id that was seen is coded as one that was not" }
        return id
    }

    private companion object {
        const val ONE = 16 // sixteenths of a count
        const val FOLLOWERS = 32 // a context learns at most as many ids
        const val MOST_HISTORY = 1 shl 20 // keeps totals in the range coder's limit
    }
}
