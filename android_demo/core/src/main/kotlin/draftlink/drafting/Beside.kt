package draftlink.drafting

/**
 * Whether drafting and the base station's steps slow one another (docs/window.md, 8.6): a step that wrote
 * tokens ended half a round trip before they came, so then it is known which forwards went on beside it.
 * And when the next step begins, if the base station goes on writing (8.3).
 */
internal class Beside(private val draft: Work) {
    /** When something began, and when it ended. [one]: a forward of one token, which tells what such a one takes. */
    private class Span(val begunS: Double, val endedS: Double, val one: Boolean = false) {
        val tookS: Double get() = endedS - begunS

        /** What two have in common, in seconds. */
        fun common(other: Span) = maxOf(0.0, minOf(endedS, other.endedS) - maxOf(begunS, other.begunS))
    }

    private var forwards = listOf<Span>() // those that are not sorted yet
    private var steps = listOf<Span>() // the last ones
    private var toldS: Double? = null // when a step was heard of last
    private val clear = Level() // what steps of one row take alone,
    private val slowed = Level() // and beside forwards

    /** The draft's forwards slow the base station's steps, as on one machine they do. */
    val slows: Boolean get() = minOf(clear.size, slowed.size) >= FEW && slowed.typical >= SLOWS * clear.typical

    /** A forward has ended. [one]: of a token. */
    fun drafted(begunS: Double, endedS: Double, one: Boolean = true) {
        forwards = (forwards + Span(begunS, endedS, one)).takeLast(MOST)
    }

    /** What a step wrote has come. */
    fun stepped(now: Double, stepS: Double, rttS: Double, askedS: Double?, rows: Int): Boolean {
        toldS = now
        val endedS = now - rttS / 2.0
        val step = Span(endedS - stepS, endedS)
        steps = (steps + step).takeLast(STEPS)
        val underWayS = if (askedS == null) 0.0 else step.common(Span(askedS, endedS))
        val disturbedS = underWayS + forwards.sumOf { step.common(it) }
        val (open, over) = forwards.partition { it.endedS > endedS }
        over.filter { it.one }.forEach(::sort)
        forwards = open
        val alone = disturbedS <= CLEAR * stepS
        if (rows == 1) (if (alone) clear else slowed).add(stepS)
        return alone
    }

    /** Whether a [forward] was beside steps is known: another step has ended behind it. */
    private fun sort(forward: Span) {
        if (forward.begunS < steps[0].begunS) return // what was beside it before that nobody has told
        val tookS = forward.tookS
        val besideS = steps.sumOf { it.common(forward) }
        if (besideS <= CLEAR * tookS) {
            draft.sorted(tookS, beside = false)
        } else if (besideS >= (1.0 - CLEAR) * tookS) {
            draft.sorted(tookS, beside = true)
        } else if (besideS <= MIXED * draft.besideS) { // what was left of it was done alone
            draft.sorted((tookS - besideS) / (1.0 - besideS / draft.besideS), beside = false)
        }
    }

    /**
     * Whether a step begins before what is sent at [readyS] is there, but not before what is sent now; of a
     * base station that goes on writing.
     */
    fun misses(now: Double, readyS: Double, stepS: Double, rttS: Double): Boolean {
        val intoS = (now + rttS + MARGIN * stepS - (toldS ?: return false)) % stepS
        return intoS + readyS - now > stepS
    }

    private companion object {
        const val MARGIN = 0.02 // of a step: so long before it begins a proposal should be there
        const val MOST = 64 // forwards that are not sorted yet
        const val MIXED = 0.5 // of what a forward takes beside a step: as much may be, for the rest to tell
        const val SLOWS = 1.2 // times as long as alone steps take beside forwards, from which on these slow them
        const val FEW = 2 // steps of each kind that tell it
        const val STEPS = 8 // that are looked back on
        const val CLEAR = 0.1 // of a forward, beside a step: as much, or all but as much, says nothing wrong; nor of a step, beside forwards
    }
}
