package draftlink.planning

import kotlin.math.expm1
import kotlin.math.floor
import kotlin.math.ln
import kotlin.math.ln1p
import kotlin.math.sqrt

/**
 * What a round of stop-and-wait brings, and its best length, where each token is accepted with the same
 * probability (docs/window.md, 3; arXiv 2211.17192).
 */
internal object Theory {
    private const val NEAR = 1e-8 // of the branch point, where a difference has no digits left
    private const val PRECISE = 1e-15

    /** Tokens that a round of [gamma] writes at an acceptance [alpha] from 0 to 1: (1 − α^(γ+1)) / (1 − α). */
    fun expectedTokens(alpha: Double, gamma: Int): Double {
        require(alpha in 0.0..1.0 && gamma >= 0) { "alpha $alpha, gamma $gamma" }
        if (alpha == 1.0) return gamma + 1.0
        if (alpha == 0.0) return 1.0
        // expm1, because for alpha close to 1 the plain difference has no digits left.
        return -expm1((gamma + 1) * ln(alpha)) / (1.0 - alpha)
    }

    /** −1 − W₋₁(−e^(−1−excess)): how far W₋₁ is below its branch point, the argument as a logarithm. */
    private fun lambert(excess: Double): Double {
        require(excess >= 0.0 && excess < Double.POSITIVE_INFINITY) { "W₋₁ is not real at an excess of $excess" }
        if (excess < NEAR) {
            val root = sqrt(2.0 * excess)
            return root * (1.0 + root / 3.0 + root * root / 36.0)
        }
        // An upper bound (arXiv 1601.04895, theorem 1), from which Newton falls monotonically.
        var d = sqrt(2.0 * excess) + excess
        repeat(50) {
            val step = (d - ln1p(d) - excess) * (1.0 + d) / d
            d -= step
            if (Math.abs(step) <= PRECISE * d) return d
        }
        return d
    }

    /**
     * The length from 1 to [longest] with the most tokens a second, where a round costs [fixedS] seconds
     * whatever its length, and each of its tokens [draftS]: the better of floor and ceiling of
     * γ₀ = (1 + W₋₁(−α^τ/e)) / ln α − τ − 1 with τ = fixedS / draftS − 1.
     */
    fun bestDraftLength(alpha: Double, fixedS: Double, draftS: Double, longest: Int): Int {
        require(alpha in 0.0..1.0 && fixedS >= 0.0 && draftS >= 0.0) { "alpha $alpha, costs $fixedS and $draftS s" }
        // For τ ≤ 0 no length beats 1: E(γ+1) / E(γ) ≤ 1 + 1/(γ+1) ≤ the ratio of costs.
        if (alpha == 0.0 || (fixedS <= draftS && draftS > 0.0)) return 1
        val tau = if (draftS > 0.0) fixedS / draftS - 1.0 else Double.POSITIVE_INFINITY
        if (alpha == 1.0 || tau == Double.POSITIVE_INFINITY) return longest
        val decay = -ln(alpha)
        // The closed form with d − u = ln(1 + d) put in: the large terms cancel on paper.
        val gamma = ln1p(lambert(decay * tau)) / decay - 1.0
        if (gamma >= longest) return longest
        val least = maxOf(1, floor(gamma).toInt())
        // least + 1 and not the ceiling: rounding may have put γ₀ just below a whole number.
        val candidates = if (least < longest) listOf(least, least + 1) else listOf(least)
        return candidates.maxBy { expectedTokens(alpha, it) / (fixedS + it * draftS) }
    }
}
