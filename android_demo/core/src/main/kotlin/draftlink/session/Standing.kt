package draftlink.session

import draftlink.wire.Hello
import draftlink.wire.Resume
import draftlink.wire.Welcome

/**
 * What a frame is held against: one end's state as a value. [Session] alone changes it.
 *
 * [vocabSize]: ids from there on are out of range; a device that has fewer logits than the target
 * lowers it behind Welcome.
 */
open class Standing internal constructor(
    /** Which end this is. */
    val role: Role,
    var vocabSize: Int,
) {
    var state = State.OPENED
        internal set
    var headway = Headway()
        internal set
    var hello: Hello? = null
        internal set
    var welcome: Welcome? = null
        internal set

    /** What the device has asked to go on with. */
    var resuming: Resume? = null
        internal set

    /** Tokens that Finish keeps, and Done confirms. */
    internal var kept = 0L

    /** Frames that were under way when Finish was sent, so far. */
    internal var late = 0L

    /** Where a lost connection left the generation; null: none is to be resumed. */
    var stoppedAt: State? = null
        internal set

    /** The number of the last generation. */
    val generation: Long get() = headway.generation

    /** What a draft has to name. */
    val epoch: Long get() = headway.epoch

    /** Tokens of the history that both ends agree on. */
    val length: Long get() = headway.length
}
