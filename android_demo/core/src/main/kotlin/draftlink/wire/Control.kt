package draftlink.wire

import okio.ByteString
import java.math.BigInteger

/** A message that is said rarely: a msgpack map (docs/protocol.md, 3.1, which has each key's meaning). */
sealed interface Control : Frame

/** First from the device: what it is, and what it speaks. */
data class Hello(
    val version: Long,
    val tokenizerHash: String,
    val vocabSize: Long,
    val schemes: List<String>,
    val agent: String,
    val ticket: ByteString = ByteString.EMPTY,
    val lowest: Long = 0,
    val features: List<String> = emptyList(),
) : Control

/** The base station's answer: what it is, and which of the device's versions is spoken. */
data class Welcome(
    val version: Long,
    val tokenizerHash: String,
    val vocabSize: Long,
    val context: Long,
    val schemes: List<String>,
    val model: String,
    val dtype: String,
    val ticket: ByteString = ByteString.EMPTY,
    val features: List<String> = emptyList(),
    val frameEntries: Long = FRAME_ENTRIES,
    val flightEntries: Long = FLIGHT_ENTRIES,
    val eosIds: List<Int> = emptyList(),
    val bosIds: List<Int> = emptyList(),
    val suppressedIds: List<Int> = emptyList(),
    val sampling: Sampling? = null,
    val unapplied: List<String> = emptyList(),
    val stepUs: Long = 0,
    val rowUs: Long = 0,
) : Control {
    companion object {
        const val FRAME_ENTRIES = 1L shl 15
        const val FLIGHT_ENTRIES = 1L shl 17
    }
}

/** The base station will not go on; [reason] is for a person. */
data class Refused(val code: String, val reason: String, val retryAfterS: Long? = null) : Control {
    companion object {
        /** The [code] for a draft whose tokenizer is not the target's. */
        const val TOKENIZER = "tokenizer"
    }
}

/** A generation begins: keep [base] tokens of the history, append [ids]. */
data class Start(
    val generation: Long,
    val base: Long,
    val ids: List<Int>,
    val sampling: Sampling,
    val scheme: Scheme,
    val mode: String,
    val maxTokens: Long,
    val eosIds: List<Int>,
    val seed: BigInteger?,
    val surprisals: Boolean = false,
    val suppressedIds: List<Int>? = null,
    val logprobs: Long? = null,
    val turns: Boolean? = null,
    val streamedSurprisals: Boolean? = null,
) : Control {
    /** The position of the first token that the generation writes. */
    val begins: Long get() = base + ids.size
}

/** The device ends a generation early: roll back to [keep] tokens of history. */
data class Finish(val generation: Long, val keep: Long) : Control

/** Finish is carried out. */
data class Done(val generation: Long, val length: Long, val epoch: Long) : Control

/** From here on the base station streams ([mode] `stream`), or the device drafts (`draft`). */
data class Switch(val generation: Long, val mode: String) : Control

/** The stream has stopped; drafts start at [base], in [epoch]. */
data class Switched(val generation: Long, val epoch: Long, val base: Long) : Control

/** The device goes on with a generation after a lost connection. [digest]: 16 bytes. */
data class Resume(
    val start: Start,
    val epoch: Long,
    val length: Long,
    val digest: ByteString,
    val owes: Boolean,
    val seen: Long,
) : Control

/** The base station has had [handled] numbered frames; [replay]: it knows nothing any more. */
data class Resumed(val generation: Long, val handled: Long, val replay: Boolean) : Control

/** The history that both ends had agreed on. */
data class Replay(val generation: Long, val ids: List<Int>) : Control

/** What is due is still under way: [fed] of [total] tokens, [ahead] rounds before it. */
data class Progress(val generation: Long, val fed: Long, val total: Long, val ahead: Long) : Control
