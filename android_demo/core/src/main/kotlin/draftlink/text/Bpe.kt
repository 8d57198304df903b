package draftlink.text

import java.util.PriorityQueue

/**
 * Byte-pair encoding of a word, as Hugging Face's tokenizers do it: of all neighbours that have a
 * merge the one that was learned first, of equals the leftmost.
 *
 * [byteFallback]: a character without an id is spelt in bytes. [whole]: a word that has an id is that.
 */
internal class Bpe(
    private val vocabulary: Map<String, Int>,
    merges: List<Pair<String, String>>,
    private val byteFallback: Boolean,
    private val whole: Boolean,
    private val unknown: Int?,
    private val fuseUnknown: Boolean,
) {
    private class Merge(val rank: Int, val id: Int)

    private val merges = HashMap<Long, Merge>()

    init {
        merges.forEachIndexed { rank, (left, right) ->
            val ids = listOf(left, right, left + right).map {
                vocabulary[it] ?: throw TokenizerException("a merge of \"$left\" and \"$right\", of which one has no id")
            }
            this.merges[pair(ids[0], ids[1])] = Merge(rank, ids[2])
        }
    }

    private fun pair(left: Int, right: Int) = left.toLong() shl 32 or right.toLong()

    /** The ids of a [word], appended to [out]. */
    fun encode(word: String, out: MutableList<Int>) {
        if (word.isEmpty()) return
        if (whole) vocabulary[word]?.let { return out.plusAssign(it) }
        merge(symbols(word), out)
    }

    private fun symbols(word: String): ArrayList<Int> {
        val found = ArrayList<Int>(word.length)
        var unknowns = false // whether the last is one
        var at = 0
        while (at < word.length) {
            val character = String(Character.toChars(word.codePointAt(at)))
            at += character.length
            val id = vocabulary[character]
            val spelt = if (id == null) fallback(character) else null
            when {
                id != null -> found += id
                spelt != null -> found += spelt
                unknown != null && !(fuseUnknown && unknowns) -> found += unknown
            }
            unknowns = id == null && spelt == null
        }
        return found
    }

    private fun fallback(character: String): List<Int>? {
        if (!byteFallback) return null
        val ids = character.toByteArray().map { vocabulary["<0x%02X>".format(it.toInt() and 0xFF)] }
        return if (ids.any { it == null }) null else ids.map { it!! }
    }

    private class Candidate(val rank: Int, val at: Int, val id: Int)

    /** A list of neighbours and a queue of merges, so that a long word takes n log n. */
    private fun merge(ids: ArrayList<Int>, out: MutableList<Int>) {
        val count = ids.size
        val before = IntArray(count) { it - 1 }
        val behind = IntArray(count) { it + 1 }
        val gone = BooleanArray(count)
        val queue = PriorityQueue<Candidate>(compareBy<Candidate> { it.rank }.thenBy { it.at })
        fun look(left: Int) {
            val right = if (left < 0) count else behind[left]
            if (right >= count) return
            merges[pair(ids[left], ids[right])]?.let { queue += Candidate(it.rank, left, it.id) }
        }
        for (at in 0 until count - 1) look(at)
        while (true) {
            val best = queue.poll() ?: break
            val right = if (gone[best.at]) count else behind[best.at]
            // It may have been made for a neighbour that has been merged meanwhile.
            if (right >= count || merges[pair(ids[best.at], ids[right])]?.id != best.id) continue
            ids[best.at] = best.id
            gone[right] = true
            behind[best.at] = behind[right]
            if (behind[right] < count) before[behind[right]] = best.at
            look(before[best.at])
            look(best.at)
        }
        for (at in 0 until count) if (!gone[at]) out += ids[at]
    }
}
