package draftlink.planning

import kotlin.math.ceil
import kotlin.math.ln
import kotlin.math.pow

/** What things cost in run-ahead, in seconds: a forward of the draft, a verification, the round trip. */
internal data class Costs(val draftS: Double, val verifyS: Double, val rttS: Double)

/** An epoch's blocks: [first] tokens, then always what is there when the verifier is free. [tokenS]: seconds a token. */
internal data class Schedule(val first: Int, val tokenS: Double) {
    companion object {
        private const val LONGEST = 64 // tokens of a block
        private const val FIRST = 16 // of the first one
        private const val NEGLIGIBLE = 1e-4 // probability of an epoch that lasts longer than what is summed up
        private const val MOST_DRAFTED = 1000
        private const val EDGE = 1e-9 // a token is there at its time, whatever a quotient's last bits are
        private const val KEPT = 256
        private const val US = 1e-6

        /**
         * Expected seconds a token of epochs that begin with a block of [first] tokens (docs/window.md,
         * 3.2). [restartS]: from the correction's arrival until drafting begins anew; [stallS]: by how
         * much each later block's message puts off the correction.
         */
        private fun blockTime(alpha: Double, first: Int, costs: Costs, restartS: Double, stallS: Double): Double {
            val backS = costs.rttS + restartS
            var seconds = 0.0
            var tokens = 0.0
            var reached = 1.0
            var drafted = 0
            var count = first
            var freeS = 0.0
            while (true) {
                freeS = maxOf(freeS, (drafted + count) * costs.draftS) + costs.verifyS
                val allStand = alpha.pow(count)
                // Accepted, and the correction if there is one: a round's tokens less the bonus token.
                tokens += reached * (Theory.expectedTokens(alpha, count) - allStand)
                seconds += reached * (1.0 - allStand) * (freeS + backS)
                reached *= allStand
                seconds += reached * stallS
                drafted += count
                if (reached < NEGLIGIBLE || drafted > MOST_DRAFTED) break
                count = there(freeS, costs, drafted)
            }
            // The epoch is over here for certain: what is left out is less than NEGLIGIBLE of it.
            return (seconds + reached * (freeS + backS)) / (tokens + reached)
        }

        private fun there(freeS: Double, costs: Costs, drafted: Int) =
            ((freeS / costs.draftS + EDGE).toInt() - drafted).coerceIn(1, LONGEST)

        /** Seconds of an epoch as in [blockTime] whose token number [tokens] is rejected (3.3). */
        fun epochTime(tokens: Int, first: Int, costs: Costs, restartS: Double, stallS: Double): Double {
            var drafted = 0
            var count = first
            var freeS = 0.0
            var stallsS = 0.0
            while (true) {
                freeS = maxOf(freeS, (drafted + count) * costs.draftS) + costs.verifyS
                drafted += count
                if (drafted >= tokens) return freeS + costs.rttS + restartS + stallsS
                stallsS += stallS
                count = there(freeS, costs, drafted)
            }
        }

        private data class Rounded(val alpha: Int, val draft: Long, val verify: Long, val rtt: Long, val stall: Long)

        private val kept = object : LinkedHashMap<Rounded, Schedule>(KEPT, 0.75f, true) {
            override fun removeEldestEntry(eldest: MutableMap.MutableEntry<Rounded, Schedule>?) = size > KEPT
        }

        /** The schedule with the least time a token, at estimates that are rounded: made once as long as they hardly move. */
        fun planned(alpha: Double, draftS: Double, verifyS: Double, rttS: Double, stallS: Double): Schedule {
            val key = Rounded(
                Math.rint(100 * alpha).toInt(), rounded(draftS), rounded(verifyS), rounded(rttS),
                if (stallS > 0.0) rounded(stallS) else 0,
            )
            return synchronized(kept) { kept.getOrPut(key) { best(key) } }
        }

        private fun best(key: Rounded): Schedule {
            val costs = Costs(key.draft * US, key.verify * US, key.rtt * US)
            val times = (1..FIRST).associateWith {
                blockTime(key.alpha / 100.0, it, costs, costs.draftS / 2.0, key.stall * US)
            }
            return times.minBy { it.value }.let { Schedule(it.key, it.value) }
        }

        /** Microseconds to two digits, at least 1. */
        private fun rounded(seconds: Double): Long {
            val whole = maxOf(1L, Math.rint(seconds * 1e6).toLong())
            var unit = 1L
            while (whole / unit >= 100) unit *= 10
            return Math.rint(whole.toDouble() / unit).toLong() * unit
        }

        /** Tokens into an epoch that only [share] of all epochs reach, α^n = share. */
        fun depth(alpha: Double, share: Double): Int = ceil(ln(share) / ln(alpha)).toInt()
    }
}
