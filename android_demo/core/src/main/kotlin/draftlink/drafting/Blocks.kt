package draftlink.drafting

/** A drafted token as a window sees it: its probability in the draft, and whether it is an EOS; never its id. */
internal data class Proposed(val chance: Double, val ends: Boolean)

/** What a verdict says, without any id. [own]: a token of the target's own follows. Times in seconds. */
internal data class Judged(
    val accepted: Int,
    val own: Boolean,
    val closes: Boolean,
    val verifyS: Double,
    val queueS: Double,
)

/** Drafted tokens in flight. [whole]: how likely all of them are accepted; [dueS]: when the verdict should be here. */
internal class Block(val proposed: List<Proposed>, val waits: Boolean, val whole: Double, val sentS: Double, val dueS: Double)

/** What has been drafted and not judged: [sent] blocks, and behind them the next [block]. */
internal class Flight {
    val sent = ArrayDeque<Block>()
    var block = emptyList<Proposed>()
        private set

    /** Drafted tokens, sent or not. */
    var size = 0
        private set

    /** The last token is an EOS: nothing is drafted behind it. */
    var over = false
        private set

    /** Whether nothing may be drafted until the last block's verdict. */
    val waits: Boolean get() = sent.lastOrNull()?.waits ?: false

    /** Of each token that was sent its probability in the draft. */
    val chances: List<Double> get() = sent.flatMap { block -> block.proposed.map { it.chance } }

    /** Of each token, sent or not, whether it is an EOS. */
    val ends: List<Boolean> get() = (sent.flatMap { it.proposed } + block).map { it.ends }

    /** These follow what has been drafted. */
    fun append(proposed: List<Proposed>) {
        block = block + proposed
        size += proposed.size
        over = proposed.last().ends
    }

    /** The block is sent; another one begins. */
    fun take(waits: Boolean, whole: Double, sentS: Double, dueS: Double): Block =
        Block(block, waits, whole, sentS, dueS).also {
            sent += it
            block = emptyList()
        }

    /** The first [tokens], which are whole blocks, have become part of the history. */
    fun accept(tokens: Int) {
        size -= tokens
        over = over && size > 0
        var left = tokens
        while (left > 0) left -= sent.removeFirst().proposed.size
    }

    /** The epoch has been closed: whatever was drafted is void. */
    fun clear() {
        sent.clear()
        block = emptyList()
        size = 0
        over = false
    }
}
