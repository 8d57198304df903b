package draftlink.wire

import okio.ByteString

/** A message of the protocol. */
sealed interface Frame

/** A message that is sent for every block of tokens, and has a layout of its own. */
sealed interface Hot : Frame

/**
 * [length] drafted tokens for the positions from [base] on; [payload] is the scheme's
 * (docs/protocol.md, 3.3).
 *
 * [waits]: the device sends nothing more until the verdict, and the base station then writes one
 * token of its own behind what stands whole. [first]: the token that was owed (`split`). [had]: above
 * 0 it asks for what comes behind so many pairs.
 */
data class Draft(
    val epoch: Long,
    val base: Long,
    val length: Long,
    val payload: ByteString,
    val first: Int? = null,
    val waits: Boolean = true,
    val had: Long = 0,
) : Hot

/**
 * Of the drafts at and behind [base], [accepted] tokens stand, and [next] follows them (3.4).
 *
 * [queueUs], [verifyUs]: microseconds. [row]: what the device draws the token by that it then owes.
 * [surprisals]: a byte for each token; [logprobs]: see [Logprobs]. All three are empty where there
 * are none.
 */
data class Verdict(
    val epoch: Long,
    val base: Long,
    val accepted: Long,
    val next: Int?,
    val ended: Boolean,
    val queueUs: Long,
    val verifyUs: Long,
    val row: ByteString = ByteString.EMPTY,
    val surprisals: ByteString = ByteString.EMPTY,
    val logprobs: ByteString = ByteString.EMPTY,
) : Hot {
    /** Whether the epoch ends with it: something other than drafts was written, or is owed. */
    val closes: Boolean get() = next != null || ended || row.size > 0
}

/** Tokens that the base station wrote alone, for the positions from [base] on (3.5); the rest as in [Verdict]. */
data class Tokens(
    val epoch: Long,
    val base: Long,
    val ids: List<Int>,
    val ended: Boolean,
    val logprobs: ByteString = ByteString.EMPTY,
    val surprisals: ByteString = ByteString.EMPTY,
) : Hot

/**
 * [length] tokens of the path number [path], which begins at [base], where both ends write (3.6).
 *
 * [first] of the path's tokens were proposed before these; [known] tokens of the text had reached
 * the device. [goesOn]: more are to come though nothing else happens. [beside]: of each token how many
 * candidates the payload has beside it; empty where there are none. [behind]: they follow the token
 * that was proposed so many before the last.
 */
data class Propose(
    val path: Long,
    val base: Long,
    val known: Long,
    val first: Long,
    val length: Long,
    val payload: ByteString,
    val goesOn: Boolean = true,
    val beside: List<Int> = emptyList(),
    val behind: Long = 0,
) : Hot {
    /** Ids that are proposed, candidates among them. */
    val nodes: Long get() = length + beside.sum()

    /** The position behind the last of the tokens, if none branches off. */
    val end: Long get() = base + first + length
}

/**
 * Tokens of the text from [base] on, where both ends write: what a step came to (3.7).
 *
 * The first [accepted] of them had been proposed. [queueUs], [stepUs]: microseconds. [rows]: what the
 * target was fed; null for as many as there are ids, 0 for what is told once more.
 */
data class Written(
    val base: Long,
    val ids: List<Int>,
    val accepted: Long,
    val ended: Boolean,
    val queueUs: Long,
    val stepUs: Long,
    val surprisals: ByteString = ByteString.EMPTY,
    val rows: Long? = null,
    val logprobs: ByteString = ByteString.EMPTY,
) : Hot
