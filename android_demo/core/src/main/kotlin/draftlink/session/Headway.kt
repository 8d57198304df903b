package draftlink.session

import draftlink.wire.Draft
import draftlink.wire.Propose
import draftlink.wire.Start
import draftlink.wire.Verdict

/**
 * How far a generation has come, at one end: what outlives a connection (docs/protocol.md, 4).
 *
 * [length]: tokens of the history that both ends agree on. [epoch] goes up whenever something other
 * than a drafted token is written, or the mode changes. All counts are positions, of which each holds
 * one token once it is written.
 */
class Headway internal constructor(
    /** The number of the last generation. */
    val generation: Long = 0,
    epoch: Long = 0,
    length: Long = 0,
    written: Long = 0,
    /** What it began with. */
    val start: Start? = null,
    path: Long = 0,
) {
    var epoch = epoch
        internal set
    var length = length
        private set

    /** Tokens of this generation. */
    var written = written
        private set

    /** Of each draft that waits for a verdict the positions that it covers. */
    var drafts = listOf<Long>()
        private set

    /** The last of them waits. */
    var waits = false
        private set

    /** The first of them brings the token that was owed. */
    var first = false
        private set

    /** The device owes the token after a rejection. */
    var owed = false
        internal set

    /** Once the drafts have their verdicts the base station streams. */
    var switching = false
        internal set

    /** The frames that are sent again. */
    val frames = Numbering()

    /** Where both ends write: the session's newest path, */
    var path = path
        private set

    /** where it begins, */
    var pathBase = 0L
        private set

    /** its tokens so far (null: it does not go on), */
    var proposed: Long? = null
        private set

    /** and what of the text the device knew when the last of them were proposed. */
    var known = 0L
        private set

    /** How drafts are coded and judged, if there is a generation. */
    val rule: Rule? = start?.let { Rule(it.scheme, it.sampling.greedy) }

    /** Whether the draft in flight asks for more of what the owed token is drawn by. */
    val asks: Boolean get() = owed && drafts.isNotEmpty()

    /** Positions in flight. */
    val flight: Long get() = drafts.sum()

    /** The base of the next draft. */
    val expected: Long get() = length + flight

    /** Tokens of which both ends know; one that was owed may still be under way. */
    val agreed: Long get() = length - if (first) 1 else 0

    /** Tokens that may still be written. */
    val left: Long get() = (start?.maxTokens ?: written) - written

    /** The most frames that the base station can have to send: tokens, verdicts and a switch. */
    internal val outstanding: Long get() = left + drafts.size + 1

    internal fun grow(count: Long) {
        length += count
        written += count
    }

    /** What was written behind so many tokens did not arrive, and is told again. */
    internal fun rewind(length: Long) = grow(length - this.length)

    /** What was proposed last may not have arrived: whatever comes begins a new path. */
    internal fun leavePath() {
        proposed = null
    }

    internal fun propose(frame: Propose) {
        path = frame.path
        pathBase = frame.base
        known = frame.known
        proposed = frame.first + frame.length
    }

    /** A draft is sent or received, and what was owed with it, unless it asks for that. */
    internal fun draft(frame: Draft) {
        if (frame.had == 0L) {
            first = first || owed
            if (owed) grow(1)
            owed = false
        }
        drafts = drafts + frame.length
        waits = frame.waits || frame.had != 0L
    }

    internal fun judge(verdict: Verdict) {
        grow(verdict.emitted)
        first = false
        owed = verdict.row.size > 0
        if (verdict.closes) {
            epoch++
            drafts = emptyList()
        } else {
            var left = verdict.accepted
            var whole = 0
            while (left > 0) left -= drafts[whole++]
            drafts = drafts.drop(whole)
        }
        if (drafts.isEmpty()) {
            waits = false
            if (switching && !verdict.ended) epoch++
        }
    }
}

/** Tokens that a verdict adds to the text. */
internal val Verdict.emitted: Long get() = accepted + if (next != null) 1 else 0
