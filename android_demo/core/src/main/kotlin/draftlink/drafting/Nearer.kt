package draftlink.drafting

import kotlin.math.abs

/**
 * Whether a stream has come nearer (docs/window.md, 6.3). A message is late for many reasons, and early for
 * none: where one comes a good deal earlier than all before it would have it, and those behind it at the old
 * pace again, the way has become shorter.
 */
internal class Nearer {
    private val came = ArrayDeque<Double>()
    private var earlyS = 0.0 // by how much one was
    private var behind = 0 // messages that came behind it, at the old pace
    private var paceS = 0.0

    /**
     * A message has come, and a round trip is known to take [rttS]. By how much the way has become shorter,
     * if that is certain by now; else 0.
     */
    fun came(now: Double, rttS: Double): Double {
        val gapS = now - (came.lastOrNull() ?: now)
        val aheadS = if (earlyS == 0.0) expectedS() - now else 0.0
        came += now
        if (came.size > KEPT) came.removeFirst()
        if (earlyS != 0.0) return follows(gapS)
        val known = paceS > 0.0 && rttS > paceS // else steps are as uneven as what is looked for
        if (known && aheadS > maxOf(SHARE * paceS, LEAST * rttS) && aheadS <= MOST * rttS) {
            earlyS = aheadS
            behind = 0
        }
        return 0.0
    }

    private fun follows(gapS: Double): Double {
        val foundS = earlyS
        behind++
        val inTime = abs(gapS - paceS) <= SHARE * paceS // else it is the pace that has changed, or nothing has
        if (inTime && behind < NEXT) return 0.0
        restart()
        return if (inTime) foundS else 0.0
    }

    private fun restart() {
        val last = came.last()
        came.clear()
        came += last
        earlyS = 0.0
    }

    /** When the next message is due at the latest, were it as little late as any before. */
    private fun expectedS(): Double {
        val gaps = came.zipWithNext { before, after -> after - before }.sorted()
        paceS = if (gaps.size >= FEW) gaps[(gaps.size - 1) / 2] else 0.0
        return came.withIndex().minOfOrNull { (index, at) -> at + (came.size - index) * paceS } ?: 0.0
    }

    private companion object {
        const val KEPT = 16 // messages that are looked back on
        const val FEW = 4 // gaps that tell a pace
        const val SHARE = 0.2 // of the pace, by which a message must be early, and the next ones be in time
        const val NEXT = 2 // messages behind it that must
        const val LEAST = 0.125 // of the round trip: a message is early by more where its way is shorter,
        const val MOST = 0.55 // and by no more
    }
}
