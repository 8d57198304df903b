package draftlink.device

import draftlink.session.State
import draftlink.transport.Client
import draftlink.writers.Both
import draftlink.writers.Came
import draftlink.writers.Drafting
import draftlink.writers.Room
import draftlink.writers.Streaming
import draftlink.writers.Writing
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.supervisorScope
import kotlinx.coroutines.withContext

/** One generation: who writes next, and where it ends. What it takes is told in [said] as it comes. */
internal class Generation(
    private val writing: Writing,
    private val client: Client,
    private val said: MutableStateFlow<Live>,
) {
    private val tally = writing.tally
    private val reconnects = client.reconnects
    private val sent = client.sentBytes
    private val received = client.receivedBytes
    private val tokens = ArrayList<Int>()
    private val provisional = ArrayList<Int>()
    private val modes = LinkedHashSet<String>()
    private var room: Room? = null
    private var over = false

    /** What it took, once it has ended. */
    val result: Result
        get() {
            val (right, looked) = tally.met
            val firstS = tally.firstS ?: tally.startedS
            return Result(
                tokens.toList(), tally.kinds.toList(), modes.joinToString(", then "), tally.rounds, tally.drafted, tally.accepted,
                right, looked, tally.histogram, tally.provisional, tally.takenBack, tally.followed, tally.forwards,
                client.reconnects - reconnects, client.sentBytes - sent, client.receivedBytes - received,
                firstS - tally.startedS, rate(), tally.draftS,
            )
        }

    /** Writes it to its end; [auto]: who writes may change. Each token is told to [emit]. */
    suspend fun run(auto: Boolean, emit: suspend (Token) -> Unit) = supervisorScope {
        try {
            writing.begin(this, auto)
            tell()
            while (!over) {
                val came = more()
                came.forEachIndexed { place, one ->
                    if (over) return@forEachIndexed
                    emit(if (one.kind == Kind.PROVISIONAL) guess(one) else take(one))
                    if (over) tally.behind(came.drop(place + 1).map { it.kind })
                }
                tell()
                if (writing.agreed && client.session.state == State.READY) over = true
            }
        } finally {
            withContext(NonCancellable) { writing.close() }
            tally.takenBack += provisional.size
            provisional.clear()
            tell()
        }
    }

    /** The next tokens, from whoever's turn it is; they may be none. */
    private suspend fun more(): List<Came> {
        val there = room
        val next = when {
            writing.both -> there as? Both ?: Both(writing)
            writing.window.streams -> there as? Streaming ?: Streaming(writing)
            else -> there as? Drafting ?: Drafting(writing)
        }
        room = next
        modes += writing.mode
        return next.more()
    }

    /** A token has come: count it, see whether the text ends here. */
    private fun take(came: Came): Token {
        tokens += came.id
        tally.token(writing.now(), came.kind)
        val confirms = provisional.firstOrNull() == came.id
        var takesBack = 0
        if (confirms) {
            provisional.removeAt(0)
        } else {
            takesBack = provisional.size
            tally.takenBack += takesBack
            provisional.clear()
        }
        over = came.id in writing.start.eosIds || tokens.size.toLong() == writing.start.maxTokens
        return Token(came.id, came.kind, confirms, takesBack)
    }

    /** A provisional token, behind the others. */
    private fun guess(came: Came): Token {
        provisional += came.id
        tally.provisional++
        return Token(came.id, came.kind)
    }

    private fun rate(): Double {
        val elapsedS = tally.lastS - tally.startedS
        return if (elapsedS > 0.0) tokens.size / elapsedS else 0.0
    }

    private fun tell() {
        val (right, looked) = tally.met
        said.value = Live(
            writing.mode, tokens.size, tally.kinds.count { it == Kind.DRAFT }, provisional.size,
            if (looked == 0) 0.0 else right.toDouble() / looked, rate(), writing.controller.estimates.rtt.typical,
            client.sentBytes - sent, client.receivedBytes - received, client.reconnects - reconnects,
        )
    }
}
