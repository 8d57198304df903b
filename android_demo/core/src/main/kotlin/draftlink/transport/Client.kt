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
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.sync.Mutex
import kotlinx.coroutines.sync.withLock
import kotlinx.coroutines.withTimeoutOrNull
import okio.ByteString

/**
 * A greeted session, over one connection after another.
 *
 * When a connection is lost, the next [receive] makes a new one and goes on with the generation where
 * both ends had agreed; nothing of it is drawn again. One coroutine may receive while another sends, on
 * one thread: all calls but [close] come from coroutines that never run at the same time.
 */
class Client(
    val url: String,
    private val tokenizerHash: String,
    private val vocabSize: Int,
    private val connect: Connect = OkLink.connector(),
    patienceS: Double = 60.0,
    deadlines: Deadlines = Deadlines(),
    private val nowS: () -> Double = { System.nanoTime() * 1e-9 },
) {
    val session = Session(Role.DEVICE, vocabSize)
    private val states = MutableStateFlow(LinkState.CLOSED)

    /** Whether the base station can be heard. */
    val state: StateFlow<LinkState> get() = states

    /** The base station's greeting. */
    lateinit var welcome: Welcome
        private set

    /** How often a new connection was made. */
    var reconnects = 0
        private set

    /** Seconds that the last greeting took, there and back. */
    var rttS = 0.0
        private set

    /** Bytes of the messages that were sent and received, without the WebSocket's own. */
    var sentBytes = 0L
        private set
    var receivedBytes = 0L
        private set

    /** The tokens of the conversation so far; what was received is in it before the next [receive]. */
    var history: List<Int> = emptyList()

    private val patience = Patience(patienceS)
    private val silence = Silence(session, deadlines, nowS)
    private val mending = Mutex() // held while frames are sent, or a new connection is made
    private var ticket = ByteString.EMPTY
    private var link: Link? = null

    @Volatile
    private var gone: LinkException? = null

    /** Whether frames can be sent: no new connection is being made. */
    val connected: Boolean get() = states.value != LinkState.LOST

    /** Whether no greeted connection is there: it was refused, or left while a new one was made. */
    private val interrupted: Boolean
        get() = link == null || !(session.state == State.READY || session.state == State.FINISHING || session.state.underWay)

    /** Connects and greets. Throws [LinkException]. */
    suspend fun open() {
        gone?.let { throw it }
        try {
            greet()
            states.value = LinkState.OPEN
        } catch (error: LostException) {
            giveUp(LinkException("no base station at $url (${error.message}); check the address", error.retryAfterS))
        } catch (error: LinkException) {
            giveUp(error)
        } catch (error: Throwable) {
            close()
            throw error
        }
    }

    /** The base station sent something that cannot be here; it stays so. Throws [LinkException]. */
    fun broke(frame: Frame, wanted: String): Nothing =
        giveUp(LinkException("the base station sent ${frame::class.simpleName}, not $wanted"))

    private fun giveUp(why: LinkException): Nothing {
        if (gone == null) {
            gone = why
            states.value = LinkState.GONE
        }
        hangUp()
        throw gone!!
    }

    /** Sends a [frame]. Where the connection is lost the next [receive] makes a new one, and sends it again. */
    suspend fun send(frame: Frame) = mending.withLock {
        gone?.let { throw it }
        val data = session.send(frame)
        if (frame is Start) patience.renew()
        put(data)
    }

    /**
     * The next frame that has not been overtaken. What was received before has to be in [history]: after a
     * lost connection both ends go on from there. Throws [LinkException].
     */
    suspend fun receive(): Frame {
        while (true) {
            gone?.let { throw it }
            val there = mending.withLock { link } // who sends may be at it
            val lost = try {
                return get()
            } catch (error: LostException) {
                error
            } catch (error: LinkException) { // it stays so
                giveUp(error)
            }
            mending.withLock {
                if (link === there) {
                    states.compareAndSet(LinkState.OPEN, LinkState.LOST)
                    try {
                        reconnect(lost)
                    } catch (error: LinkException) {
                        giveUp(error)
                    } finally {
                        states.compareAndSet(LinkState.LOST, LinkState.OPEN)
                    }
                }
            }
        }
    }

    /**
     * Ends the generation: the base station forgets what comes behind [keep] tokens. Where there is no
     * connection to say so on, a new one is made, which begins with nothing. Throws [LinkException].
     */
    suspend fun finish(keep: Long) {
        gone?.let { throw it }
        if (interrupted) { // it was left while a new connection was looked for
            session.abandon()
            patience.renew()
            return reconnect(LostException("the connection was left"))
        }
        leave(keep)
        while (session.state == State.FINISHING) {
            try {
                if (get() !is Done) throw LinkException("the base station sent something else than Done")
            } catch (error: LostException) {
                reconnect(error) // and the generation is over
            }
        }
    }

    /** Says that the generation ends, as [finish] does, if that can be said; and waits for nothing. */
    suspend fun leave(keep: Long) {
        if (gone != null || interrupted || session.state == State.FINISHING || session.state == State.READY) return
        send(Finish(session.generation, minOf(keep, session.length)))
    }

    /** Closes the connection. */
    fun close() {
        if (gone == null) {
            gone = LinkException("the connection to $url was closed")
            states.value = LinkState.CLOSED
        }
        hangUp()
    }

    private fun hangUp() {
        link?.close()
        link = null
    }

    private suspend fun greet() {
        link = withTimeoutOrNull(CONNECT_MS) { connect.connect(url) } ?: throw LostException("it does not answer")
        val askedS = nowS()
        put(session.send(hello()))
        val said = get() as? Welcome ?: throw LinkException("the base station sent something else than Welcome")
        rttS = nowS() - askedS
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
            gone?.let { throw it }
            hangUp()
            val pauseS = patience.after(nowS(), cause)
            if (pauseS == null) giveUp(LinkException("the base station at $url has gone (${cause.message}); the text so far is kept"))
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
        silence.sends()
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
        silence.begins()
        while (true) {
            val data = silence.hear(there)
            receivedBytes += data.size
            val frame = try {
                session.receive(data)
            } catch (error: RemoteProtocolException) {
                session.abandon()
                giveUp(LinkException("the base station broke the protocol: ${error.message}"))
            }
            if (frame != null) silence.begins() // one that was overtaken says nothing of what is due
            when (frame) {
                null -> continue
                is Refused -> giveUp(LinkException("the base station refuses: ${frame.reason}", frame.retryAfterS))
                is Progress -> patience.heard(frame, nowS())
                else -> {
                    patience.heard(frame, nowS())
                    return frame
                }
            }
        }
    }

    private companion object {
        const val CONNECT_MS = 15_000L
        const val AGENT = "draftlink-kotlin/0.1.0"

        // What `device` can draft with.
        val SCHEMES = listOf("topk", "dense", "coupled")
        val FEATURES = listOf(
            Features.SUPPRESSED, Features.PENALTIES, Features.LOGPROBS, Features.BOTH, Features.STREAMED,
        )
    }
}
