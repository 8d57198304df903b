package draftlink.device

import draftlink.transport.LinkState
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.StateFlow

/**
 * A conversation with a base station's help, as an app sees it: tokens as they come, who wrote each, and
 * what goes on meanwhile. [Device] is one with a draft model; a view model needs no more than this.
 */
interface Conversation : AutoCloseable {
    /** The ids of the conversation, prompts and texts, as far as they are certain. */
    val tokens: List<Int>

    /** Whether the base station can be heard. */
    val link: StateFlow<LinkState>

    /** What the text that is being written, or was written last, takes. */
    val live: StateFlow<Live>

    /** What the last text took, when it has ended. */
    val result: Result?

    /** Connects and greets. Throws [draftlink.transport.LinkException]. */
    suspend fun open()

    /**
     * The tokens behind a [prompt], which is all of the conversation's ids; those that it has in common
     * with what went before are not fed again. A flow that is left ends the text there, and one text is
     * written at a time. It throws [draftlink.transport.LinkException], and [IllegalArgumentException]
     * for what cannot be asked.
     */
    fun generate(prompt: List<Int>, options: Options = Options()): Flow<Token>

    /** Closes the connection. The draft model is its owner's. */
    override fun close()
}

/**
 * What a text takes, as it comes. [mode]: who writes now (`both`, `stop-and-wait`, `run-ahead`, `stream`;
 * empty before the first). [tokens] of the text, of which [drafted] came from the draft and [provisional]
 * do not stand yet. [alpha]: the share of drafted tokens that were right, of those that were looked at.
 * [rttS]: the round trip, in seconds; 0 before the first. Bytes are those of messages.
 */
data class Live(
    val mode: String = "",
    val tokens: Int = 0,
    val drafted: Int = 0,
    val provisional: Int = 0,
    val alpha: Double = 0.0,
    val tokensPerS: Double = 0.0,
    val rttS: Double = 0.0,
    val sentBytes: Long = 0,
    val receivedBytes: Long = 0,
    val reconnects: Int = 0,
)

/** Who a token comes from, for a person. */
enum class Who { DRAFTED, CORRECTED, WRITTEN, PROVISIONAL }

/** Where a token comes from; [who] is that for a person. */
enum class Kind(val who: Who) {
    /** The device drafted it, and the base station found it right. */
    DRAFT(Who.DRAFTED),

    /** The base station wrote it in the place of a drafted token, */
    CORRECTION(Who.CORRECTED),

    /** behind drafted tokens that were all right, or where nothing had been drafted, */
    BONUS(Who.WRITTEN),

    /** or alone. */
    STREAM(Who.WRITTEN),

    /** The draft's own, shown while nothing is heard of the base station. */
    PROVISIONAL(Who.PROVISIONAL),
}

/**
 * A token of the text. One of the kind [Kind.PROVISIONAL] may be taken back; every other one stands, and
 * comes in the place of the first provisional one, if there are any: it [confirms] that one, or
 * [takesBack] that many, which is all of them. Provisional tokens that are left when a text ends do not stand.
 */
data class Token(val id: Int, val kind: Kind, val confirms: Boolean = false, val takesBack: Int = 0)
