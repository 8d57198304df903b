package draftlink.drafting

import draftlink.planning.Theory
import kotlin.math.ceil
import kotlin.math.ln
import kotlin.math.pow

/**
 * What pays while both ends write (docs/window.md, 8.2): the length of a turn, of a group, of the window, and
 * whether. Of one generation. [gamma]: the length of a turn, if the caller has fixed it. [shared], [toldS],
 * [toldRowS], [price]: see [Paths].
 */
internal class Worth(
    private val estimates: Estimates,
    private val gamma: Int?,
    private val shared: Boolean,
    private val toldS: Double,
    private val toldRowS: Double,
    private val price: Double,
) {
    private val between = Level() // of a turn, what is neither drafting nor the step

    /** Hardly anything that is proposed comes to be accepted. */
    var rare = false

    /** The draft's forwards slow the steps of a base station at an address here. */
    private var slowed = false

    /** Turns are taken to see whether both ends slow one another. */
    var tries = false
        private set

    /** Whether both ends take turns. */
    val turns: Boolean get() = shared || slowed || tries || estimates.draft.slowdown > 1.0

    /**
     * A step's times are known: whether it is seen at an address here that forwards slow them. Turns are tried
     * where it takes them to compare, and they cost little; who [follows] does not.
     */
    fun told(slows: Boolean, follows: Boolean) {
        slowed = slows
        val cheap = !shared && CHEAP * estimates.rtt.typical <= estimates.draft.typical
        tries = cheap && !follows && estimates.draft.lacks
    }

    /** A forward of the draft's; 0 if that is not known. */
    val draftS: Double get() = estimates.draft.meanS(!turns, estimates.draft.slowdown)

    /** A step of the base station's; 0 if that is not known. */
    val verifyS: Double get() = estimates.verifyS.takeIf { it != 0.0 } ?: toldS

    /** A turn is over: what it took beside the draft's forwards and the step. */
    fun turned(betweenS: Double) {
        between.add(betweenS)
    }

    /** A round trip; in turns all that one takes beside drafting and the step, once it is known. */
    private val tripS: Double get() = if (between.size >= SEEN) between.typical else estimates.rtt.mean

    private val stepS: Double get() = estimates.rows.meanS.takeIf { it != 0.0 } ?: verifyS

    /** What each proposed token adds to a step, which is no more than a step without any; and what that takes. */
    private val eachS: Double
        get() = minOf(estimates.rows.eachS(toldRowS), stepS / (1.0 + estimates.rows.tokens))

    private val loneS: Double get() = stepS - estimates.rows.tokens * eachS

    /** Tokens that are drafted before the base station gives up waiting for them. */
    private val inTime: Int
        get() {
            if (!turns) return Controller.LONGEST
            return ((WAITS * loneS - tripS) / draftS).toInt().coerceIn(1, Controller.LONGEST)
        }

    /** Tokens that are proposed at once. */
    val group: Int get() = group(estimates.acceptance.alpha)

    private fun group(alpha: Double): Int {
        if (gamma != null) return gamma
        if (draftS == 0.0 || verifyS == 0.0 || (turns && unsure)) return EARLY
        val pays = minOf(Theory.bestDraftLength(alpha, tripS + loneS, draftS + eachS, inTime), deep)
        if (turns) return if (estimates.rows.tokens == 0.0) minOf(pays, EARLY) else pays
        return maxOf(1, minOf(pays, Math.rint(verifyS / (2.0 * draftS)).toInt()))
    }

    /** Tokens of a path that may be ahead of the text as the device knows it. */
    val most: Int get() = ahead(minOf(Math.rint(1.0 / (1.0 - estimates.acceptance.alpha)).toInt(), Controller.LONGEST))

    /** The same where a base station may be waiting for so many. */
    private fun ahead(waits: Int): Int {
        if (turns || draftS == 0.0 || rare) return group
        val underWay = ceil((estimates.rtt.mean + verifyS) / draftS)
        return minOf(MOST.toDouble(), maxOf(group, waits) + underWay, maxOf(group, deep).toDouble()).toInt()
    }

    /** Tokens of a path of which the last still saves its price, if it comes in time. */
    private val deep: Int
        get() = if (price <= 0.0) MOST else (ln(price) / ln(estimates.acceptance.alpha)).toInt().coerceIn(1, MOST)

    /** Hardly anything is known of what things cost. */
    val unsure: Boolean get() = estimates.draft.size < SEEN || verifyS == 0.0

    /**
     * Whether a path that is begun now saves its price, at an acceptance rate: token j of it is in time for
     * a step if j times what a step takes longer than a draft makes up for the round trip and a step. In
     * turns nothing is overtaken, if the base station waits: it does where a turn brings more than its own steps.
     */
    fun pays(alpha: Double): Boolean {
        if (unsure || tries || price <= 0.0 || (turns && gamma != null)) return true
        if (turns) {
            val tokens = group(alpha)
            val turnS = tripS + loneS + tokens * (draftS + eachS)
            return Theory.expectedTokens(alpha, tokens) * loneS >= turnS
        }
        val lateS = estimates.rtt.mean + verifyS
        val savesS = verifyS - draftS
        val window = ahead(0)
        if (savesS <= 0.0 || window < lateS / verifyS) return false // by so much the text is ahead
        val tokens = alpha.pow(lateS / savesS) / (1.0 - alpha)
        return tokens * savesS / verifyS >= BEGUN * price * window
    }

    private companion object {
        const val BEGUN = 1.25 // times the price: a path goes on until it is known to be wrong
        const val MOST = 64 // tokens of a path that the text has not reached at the device
        const val EARLY = 4 // tokens that are proposed before anything is known of times, or in turns of rows
        const val WAITS = 2.5 // steps in which a turn is to be over: a base station waits for four at the most
        const val CHEAP = 4.0 // round trips that a forward takes at least, for turns to cost little more than it
        const val SEEN = 3 // forwards, before which it is not judged whether drafting pays: the first may be slow
    }
}
