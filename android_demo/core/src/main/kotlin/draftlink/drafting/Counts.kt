package draftlink.drafting

/**
 * What is fixed when a generation begins: positions and numbers of tokens (docs/window.md, 1).
 *
 * [begins]: the first position that is written, [ends]: behind the last. [context]: tokens that the draft
 * takes. [message], [flight]: drafted tokens that a message, and all without a verdict, hold at most.
 * [foretells]: a proposal is accepted exactly if the target's own token is the same. [corrects]: the device
 * draws the token in the place of a rejected one. [told]: a stream tells how likely its tokens were.
 */
internal data class Limits(
    val begins: Int,
    val ends: Int,
    val context: Int,
    val message: Int,
    val flight: Int,
    val foretells: Boolean,
    val corrects: Boolean,
    val told: Boolean = false,
) {
    /** Whether what would be accepted can be learned from a stream that the draft follows. */
    val follows: Boolean get() = foretells || told
}

/** How far the text has come: [length] tokens of history, after [rounds] verdicts. */
internal class Counts(val limits: Limits, var length: Int) {
    var rounds = 0

    /** Tokens that may still be written. */
    val left: Int get() = limits.ends - length

    /** Tokens behind the history that the draft can be fed, and that may still be written. At most 0 once it is full. */
    val room: Int get() = minOf(left, limits.context - length)
}
