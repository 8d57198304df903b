package draftlink.drafting

/**
 * Whether drafting and the base station's steps slow one another (docs/window.md, 8.6): a step that wrote
 * tokens ended half a round trip before they came, so then it is known which forwards went on beside it.
 * And when the next step begins, if the base station goes on writing (8.3).
 */
internal class Beside(private val draft: Work) {
    private class Forward(val begunS: Double, val endedS: Double, var besideS: Double = 0.0)

    private var forwards = listOf<Forward>()
    private var toldS: Double? = null // when a step was heard of last

    /** A forward has ended. */
    fun drafted(begunS: Double, endedS: Double) {
        forwards = (forwards + Forward(begunS, endedS)).takeLast(MOST)
    }

    /** What a step wrote has come. */
    fun stepped(now: Double, stepS: Double, rttS: Double, askedS: Double?): Boolean {
        toldS = now
        val endedS = now - rttS / 2.0
        val begunS = endedS - stepS
        var disturbedS = if (askedS == null) 0.0 else maxOf(0.0, endedS - maxOf(askedS, begunS))
        for (each in forwards) {
            val sharedS = maxOf(0.0, minOf(each.endedS, endedS) - maxOf(each.begunS, begunS))
            each.besideS += sharedS
            disturbedS += sharedS
        }
        val (open, over) = forwards.partition { it.endedS > endedS }
        for (each in over) {
            val tookS = each.endedS - each.begunS
            if (each.besideS <= CLEAR * tookS) draft.sorted(tookS, beside = false)
            else if (each.besideS >= (1.0 - CLEAR) * tookS) draft.sorted(tookS, beside = true)
        }
        forwards = open
        return disturbedS <= CLEAR * stepS
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
        const val CLEAR = 0.1 // of a forward, beside a step: as much, or all but as much, says nothing wrong; nor of a step, beside forwards
    }
}
