package draftlink.drafting

import kotlin.math.ln

/**
 * Whether a draft has become another one: more is rejected than what it was would explain (docs/window.md, 2.4).
 * Page's cumulative sum: how much likelier the fates of the last tokens are if each is accepted half as often as
 * was foretold of it. What is rejected where the draft was sure says much, what it was unsure of next to nothing.
 */
internal class Refuted {
    private var sum = 0.0
    private var accepted = 0 // tokens since it was 0
    private var rejected = 0

    /** Tokens, each its chance and whether it stands, have been judged: [acceptance] is told, and of a change. */
    fun judged(acceptance: Acceptance, tokens: List<Pair<Double, Boolean>>) {
        for ((chance, stands) in tokens) {
            val foretold = minOf(acceptance.probability(chance), SUREST)
            sum += ln(if (stands) HALF else (1.0 - HALF * foretold) / (1.0 - foretold))
            if (stands) accepted++ else rejected++
            if (sum <= 0.0) clear()
        }
        for ((chance, stands) in tokens) acceptance.judged(chance, stands)
        if (sum < CERTAIN) return
        acceptance.restart(accepted, rejected)
        clear()
    }

    private fun clear() {
        sum = 0.0
        accepted = 0
        rejected = 0
    }

    private companion object {
        const val HALF = 0.5 // of what was foretold: the other draft that is looked for
        const val SUREST = 0.95 // as likely to be accepted as a token is taken to be, at the most
        val CERTAIN = ln(100.0) // so much likelier the other draft must have made it
    }
}
