package draftlink.drafting

import kotlin.math.sqrt

/**
 * What a verification takes longer for each token of a block that waited (2.2): least squares over the last
 * ones, and over steps without a block.
 */
internal class Rows {
    private val blocks = ArrayDeque<Pair<Int, Double>>()
    private val alone = ArrayDeque<Pair<Int, Double>>() // few of them: there may be many, and all say the same

    /** Their mean number. */
    var tokens = 0.0
        private set

    /** What they take. */
    var meanS = 0.0
        private set

    private var product = 0.0
    private var spread = 0.0

    /** The seconds of one without any token; 0 before the first. */
    val loneS: Double get() = meanS - minOf(tokens * tokenS, meanS)

    /** The seconds that each adds; 0 as long as nothing tells. */
    val tokenS: Double get() = eachS(0.0)

    /** The same, where [toldS] is said as long as blocks hardly differ. */
    fun eachS(toldS: Double): Double =
        (blocks.size + alone.size).let { if (it == 0) toldS else maxOf(0.0, (product + it * toldS) / (spread + it)) }

    /** What is measured from here on is something else. */
    fun forget() {
        blocks.clear()
        alone.clear()
        tokens = 0.0
        meanS = 0.0
    }

    /** A block of so many [tokens]. A stall counts as twice the typical time at the most. */
    fun add(tokens: Int, seconds: Double) {
        val kept = if (tokens > 0) blocks else alone
        kept += tokens to seconds
        if (kept.size > if (tokens > 0) Level.KEPT else ALONE) kept.removeFirst()
        val samples = alone + blocks
        val number = samples.size
        val most = LATE * samples.map { it.second }.sorted()[(number - 1) / 2]
        this.tokens = samples.sumOf { it.first }.toDouble() / number
        meanS = samples.sumOf { minOf(it.second, most) } / number
        spread = samples.sumOf { (n, _) -> (n - this.tokens) * (n - this.tokens) }
        product = samples.sumOf { (n, s) -> (n - this.tokens) * (minOf(s, most) - meanS) }
    }

    private companion object {
        const val LATE = 2.0
        const val ALONE = 8
    }
}

/** How likely a drafted token is to be accepted, if the tokens before it are (2.3). */
internal class Acceptance {
    private var accepted = 0.0
    private var rejected = 0.0
    private var squares = 0.0 // of the shares that [accepted] is the sum of
    private val acceptedOf = IntArray(MIDDLES.size) // by the draft's own probability for a token
    private val judgedOf = IntArray(MIDDLES.size)

    /** A token to which the draft gave the probability [chance] is, or is not, the text's. */
    fun judged(chance: Double, stands: Boolean) {
        val kind = kind(chance)
        if (stands) acceptedOf[kind]++
        judgedOf[kind]++
        told(if (stands) 1.0 else 0.0)
    }

    /** The target drew a token by itself, of which a draft's own would have kept this [share]. */
    fun told(share: Double) {
        accepted = Level.MEMORY * accepted + share
        rejected = Level.MEMORY * rejected + 1.0 - share
        squares = Level.MEMORY * squares + share * share
    }

    /** A text begins, an easier or a harder one than those before, which weigh as much as some of its tokens. */
    fun begin() {
        val kept = minOf(1.0, (TEXT + PRIOR_ACCEPTED + PRIOR_REJECTED) / total)
        accepted = kept * (accepted + PRIOR_ACCEPTED) - PRIOR_ACCEPTED
        rejected = kept * (rejected + PRIOR_REJECTED) - PRIOR_REJECTED
        squares = kept * (squares + PRIOR_ACCEPTED) - PRIOR_ACCEPTED
    }

    /**
     * Of the last tokens so many were [accepted], and so many [rejected]: a draft has changed. They were picked for
     * what became of them; all that was noted before weighs as much (2.4).
     */
    fun restart(accepted: Int, rejected: Int) {
        val last = (accepted + rejected).toDouble()
        val kept = last / maxOf(weight, last)
        this.accepted = kept * this.accepted + accepted
        this.rejected = kept * this.rejected + rejected
        squares = kept * squares + accepted
        acceptedOf.fill(0)
        judgedOf.fill(0)
    }

    /** How likely a token is to be accepted that the draft gave the probability [chance]. */
    fun probability(chance: Double): Double {
        val kind = kind(chance)
        val wrong = minOf(UNSURE * (1.0 - MIDDLES[kind]) * (1.0 - alpha), 1.0)
        return (acceptedOf[kind] + PRIOR * (1.0 - wrong)) / (judgedOf[kind] + PRIOR)
    }

    val weight: Double get() = accepted + rejected // judged tokens that the estimate rests on
    /** The rate per judged token; never 0 or 1. */
    val alpha: Double get() = (accepted + PRIOR_ACCEPTED) / total

    /** The standard deviation of [alpha]: of tokens that were judged that of the Beta law that it is the mean of. */
    val error: Double
        get() = sqrt(maxOf((squares + PRIOR_ACCEPTED) / total - alpha * alpha, 0.0) / (total + 1.0))

    private val total get() = weight + PRIOR_ACCEPTED + PRIOR_REJECTED

    private fun kind(chance: Double) = EDGES.count { chance >= it }

    private companion object {
        val EDGES = doubleArrayOf(0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.97)
        val MIDDLES = (listOf(0.0) + EDGES.toList() + 1.0).zipWithNext { low, high -> (low + high) / 2.0 }
        const val UNSURE = 1.5 // times as often as all tokens are those rejected that the draft gave next to nothing
        const val TEXT = 30.0 // judged tokens as which all before a text weigh, at the most
        const val PRIOR = 4.0 // as if so many tokens of each chance had been judged before the first,
        const val PRIOR_ACCEPTED = 3.0 // and of all so many accepted,
        const val PRIOR_REJECTED = 1.0 // and so many not
    }
}

/** All that the choice of a mode rests on. A device keeps one for its connection, and [acceptance] for each kind of request. */
internal class Estimates(
    val rtt: Level = Level(Level.PUNCTUAL),
    val draft: Work = Work(), // one forward of one token
    val verify: Work = Work(), // one verification, from its first step on
    val rows: Rows = Rows(), // and what of it each token takes
    val queue: Level = Level(), // what a draft waited before it
    val target: Level = Level(), // between two tokens of a stream
    val acceptance: Acceptance = Acceptance(),
    var toldStepS: Double = 0.0, // what the base station says that a step takes it; 0: it does not
) {
    /** The same ones, for requests of which this much is accepted. */
    fun of(acceptance: Acceptance) = Estimates(rtt, draft, verify, rows, queue, target, acceptance, toldStepS)

    /** Both ends may have slowed one another, and from here on they take turns. */
    fun undisturbed() {
        if (verify.size > 0) verify.became(verify.aloneS.takeIf { it != 0.0 } ?: (verify.mean / draft.slowdown))
        rows.forget()
    }

    /** Between two tokens of a stream, which makes up for stalls; 0 while nothing tells. */
    val streamS: Double
        get() {
            val said = if (target.typical != 0.0) target.typical else maxOf(toldStepS, rows.loneS)
            return if (said != 0.0) said else verify.mean
        }

    /** A verification; before the first one, what the target takes for a token. */
    val verifyS: Double get() = if (verify.size > 0) verify.mean else streamS

    /** A forward and a verification, if the two go on at once ([beside]) or in turns. */
    fun costsS(beside: Boolean): Pair<Double, Double> {
        val slowdown = draft.slowdown // the other end's too
        val verifies = verify.meanS(beside, slowdown)
        return draft.meanS(beside, slowdown) to if (verifies != 0.0) verifies else verifyS
    }

    /** A round of stop-and-wait: what it costs whatever its length, and each drafted token (3.1). */
    fun roundS(): Pair<Double, Double> {
        val (draftS, verifyS) = costsS(beside = false)
        val rowsS = minOf(rows.tokens * rows.tokenS, verifyS)
        return rtt.mean + verifyS - rowsS to draftS + rows.tokenS
    }

    /** By how much a message is late on average, one way: lost packets come again, and later. */
    val stallS: Double get() = rtt.excess / 2.0
}
