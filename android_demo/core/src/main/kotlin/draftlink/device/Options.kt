package draftlink.device

import draftlink.wire.Sampling
import draftlink.wire.Scheme
import java.math.BigInteger
import java.security.SecureRandom

/**
 * What may be asked of a generation, apart from its prompt. [gamma]: tokens of a draft. [eosIds]: null
 * for those of the target's files. [seed]: of 64 bits; the same one brings the same text.
 */
data class Options(
    val maxTokens: Int = 128,
    val sampling: Sampling = Sampling(),
    val scheme: Scheme = Scheme.TopK(k = 8, total = 256, tiers = 7),
    val gamma: Int = 5,
    val seed: BigInteger? = null,
    val eosIds: List<Int>? = null,
) {
    /** These, or the first fault. Throws [IllegalArgumentException]. */
    internal fun checked(): Options {
        sampling.check()
        require(maxTokens >= 1) { "max_tokens must be at least 1, not $maxTokens" }
        require(gamma in 1..MOST_GAMMA) { "gamma must be between 1 and $MOST_GAMMA, not $gamma" }
        // Both ends draw from the seed with `coupled`, so there is one in any case.
        return if (seed == null && scheme is Scheme.Coupled) copy(seed = BigInteger(63, SecureRandom())) else this
    }

    private companion object {
        const val MOST_GAMMA = 64
    }
}

/** Who a token of the text comes from. */
enum class Kind { DRAFT, CORRECTION, BONUS, STREAM }

/** A token of the text. */
data class Token(val id: Int, val kind: Kind)

/**
 * What a text took. [rounds]: verdicts. [drafted], [accepted] tokens; [rejected] of those behind which
 * nothing of a draft was looked at. [histogram]: accepted tokens by their place in the draft.
 */
data class Result(
    val tokens: List<Int>,
    val rounds: Int,
    val drafted: Int,
    val accepted: Int,
    val rejected: Int,
    val histogram: List<Int>,
    val reconnects: Int,
    val sentBytes: Long,
    val receivedBytes: Long,
) {
    /** The share of drafted tokens that were accepted, of those that were looked at. */
    val alpha: Double get() = if (accepted + rejected == 0) 0.0 else accepted.toDouble() / (accepted + rejected)
}
