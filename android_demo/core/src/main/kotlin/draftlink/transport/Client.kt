package draftlink.transport

import draftlink.session.Features
import draftlink.session.RemoteProtocolException
import draftlink.session.Role
import draftlink.session.Session
import draftlink.session.State
import draftlink.wire.Done
import draftlink.wire.Finish
import draftlink.wire.Frame
import draftlink.wire.Frames
import draftlink.wire.Hello
import draftlink.wire.Progress
import draftlink.wire.Refused
import draftlink.wire.Replay
import draftlink.wire.Resumed
import draftlink.wire.Start
import draftlink.wire.Welcome
import kotlinx.coroutines.delay
import kotlinx.coroutines.withTimeoutOrNull
import okio.ByteString

/**
 * A greeted session, over one connection after another.
 *
 * When a connection is lost, the next [receive] makes a new one and goes on with the generation where
 * both ends had agreed; nothing of it is drawn again. One coroutine's at a time.
 */
class Client(
    val url: String,
    private val tokenizerHash: String,
    private val vocabSize: Int,
    private val connect: Connect = OkLink.connector(),
    patienceS: Double = 60.0,
    private val nowS: () -> Double = { System.nanoTime() * 1e-9 },
) {
    val session = Session(Role.DEVICE, vocabSize)

    /** The base station's greeting. */
    lateinit var welcome: Welcome
        private set

    /** How often a new connection was made. */
    var reconnects = 0
        private set

    /** Bytes of the messages that were sent and received, without the WebSocket's own. */
    var sentBytes = 0L
        private set
    var receivedBytes = 0L
        private set

    /** The tokens of the conversation so far; what was received is in it before the next [receive]. */
    var history: List<Int> = emptyList()

    private val patience = Patience(patienceS)
    private var ticket = ByteString.EMPTY
    private var link: Link? = null
    private var gone: LinkException? = null

    /** Connects and greets. Throws [LinkException]. */
    suspend fun open() {
        try {
            greet()
        } catch (error: LostException) {
            close()
            throw LinkException("no base station at $url (${error.message}); check the address", error.retryAfterS)
        } catch (error: Throwable) {
            close()
            throw error
        }
    }

    /** Sends a [frame]. Where the connection is lost the next [receive] makes a new one, and sends it again. */
    suspend fun send(frame: Frame) {
        gone?.let { throw it }
        val data = session.send(frame)
        if (frame is Start) patience.renew()
        put(data)
    }

    /** The next frame that has not been overtaken. Throws [LinkException]. */
    suspend fun receive(): Frame {
        while (true) {
            gone?.let { throw it }
            try {
                return get()
            } catch (error: LostException) {
                reconnect(error)
            }
        }
    }

    /**
     * Ends the generation: the base station forgets what comes behind [keep] tokens. Where there is no
     * connection to say so on, a new one is made, which begins with nothing. Throws [LinkException].
     */
    suspend fun finish(keep: Long) {
        gone?.let { throw it }
        val greeted = session.state == State.READY || session.state == State.FINISHING || session.state.underWay
        if (link == null || !greeted) { // it was left while a new connection was looked for
            session.abandon()
            patience.renew()
            return reconnect(LostException("the connection was left"))
        }
        if (session.state == State.READY || session.state.underWay) send(Finish(session.generation, minOf(keep, session.length)))
        while (session.state == State.FINISHING) {
            try {
                if (get() !is Done) throw LinkException("the base station sent something else than Done")
            } catch (error: LostException) {
                reconnect(error) // and the generation is over
            }
        }
    }

    /** Closes the connection. */
    fun close() {
        if (gone == null) gone = LinkException("the connection to $url was closed")
        hangUp()
    }

    private fun hangUp() {
        link?.close()
        link = null
    }

    private suspend fun greet() {
        link = withTimeoutOrNull(WELCOME_MS) { connect.connect(url) } ?: throw LostException("it does not answer")
        put(session.send(hello()))
        val said = get() as? Welcome ?: throw LinkException("the base station sent something else than Welcome")
        // A ticket is new each time, and times are the last steps'.
        val before = said.copy(ticket = ByteString.EMPTY, stepUs = 0, rowUs = 0)
        if (session.stoppedAt != null && before != welcome.copy(ticket = ByteString.EMPTY, stepUs = 0, rowUs = 0)) {
            throw LinkException("the base station at $url now serves another target; the text so far is kept")
        }
        welcome = said
        ticket = said.ticket
        // Vocabularies may be padded differently; an id that this draft lacks could not be fed.
        session.vocabSize = minOf(vocabSize.toLong(), said.vocabSize).toInt()
    }

    private fun hello() = Hello(
        Frames.VERSION, tokenizerHash, vocabSize.toLong(), SCHEMES, AGENT, ticket, Frames.VERSION, FEATURES,
    )

    /** A new connection, and on with the generation. Throws [LinkException] when patience ends. */
    private suspend fun reconnect(first: LostException) {
        var cause = first
        while (true) {
            hangUp()
            val pauseS = patience.after(nowS(), cause)
            if (pauseS == null) {
                gone = LinkException("the base station at $url has gone (${cause.message}); the text so far is kept")
                throw gone!!
            }
            delay((pauseS * 1000).toLong())
            try {
                session.reopen()
                greet()
                if (session.stoppedAt != null) resume()
                reconnects++
                return
            } catch (error: LostException) {
                cause = error
            }
        }
    }

    private suspend fun resume() {
        put(session.send(session.resume(history)))
        val resumed = get() as? Resumed ?: throw LinkException("the base station sent something else than Resumed")
        if (resumed.replay) put(session.send(Replay(session.generation, history.take(session.resumesAt.toInt()))))
        for (data in session.resend(if (resumed.replay) 0 else resumed.handled)) put(data)
    }

    /** Sends bytes. If the connection is lost, [get] says so. */
    private suspend fun put(data: ByteString) {
        val there = link ?: return
        try {
            there.send(data)
            sentBytes += data.size
        } catch (_: LostException) {
            return
        }
    }

    /** The next frame that has not been overtaken. Throws [LostException], [LinkException]. */
    private suspend fun get(): Frame {
        val there = link ?: throw LostException("the connection is closed")
        while (true) {
            val limitMs = if (session.state == State.GREETING) WELCOME_MS else SILENCE_MS
            val data = withTimeoutOrNull(limitMs) { there.receive() } ?: throw LostException("it said nothing for $limitMs ms")
            receivedBytes += data.size
            val frame = try {
                session.receive(data)
            } catch (error: RemoteProtocolException) {
                session.abandon()
                close()
                throw LinkException("the base station broke the protocol: ${error.message}")
            }
            when (frame) {
                null -> continue
                is Refused -> {
                    close()
                    throw LinkException("the base station refuses: ${frame.reason}", frame.retryAfterS)
                }
                is Progress -> patience.heard(frame, nowS())
                else -> {
                    patience.heard(frame, nowS())
                    return frame
                }
            }
        }
    }

    private companion object {
        const val WELCOME_MS = 15_000L
        const val SILENCE_MS = 30_000L // three Progress missing: something is due whenever this is asked
        const val AGENT = "draftlink-kotlin/0.1.0"

        // What `device` can draft with.
        val SCHEMES = listOf("topk", "dense", "coupled")
        val FEATURES = listOf(Features.SUPPRESSED, Features.PENALTIES, Features.LOGPROBS)
    }
}
