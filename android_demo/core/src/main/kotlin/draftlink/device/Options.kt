package draftlink.device

import draftlink.wire.Sampling
import draftlink.wire.Scheme
import java.math.BigInteger
import java.security.SecureRandom

/** Who writes a text, and how; in all of them it is the same one with `coupled`, and greedy. */
enum class Mode(val said: String) {
    /** What is fastest here: both ends where the text allows it, else by turns, as it is measured. */
    AUTO("auto"),

    /** Each end on its own: greedy and `coupled` only, at a base station that speaks it. */
    BOTH("both"),

    /** The device drafts, sends and waits. */
    STOP_AND_WAIT("stop-and-wait"),

    /** The device drafts on while verdicts are under way. */
    RUN_AHEAD("run-ahead"),

    /** The base station alone. */
    STREAM("stream"),
}

/**
 * What may be asked of a generation, apart from its prompt. [gamma]: tokens of a draft; null: as it is
 * measured. [eosIds]: null for those of the target's files. [seed]: of 64 bits; the same one brings the
 * same text. [offlineAfterS]: seconds of silence after which the draft goes on alone, in provisional
 * tokens; null: never.
 */
data class Options(
    val maxTokens: Int = 128,
    val sampling: Sampling = Sampling(),
    val scheme: Scheme = Scheme.Coupled,
    val mode: Mode = Mode.AUTO,
    val gamma: Int? = null,
    val seed: BigInteger? = null,
    val eosIds: List<Int>? = null,
    val offlineAfterS: Double? = null,
) {
    /** These, or the first fault. Throws [IllegalArgumentException]. */
    internal fun checked(): Options {
        sampling.check()
        require(maxTokens >= 1) { "max_tokens must be at least 1, not $maxTokens" }
        require(gamma == null || gamma in 1..MOST_GAMMA) { "gamma must be between 1 and $MOST_GAMMA, not $gamma" }
        require(offlineAfterS == null || (offlineAfterS >= 0.0 && offlineAfterS < Double.POSITIVE_INFINITY)) {
            "offline_after_s must be at least 0 seconds, not $offlineAfterS"
        }
        // Both ends draw from the seed with `coupled`, so there is one in any case.
        return if (seed == null && scheme is Scheme.Coupled) copy(seed = BigInteger(63, SecureRandom())) else this
    }

    private companion object {
        const val MOST_GAMMA = 64
    }
}
