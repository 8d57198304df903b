package draftlink.session

import draftlink.noise.Draws
import draftlink.wire.Done
import draftlink.wire.Draft
import draftlink.wire.Finish
import draftlink.wire.Frame
import draftlink.wire.Frames
import draftlink.wire.Hello
import draftlink.wire.MalformedException
import draftlink.wire.Propose
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

/** A frame that the protocol does not allow here. */
sealed class ProtocolException(message: String) : Exception(message)

/** This end's mistake. */
class LocalProtocolException(message: String) : ProtocolException(message)

/** The peer's mistake. */
class RemoteProtocolException(message: String) : ProtocolException(message)

/**
 * One end's view of a connection, and of the generation that it carries: the protocol without I/O
 * (docs/protocol.md, 4). Bytes come in and go out as values; a mistake leaves the state as it was.
 */
class Session(role: Role, vocabSize: Int) : Standing(role, vocabSize) {
    /** The bytes of [frame], once the table allows it. Throws [LocalProtocolException]. */
    fun send(frame: Frame): ByteString {
        if (Table.sender(frame) != role) throw LocalProtocolException("a $role does not send ${name(frame)}")
        val data = Frames.encode(frame)
        apply(frame, ::LocalProtocolException)
        if (Table.numbered(frame)) {
            headway.frames.add(data, begins = frame is Switched || (frame is Verdict && frame.closes))
        }
        return data
    }

    /** The peer's frame; null for one that has been overtaken. Throws [RemoteProtocolException]. */
    fun receive(data: ByteString): Frame? {
        val frame = try {
            Frames.decode(data)
        } catch (error: MalformedException) {
            throw RemoteProtocolException(error.message!!)
        }
        if (Table.sender(frame) == role) throw RemoteProtocolException("the peer of a $role sends no ${name(frame)}")
        val overtaken = overtaken(frame)
        if (!overtaken) {
            apply(frame, ::RemoteProtocolException)
        } else if (role == Role.DEVICE) {
            if (late >= headway.outstanding) {
                throw RemoteProtocolException("it goes on writing behind the end of the generation")
            }
            late++
        }
        if (Table.numbered(frame)) {
            headway.frames.received++
            if (!overtaken) acknowledged(frame)
        }
        return if (overtaken) null else frame
    }

    private fun name(frame: Frame) = frame::class.simpleName

    /** Whether the peer sent a frame before it knew what makes it void. */
    private fun overtaken(frame: Frame): Boolean {
        if (role == Role.DEVICE) { // it has ended the generation
            val written = frame is Verdict || frame is Tokens || frame is Switched || frame is Written
            return state == State.FINISHING && written
        }
        return when (frame) {
            // It was drafted on from a token that did not stand.
            is Draft -> state in setOf(State.READY, State.DRAFTING, State.VERIFYING) && frame.epoch < epoch
            // The text had ended, or a newer path had begun.
            is Propose -> (state == State.READY && generation != 0L) ||
                (state == State.WRITING && frame.path < headway.path)
            // The generation had ended before its mode could change.
            is Switch -> state == State.READY && generation != 0L && frame.generation == generation
            else -> false
        }
    }

    /** Forget what the peer must have had when it sent [frame]. */
    private fun acknowledged(frame: Frame) {
        if (frame is Switch && frame.mode == "stream") return // it may have crossed a verdict
        val kept = headway.frames
        when {
            role == Role.BS -> kept.inEpoch()
            frame is Verdict && !frame.ended -> kept.keep(headway.drafts.size)
            else -> kept.keepLast(if (state == State.SWITCHING) 1 else 0) // a switch that is not answered yet is the last
        }
    }

    private fun apply(frame: Frame, error: (String) -> ProtocolException) {
        if (!Table.allows(state, frame)) throw error("${name(frame)} is not allowed while $state")
        Faults.find(this, frame)?.let { throw error(it) }
        val before = state
        change(frame)
        state = Table.next(before, frame) ?: following(before, frame)
    }

    /** What a frame that has no fault changes beside the state. */
    private fun change(frame: Frame) {
        when (frame) {
            is Hello -> hello = frame
            is Welcome -> welcome = frame
            is Start -> headway = Headway(frame.generation, epoch + 1, frame.begins, start = frame, path = headway.path)
            is Resume -> resuming = frame
            is Resumed -> {
                headway.leavePath()
                if (role == Role.DEVICE) headway.frames.goOnFrom(frame.handled)
            }
            is Replay -> replayed()
            is Draft -> headway.draft(frame)
            is Verdict -> headway.judge(frame)
            is Tokens -> headway.grow(frame.ids.size.toLong())
            is Written -> headway.grow(frame.ids.size.toLong())
            is Propose -> headway.propose(frame)
            is Switch -> if (frame.mode == "stream") {
                if (headway.drafts.isEmpty()) headway.epoch++ else headway.switching = true
            }
            is Switched -> headway.epoch++
            is Finish -> {
                kept = frame.keep
                late = 0
            }
            is Done -> headway = Headway(frame.generation, frame.epoch, frame.length, start = headway.start, path = headway.path)
            else -> Unit
        }
    }

    /** Both ends are where the device was; frames are numbered from 0 again. */
    private fun replayed() {
        val asked = resuming!!
        if (role == Role.BS) {
            val start = asked.start
            headway = Headway(start.generation, asked.epoch, asked.length, asked.length - start.base, start)
            headway.owed = asked.owes
            stoppedAt = Table.writes(start.mode)
            return
        }
        when (stoppedAt) { // a switch that led here is done
            State.STREAMING -> headway.frames.keepLast(0)
            State.SWITCHING -> headway.frames.keepLast(1)
            else -> Unit
        }
        headway.frames.restart()
    }

    private fun following(before: State, frame: Frame): State = when (frame) {
        is Resumed -> if (frame.replay) State.REPLAYING else goesOn()
        is Replay -> goesOn()
        is Start -> Table.writes(frame.mode)
        is Draft -> if (headway.waits) State.VERIFYING else State.DRAFTING
        is Switch -> if (headway.drafts.isEmpty()) State.STREAMING else State.VERIFYING
        is Verdict -> when {
            frame.ended -> State.READY
            headway.drafts.isNotEmpty() -> before
            headway.switching -> State.STREAMING.also { headway.switching = false }
            else -> State.DRAFTING
        }
        is Tokens -> if (frame.ended) State.READY else before
        is Written -> if (frame.ended) State.READY else before
        else -> error("the table says where ${name(frame)} leads")
    }

    private fun goesOn(): State = stoppedAt!!.also { stoppedAt = null }

    // After a lost connection.

    /** A device's session over a new connection, from Hello on. */
    fun reopen() {
        if (state.underWay) {
            stoppedAt = state
        } else if (stoppedAt == null) { // the base station may know nothing of the history
            headway = Headway(generation)
        }
        state = State.OPENED
    }

    /** A device gives up the generation, and the connection that it was on. */
    fun abandon() {
        stoppedAt = null
        state = State.CLOSED
    }

    /** What the device asks for, whose tokens are [history]. */
    fun resume(history: List<Int>): Resume {
        val start = headway.start!!
        val mode = when (stoppedAt) {
            State.STREAMING, State.SWITCHING -> "stream"
            State.WRITING -> "both"
            else -> "draft"
        }
        return Resume(
            start.copy(base = start.begins, ids = emptyList(), mode = mode),
            epoch,
            headway.agreed,
            Draws.digest(history.subList(0, headway.agreed.toInt())),
            headway.owed || headway.first,
            headway.frames.received,
        )
    }

    /** Tokens of the history that a replay brings. */
    val resumesAt: Long get() = resuming!!.length

    /**
     * At the base station: go on with the generation of a session whose connection was lost. False
     * if that is not the one, or has not what the device asks for.
     */
    fun adopt(parked: Session): Boolean {
        val asked = resuming!!
        val found = parked.headway
        val both = asked.start.mode == "both"
        val behind = found.length - asked.length
        // Where both write nothing but the text is told again, and no other state has one.
        val fits = found.generation == asked.start.generation && found.start != null &&
            (found.start.mode == "both") == both && asked.epoch <= found.epoch && behind >= 0 &&
            found.frames.has(asked.seen) &&
            (!both || (behind <= found.written && (parked.state == State.WRITING || parked.state == State.READY)))
        if (!fits) return false
        headway = found
        stoppedAt = parked.state
        if (both && behind > 0) {
            found.rewind(asked.length)
            stoppedAt = State.WRITING
        }
        return true
    }

    /** The frames that a peer which has dealt with [seen] of them has not. */
    fun resend(seen: Long): List<ByteString> = headway.frames.lacks(seen)
}
