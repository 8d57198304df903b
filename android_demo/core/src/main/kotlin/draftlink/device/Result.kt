package draftlink.device

/**
 * What a text took. [mode]: who wrote, in the order in which they did. [rounds]: verdicts, and steps of the
 * base station where both ends wrote. [drafted] tokens, of which [accepted] stand for having been proposed;
 * of the [looked] at, [right] were the text's. [histogram]: accepted tokens by their place behind the last
 * correction. [provisional]: tokens that were shown before they were judged, of which [takenBack] do not
 * stand. [followed]: tokens that came while nothing was proposed: it would have been late. [forwards] of the
 * target. Times in seconds; bytes are those of messages.
 */
data class Result(
    val tokens: List<Int>,
    val kinds: List<Kind>,
    val mode: String,
    val rounds: Int,
    val drafted: Int,
    val accepted: Int,
    val right: Int,
    val looked: Int,
    val histogram: List<Int>,
    val provisional: Int,
    val takenBack: Int,
    val followed: Int,
    val forwards: Int,
    val reconnects: Int,
    val sentBytes: Long,
    val receivedBytes: Long,
    val ttftS: Double,
    val tokensPerS: Double,
    val draftS: Double,
) {
    /** The share of drafted tokens that were right, of those that were looked at. */
    val alpha: Double get() = if (looked == 0) 0.0 else right.toDouble() / looked
}
