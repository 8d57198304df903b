package draftlink.transport

import draftlink.wire.Done
import draftlink.wire.Frame
import draftlink.wire.Progress
import draftlink.wire.Switched
import draftlink.wire.Tokens
import draftlink.wire.Verdict
import draftlink.wire.Written
import kotlin.random.Random

/**
 * How long a lost base station is looked for, and how often (docs/protocol.md, 4.9). Renewed by a
 * generation that moves, not by a connection. All times in seconds; the time is an argument.
 */
internal class Patience(private val lastsS: Double, private val random: Random = Random.Default) {
    private var untilS: Double? = null
    private var pauseS = FIRST_PAUSE_S
    private var fed = 0L // tokens that the base station has told of, towards its next frame

    /** The next loss is like the first. */
    fun renew() {
        untilS = null
        pauseS = FIRST_PAUSE_S
        fed = 0
    }

    /** A [frame] has come that was not overtaken. */
    fun heard(frame: Frame, now: Double) {
        when (frame) {
            is Verdict, is Tokens, is Written, is Switched, is Done -> renew()
            is Progress -> if (frame.fed > fed) {
                fed = frame.fed // it is at work, if slowly
                extend(now)
            }
            else -> Unit
        }
    }

    /** Seconds before the next attempt, after a loss at [now]; null: patience has ended. */
    fun after(now: Double, lost: LostException): Double? {
        val until = untilS
        if (until == null) {
            untilS = now + lastsS
            return 0.0
        }
        if (lost.retryAfterS != null) extend(now) // who is there and busy is waited for
        val leftS = untilS!! - now
        if (leftS <= 0.0) return null
        val pause = maxOf(pauseS, lost.retryAfterS?.toDouble() ?: 0.0)
        pauseS = minOf(2 * pause, LONGEST_PAUSE_S)
        // Not all at once, where a base station that was restarted has many devices.
        return minOf(leftS, pause * random.nextDouble(0.5, 1.0))
    }

    private fun extend(now: Double) {
        if (untilS != null) untilS = now + lastsS
    }

    private companion object {
        const val FIRST_PAUSE_S = 0.1
        const val LONGEST_PAUSE_S = 5.0
    }
}
