package draftlink.transport

import draftlink.session.Session
import draftlink.session.State
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.async
import kotlinx.coroutines.coroutineScope
import kotlinx.coroutines.delay
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.collectLatest
import kotlinx.coroutines.launch
import kotlinx.coroutines.selects.select
import okio.ByteString

/**
 * Seconds for which a base station may say nothing while something is due from it. None is for its work,
 * of which Progress frames tell: [silenceS] is three of those missing.
 */
data class Deadlines(val welcomeS: Double = 15.0, val silenceS: Double = 30.0)

/**
 * How long nothing has been heard on a session's connection while something was due (docs/protocol.md, 2).
 * While nothing is, as where a long prompt is drafted behind, it is never too long.
 */
internal class Silence(private val session: Session, private val deadlines: Deadlines, private val nowS: () -> Double) {
    private val limit = MutableStateFlow<Deadline?>(null) // null while nothing is due

    private data class Deadline(val sinceS: Double, val lastsS: Double)

    /** It begins now: something was heard, or nobody listened before. */
    fun begins() = look(nowS())

    /** A frame is sent: it begins now, unless something was due before. */
    fun sends() = look(limit.value?.sinceS ?: nowS())

    private fun look(sinceS: Double) {
        limit.value = when {
            session.state == State.GREETING -> Deadline(sinceS, deadlines.welcomeS)
            session.state in OWES || (session.state == State.DRAFTING && session.headway.drafts.isNotEmpty()) ->
                Deadline(sinceS, deadlines.silenceS)
            else -> null
        }
    }

    /** The next message of a [link]. Throws [LostException], also where none comes in time. */
    suspend fun hear(link: Link): ByteString = coroutineScope {
        val coming = async { link.receive() }
        val over = CompletableDeferred<Deadline>()
        val watch = launch {
            limit.collectLatest { due ->
                if (due != null) {
                    delay(((due.sinceS + due.lastsS - nowS()) * 1000).toLong())
                    over.complete(due)
                }
            }
        }
        try {
            select {
                coming.onAwait { it }
                over.onAwait { throw LostException("it said nothing for ${it.lastsS} s") }
            }
        } finally {
            watch.cancel()
            coming.cancel() // what it may have brought is of a connection that is given up
        }
    }

    private companion object {
        /** Where something is due, however long the work for it takes; beside them drafts without a verdict. */
        val OWES = setOf(
            State.RESUMING, State.VERIFYING, State.STREAMING, State.SWITCHING, State.WRITING, State.FINISHING,
        )
    }
}
