package draftlink.drafting

/**
 * Whether drafting and the base station's steps slow one another (docs/window.md, 8.6): a step that wrote
 * tokens ended half a round trip before they came, so then it is known which forwards went on beside it.
 */
internal class Beside(private val draft: Work) {
    private class Forward(val begunS: Double, val endedS: Double, var besideS: Double = 0.0)

    private var forwards = listOf<Forward>()

    /** A forward has ended. */
    fun drafted(begunS: Double, endedS: Double) {
        forwards = (forwards + Forward(begunS, endedS)).takeLast(MOST)
    }

    /** What a step wrote has come. */
    fun stepped(now: Double, stepS: Double, rttS: Double) {
        val endedS = now - rttS / 2.0
        val begunS = endedS - stepS
        for (each in forwards) each.besideS += maxOf(0.0, minOf(each.endedS, endedS) - maxOf(each.begunS, begunS))
        val (open, over) = forwards.partition { it.endedS > endedS }
        for (each in over) {
            val tookS = each.endedS - each.begunS
            if (each.besideS <= CLEAR * tookS) draft.sorted(tookS, beside = false)
            else if (each.besideS >= (1.0 - CLEAR) * tookS) draft.sorted(tookS, beside = true)
        }
        forwards = open
    }

    private companion object {
        const val MOST = 64 // forwards that are not sorted yet
        const val CLEAR = 0.1 // of a forward, beside a step: as much, or all but as much, says nothing wrong
    }
}
