package draftlink.session

import draftlink.wire.Done
import draftlink.wire.Draft
import draftlink.wire.Finish
import draftlink.wire.Frame
import draftlink.wire.Hello
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

/** Where a session is (docs/protocol.md, 4.1). */
enum class State {
    /** Nothing is said. */
    OPENED,

    /** The device has said hello. */
    GREETING,

    /** No generation. */
    READY,

    /** The device has asked to go on with one. */
    RESUMING,

    /** The base station needs its history. */
    REPLAYING,

    /** The device may draft; verdicts may be under way. */
    DRAFTING,

    /** The device waits for the verdicts of all its drafts. */
    VERIFYING,

    /** The base station writes alone, */
    STREAMING,

    /** and has been asked to stop. */
    SWITCHING,

    /** Both ends write. */
    WRITING,

    /** The device has ended the generation, and Done is owed. */
    FINISHING,
    CLOSED,
    ;

    /** Whether a generation is under way, which outlives a connection. */
    val underWay: Boolean get() = this in DRAFTING..WRITING
}

/** An end of a connection. */
enum class Role { DEVICE, BS }

/** The transition table, as data and once for both roles: who sends what, what is allowed where. */
internal object Table {
    private val UNDER_WAY = setOf(State.DRAFTING, State.VERIFYING, State.STREAMING, State.SWITCHING, State.WRITING)

    /** Who sends a frame. */
    fun sender(frame: Frame): Role = when (frame) {
        is Hello, is Start, is Resume, is Replay, is Draft, is Switch, is Finish, is Propose -> Role.DEVICE
        is Welcome, is Resumed, is Refused, is Verdict, is Tokens, is Switched, is Done, is Progress, is Written -> Role.BS
    }

    /** Whether a frame has a number, and is sent again after a lost connection (4.8). */
    fun numbered(frame: Frame): Boolean =
        frame is Draft || frame is Switch || frame is Verdict || frame is Tokens || frame is Switched

    /** Whether a frame may come in a [state]. */
    fun allows(state: State, frame: Frame): Boolean = state in when (frame) {
        is Hello -> setOf(State.OPENED)
        is Welcome -> setOf(State.GREETING)
        is Start, is Resume -> setOf(State.READY)
        is Resumed -> setOf(State.RESUMING)
        is Replay -> setOf(State.REPLAYING)
        is Draft -> setOf(State.DRAFTING)
        is Verdict -> setOf(State.DRAFTING, State.VERIFYING)
        is Switch -> setOf(State.DRAFTING, State.VERIFYING, State.STREAMING)
        is Tokens -> setOf(State.STREAMING, State.SWITCHING)
        is Switched -> setOf(State.SWITCHING)
        is Propose, is Written -> setOf(State.WRITING)
        is Finish -> UNDER_WAY + State.READY // the text may have ended when it came
        is Done -> setOf(State.FINISHING)
        is Progress -> UNDER_WAY + State.FINISHING
        is Refused -> State.entries - State.CLOSED
    }

    /** Where a frame always leads; null: that depends on what it says. */
    fun next(state: State, frame: Frame): State? = when (frame) {
        is Hello -> State.GREETING
        is Welcome, is Done -> State.READY
        is Resume -> State.RESUMING
        is Switched -> State.DRAFTING
        is Propose, is Progress -> state
        is Finish -> State.FINISHING
        is Refused -> State.CLOSED
        is Switch -> if (state == State.STREAMING) State.SWITCHING else null
        is Start, is Resumed, is Replay, is Draft, is Verdict, is Tokens, is Written -> null
    }

    /** Where a generation goes on, by who writes. */
    fun writes(mode: String): State = when (mode) {
        "stream" -> State.STREAMING
        "both" -> State.WRITING
        else -> State.DRAFTING
    }
}
