package draftlink.session

import draftlink.session.Faults.unless
import draftlink.wire.Propose
import draftlink.wire.Written

/** What is wrong with the frames of a text that both ends write (docs/protocol.md, 4.12): see [Faults]. */
internal object BothFaults {
    const val MAX_LIVE = 256L // proposed tokens that the text has not reached at the device
    private const val MAX_BESIDE = 3

    fun propose(session: Standing, frame: Propose): String? {
        val headway = session.headway
        val start = headway.start!!
        if (frame.path < maxOf(1, headway.path)) {
            return "path ${frame.path}, where path ${headway.path} was the last, and they rise from 1"
        }
        if (frame.known !in headway.known..session.length || frame.base < headway.pathBase) {
            return "a path from ${frame.base} with ${frame.known} known, of ${session.length}: one falls"
        }
        if (frame.path == headway.path && (frame.base != headway.pathBase || frame.first != headway.proposed)) {
            return "token ${frame.first} of a path from ${frame.base}, where another is next"
        }
        // That it begins within what is known needs no look: the frame says how much more that is.
        if (frame.path > headway.path && (frame.first != 0L || frame.base < start.begins)) {
            return "a new path from ${frame.base} that does not begin within the text"
        }
        if (frame.length !in 1..Rule.MAX_DRAFT || frame.end - frame.known > MAX_LIVE) {
            return "no token, more than ${Rule.MAX_DRAFT} at once, or $MAX_LIVE ahead of the text"
        }
        if (frame.behind != 0L) return "tokens that branch off, and the feature branches is not agreed on here"
        if (frame.end > start.begins + start.maxTokens) return "tokens behind the limit are proposed"
        val welcome = session.welcome!!
        if (frame.nodes * headway.rule!!.entries(welcome.vocabSize.toInt()) > welcome.frameEntries) {
            return "${frame.nodes} tokens at once, where ${welcome.frameEntries} entries are the most"
        }
        return if (frame.beside.isEmpty()) null else beside(welcome.features, frame)
    }

    /** The fault of how many candidates stand beside proposed tokens, or null. */
    private fun beside(features: List<String>, frame: Propose): String? {
        if (Features.LEAVES !in features) return "candidates beside tokens, and the feature ${Features.LEAVES} was not agreed on"
        if (frame.beside.size.toLong() != frame.length || frame.beside.all { it == 0 }) {
            return "there are no candidates, or some of no token"
        }
        return unless(frame.beside.all { it in 0..MAX_BESIDE } && frame.nodes <= Rule.MAX_DRAFT) {
            "more than $MAX_BESIDE candidates beside a token, or ${Rule.MAX_DRAFT} ids at once"
        }
    }

    fun written(session: Standing, frame: Written): String? {
        val count = frame.ids.size.toLong()
        if (frame.base != session.length) return "tokens at ${frame.base}, where ${session.length} is next"
        if (frame.ids.isEmpty() || frame.ids.any { it !in 0 until session.vocabSize } || frame.accepted > count) {
            return "no tokens, ids out of range, or more accepted than there are"
        }
        val rows = frame.rows ?: 0L
        if (rows != 0L && rows !in count + 1..Rule.MAX_DRAFT + 1) return "$rows rows for $count tokens"
        val due = if (session.headway.start!!.surprisals) count else 0L
        if (frame.surprisals.size.toLong() != due) return "${frame.surprisals.size} surprisals for $count tokens"
        return Faults.logprobs(session, frame.logprobs, count) ?: Faults.limit(session, count, frame.ended)
    }
}
