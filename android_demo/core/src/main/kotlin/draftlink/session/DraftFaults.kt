package draftlink.session

import draftlink.session.Faults.unless
import draftlink.wire.Draft
import draftlink.wire.Verdict
import okio.ByteString

/** What is wrong with drafts and verdicts whose epoch and base are right (docs/protocol.md, 4.2 to 4.5): see [Faults]. */
internal object DraftFaults {
    fun draft(session: Standing, frame: Draft): String? {
        val headway = session.headway
        if (frame.length > Rule.MAX_DRAFT) return "${frame.length} drafted tokens, where ${Rule.MAX_DRAFT} is the most"
        if (frame.length == 0L && (headway.drafts.isNotEmpty() || !frame.waits)) {
            return "an empty draft that does not wait, or behind others"
        }
        val flight = headway.flight + frame.length
        if (flight > Rule.MAX_IN_FLIGHT) return "more than ${Rule.MAX_IN_FLIGHT} drafted tokens without a verdict"
        // From the head alone: what the payload makes this end decode is bounded before it is looked at.
        val welcome = session.welcome!!
        val entries = headway.rule!!.entries(welcome.vocabSize.toInt())
        if (frame.length * entries > welcome.frameEntries || flight * entries > welcome.flightEntries) {
            return "${frame.length} drafted tokens, $flight without a verdict, of up to $entries entries each, where" +
                " ${welcome.frameEntries} and ${welcome.flightEntries} entries are the most"
        }
        return if (frame.had != 0L) asks(headway, frame) else first(session, frame)
    }

    private fun first(session: Standing, frame: Draft): String? {
        val headway = session.headway
        if ((frame.first != null) != headway.owed) {
            return if (headway.owed) "the token after a rejection is owed" else "no token is owed"
        }
        val first = frame.first ?: return null
        if (first !in 0 until session.vocabSize) return "the first token $first is out of range"
        // One that ends the text comes with no draft behind it; the device finishes instead.
        return unless(first !in headway.start!!.eosIds && headway.left >= 2) {
            "the token that was owed ends the generation, and a draft follows it"
        }
    }

    /** The fault of a draft that asks for more pairs, or the row, to correct by. */
    private fun asks(headway: Headway, frame: Draft): String? {
        if (!headway.owed || headway.drafts.isNotEmpty()) return "what a token is drawn by is asked for, and no token is owed"
        if (frame.length != 0L || frame.payload.size > 0 || frame.first != null || !frame.waits) {
            return "a draft that asks for what a token is drawn by, and brings something"
        }
        val most = headway.rule!!.recovers
        return unless(frame.had <= most) { "${frame.had} pairs of at most $most have been had" }
    }

    fun verdict(session: Standing, frame: Verdict): String? {
        val headway = session.headway
        if (headway.drafts.isEmpty()) return "a verdict, and no draft waits for one"
        if (headway.asks) return answer(frame)
        val drafted = headway.flight
        if (frame.accepted > drafted) return "${frame.accepted} accepted of $drafted drafted"
        if (frame.next != null && frame.next !in 0 until session.vocabSize) {
            return "the next token ${frame.next} is out of range"
        }
        behindAccepted(headway, frame, rejected = frame.accepted < drafted)?.let { return it }
        val due = if (headway.start!!.surprisals) frame.emitted else 0L
        if (frame.surprisals.size.toLong() != due) return "${frame.surprisals.size} surprisals for ${frame.emitted} tokens"
        return Faults.logprobs(session, frame.logprobs, frame.emitted) ?: Faults.limit(session, frame.emitted, frame.ended)
    }

    private fun answer(frame: Verdict): String? {
        val bare = frame.copy(
            accepted = 0, next = null, ended = false, surprisals = ByteString.EMPTY, logprobs = ByteString.EMPTY,
        )
        return unless(frame.row.size > 0 && frame == bare) { "an answer that is not what was asked for" }
    }

    /** The fault of what a verdict brings, or does not bring, behind the accepted tokens. */
    private fun behindAccepted(headway: Headway, frame: Verdict, rejected: Boolean): String? {
        val corrects = headway.rule!!.corrects
        if (frame.row.size > 0) {
            if (!corrects || !rejected) return "a target row that this scheme has no use for"
            return unless(frame.next == null && !frame.ended) { "a target row, and a next token or an end beside it" }
        }
        if (frame.next != null) {
            if (rejected && corrects) return "a rejection without the target's row"
            return unless(rejected || headway.waits) { "a token of the base station behind a draft that does not wait" }
        }
        if (frame.accepted == 0L) return "a verdict without any token"
        if (frame.ended) return null
        if (!rejected && headway.waits) return "a verdict without the token that was waited for"
        val ends = headway.drafts.runningReduce { sum, length -> sum + length }
        return unless(frame.accepted in ends) { "a verdict that ends within a draft, without a correction" }
    }
}
