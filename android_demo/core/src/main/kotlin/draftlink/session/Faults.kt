package draftlink.session

import draftlink.noise.Draws
import draftlink.wire.Done
import draftlink.wire.Draft
import draftlink.wire.Finish
import draftlink.wire.Frame
import draftlink.wire.Hello
import draftlink.wire.Logprobs
import draftlink.wire.MalformedException
import draftlink.wire.Progress
import draftlink.wire.Propose
import draftlink.wire.Refused
import draftlink.wire.Replay
import draftlink.wire.Resume
import draftlink.wire.Resumed
import draftlink.wire.Start
import draftlink.wire.Switch
import draftlink.wire.Switched
import draftlink.wire.Tokens
import draftlink.wire.Verdict
import draftlink.wire.Welcome
import draftlink.wire.Written
import okio.ByteString

/** What is wrong with a frame's numbers, where the transition table allows its kind (docs/protocol.md, 4.2 to 4.9). */
internal object Faults {
    private const val MAX_EPOCH = 1L shl 31
    private const val DIGEST_BYTES = 16

    /** The fault of a frame that a session is about to send or has received, or null. */
    fun find(session: Standing, frame: Frame): String? = when (frame) {
        is Hello -> Validate.hello(frame)
        is Welcome -> Validate.welcome(session.hello!!, frame)
        is Start -> start(session, frame)
        is Resume -> resume(session, frame)
        is Resumed -> ofCurrent(session, frame.generation, resuming = true) ?: resumed(session, frame)
        is Replay -> ofCurrent(session, frame.generation, resuming = true) ?: replay(session, frame)
        is Progress -> progress(session, frame)
        is Draft -> inOrder(session, frame.epoch, frame.base, session.headway.expected) ?: DraftFaults.draft(session, frame)
        is Verdict -> inOrder(session, frame.epoch, frame.base, session.length) ?: DraftFaults.verdict(session, frame)
        is Tokens -> inOrder(session, frame.epoch, frame.base, session.length) ?: tokens(session, frame)
        is Propose -> BothFaults.propose(session, frame)
        is Written -> BothFaults.written(session, frame)
        is Finish -> ofCurrent(session, frame.generation) ?: finish(session, frame)
        is Done -> ofCurrent(session, frame.generation) ?: done(session, frame)
        is Switch -> ofCurrent(session, frame.generation) ?: switch(session, frame)
        is Switched -> ofCurrent(session, frame.generation) ?: switched(session, frame)
        is Refused -> null
    }

    /** [why], unless it [holds]. */
    inline fun unless(holds: Boolean, why: () -> String): String? = if (holds) null else why()

    private fun inOrder(session: Standing, epoch: Long, base: Long, next: Long) =
        unless(epoch == session.epoch && base == next) {
            "a frame for epoch $epoch, position $base, where epoch ${session.epoch}, position $next is next"
        }

    private fun ofCurrent(session: Standing, generation: Long, resuming: Boolean = false): String? {
        val asked = if (resuming) session.resuming else null
        val current = asked?.start?.generation ?: session.generation
        return unless(generation == current) { "generation $generation, where $current is current" }
    }

    private fun start(session: Standing, frame: Start): String? {
        if (frame.base !in 0..session.length) return "base ${frame.base}, where the slot has ${session.length} tokens"
        // One that is longer than the context is refused for that: its ids need not be looked at.
        val fits = frame.begins < session.welcome!!.context
        if (frame.ids.isEmpty() || (fits && !inRange(session, frame.ids))) return "the prompt is empty or has ids out of range"
        if (frame.generation <= session.generation || frame.maxTokens < 1) {
            return "generation numbers rise, and max_tokens is at least 1"
        }
        return Validate.options(session.welcome!!, frame)
    }

    private fun inRange(session: Standing, ids: List<Int>) = ids.all { it in 0 until session.vocabSize }

    private fun resume(session: Standing, frame: Resume): String? {
        val start = frame.start
        if (session.role == Role.BS && session.generation != 0L) return "a generation is resumed in a session that has had one"
        if (session.role == Role.DEVICE && session.stoppedAt == null) return "no generation is to be resumed"
        if (start.ids.isNotEmpty() || start.base !in 1..frame.length || start.generation < 1) {
            return "a resumed generation has a prompt, and brings no ids"
        }
        if (frame.length - start.base >= start.maxTokens) {
            return "${frame.length - start.base} tokens of at most ${start.maxTokens} are written"
        }
        if (frame.epoch !in 1 until MAX_EPOCH || frame.seen < 0 || frame.digest.size != DIGEST_BYTES) {
            return "an epoch, a count of frames or a digest that cannot be"
        }
        return Validate.options(session.welcome!!, start)
    }

    private fun resumed(session: Standing, frame: Resumed): String? {
        val sent = session.headway.frames.sent
        if (session.role == Role.DEVICE && frame.handled !in 0..sent) return "${frame.handled} frames were handled, of $sent"
        if (session.role == Role.BS && frame.replay == (session.stoppedAt != null)) {
            return "a generation is replayed exactly if it is not known"
        }
        return null
    }

    private fun replay(session: Standing, frame: Replay): String? {
        val asked = session.resuming!!
        if (frame.ids.size.toLong() != asked.length || !inRange(session, frame.ids)) {
            return "${frame.ids.size} tokens, where ${asked.length} are needed, or ids out of range"
        }
        return unless(Draws.digest(frame.ids) == asked.digest) { "the history is not the one that was to be resumed" }
    }

    private fun progress(session: Standing, frame: Progress): String? {
        if (frame.generation != session.generation) {
            return "progress of generation ${frame.generation}, not of ${session.generation}"
        }
        return unless(frame.fed in 0..frame.total && frame.ahead >= 0) {
            "${frame.fed} tokens fed of ${frame.total}, ${frame.ahead} rounds ahead"
        }
    }

    private fun tokens(session: Standing, frame: Tokens): String? {
        if (frame.ids.isEmpty() || !inRange(session, frame.ids)) return "no tokens, or ids out of range"
        val count = frame.ids.size.toLong()
        val due = if (session.headway.start!!.streamedSurprisals == true) count else 0L
        if (frame.surprisals.size.toLong() != due) return "${frame.surprisals.size} surprisals for $count tokens"
        return logprobs(session, frame.logprobs, count) ?: limit(session, count, frame.ended)
    }

    private fun finish(session: Standing, frame: Finish) =
        unless(frame.keep in 0..session.length) { "${frame.keep} tokens to keep, of ${session.length}" }

    private fun done(session: Standing, frame: Done): String? {
        if (frame.length != session.kept) return "${frame.length} tokens kept, where ${session.kept} were to be"
        // Each frame that crossed Finish may have begun one, and a switch that crossed a verdict.
        val last = session.epoch
        return unless(frame.epoch in last + 1..last + session.late + 2) { "epoch ${frame.epoch}, where $last was the last" }
    }

    private fun switch(session: Standing, frame: Switch): String? {
        val headway = session.headway
        val streams = session.state == State.STREAMING
        if (streams == (frame.mode == "stream") || headway.switching) return "a switch to ${frame.mode}, which is so already"
        return unless(!headway.owed && !(headway.rule!!.corrects && headway.drafts.isNotEmpty())) {
            "the token after a rejection is, or may be, owed"
        }
    }

    private fun switched(session: Standing, frame: Switched) =
        unless(frame.epoch == session.epoch + 1 && frame.base == session.length) {
            "a switch to epoch ${frame.epoch}, position ${frame.base}"
        }

    /** What is wrong with [count] more tokens of a text; [ended]: they are the last. */
    fun limit(session: Standing, count: Long, ended: Boolean): String? {
        val left = session.headway.left
        return unless(count < left || (count == left && ended)) { "$count more tokens, where $left are left" }
    }

    /** What is wrong with the log-probabilities of a frame that brings [tokens] of them. */
    fun logprobs(session: Standing, block: ByteString, tokens: Long): String? {
        val asked = session.headway.start!!.logprobs
        if (asked == null || tokens == 0L) return unless(block.size == 0) { "log-probabilities that nobody asked for" }
        return try {
            // Of each token a byte at least: a count that no block can hold need not be made room for.
            if (tokens > block.size) throw MalformedException("the block ends too early")
            Logprobs.decode(block, tokens.toInt(), asked.toInt(), session.welcome!!.vocabSize.toInt())
            null
        } catch (error: MalformedException) {
            "log-probabilities of $tokens tokens that cannot be (${error.message})"
        }
    }
}
