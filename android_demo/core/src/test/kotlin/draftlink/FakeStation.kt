package draftlink

import draftlink.coding.IdModel
import draftlink.coding.Payloads
import draftlink.model.DraftModel
import draftlink.session.ProtocolException
import draftlink.session.Role
import draftlink.session.Session
import draftlink.session.State
import draftlink.transport.Connect
import draftlink.transport.Link
import draftlink.transport.LostException
import draftlink.wire.Done
import draftlink.wire.Draft
import draftlink.wire.Finish
import draftlink.wire.Frame
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
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.withTimeoutOrNull
import okio.ByteString
import okio.ByteString.Companion.toByteString

const val VOCABULARY = 50

private const val STEP_MS = 10L

/** What the fake target writes behind a [history]: a function of it. */
fun nextOf(history: List<Int>): Int = (history.takeLast(3).fold(7) { sum, id -> sum * 31 + id } and 0xFFFF) % VOCABULARY

/** A draft that is right two times of three. */
class FakeDraft(override val context: Int = 1000) : DraftModel {
    private val fed = ArrayList<Int>()
    override val vocabSize = VOCABULARY
    override val length: Int get() = fed.size

    override fun forward(ids: List<Int>): FloatArray {
        require(ids.isNotEmpty() && length + ids.size <= context)
        fed += ids
        val right = nextOf(fed)
        val guess = if (right % 3 == 0) (right + 1) % VOCABULARY else right
        return FloatArray(VOCABULARY) { if (it == guess) 9f else 0f }
    }

    override fun rollback(length: Int) {
        require(length in 0..fed.size)
        while (fed.size > length) fed.removeAt(fed.lastIndex)
    }

    override fun close() = Unit
}

/**
 * A base station in this process, for texts at temperature 0: it answers each message at once, cuts the
 * connection where [cuts] says so, and [spoils] what it says. [remembers]: a session outlives its
 * connection. [features]: those that it speaks of a device's.
 */
class FakeStation(
    private val remembers: () -> Boolean = { true },
    private val cuts: () -> Boolean = { false },
    private val spoils: (ByteString) -> ByteString = { it },
    private val features: (List<String>) -> List<String> = { it },
) : Connect {
    private var parked: Session? = null
    private var history = ArrayList<Int>()
    var connections = 0
        private set

    override suspend fun connect(url: String): Link {
        connections++
        return Connection()
    }

    private inner class Connection : Link {
        private val session = Session(Role.BS, VOCABULARY)
        private val due = Channel<ByteString>(Channel.UNLIMITED)
        private val proposed = Channel<Unit>(Channel.CONFLATED)
        private var path = ArrayList<Int>() // what was proposed of it, from session.headway.pathBase on
        private var over = false

        override suspend fun send(message: ByteString) {
            if (over) throw LostException("cut")
            if (cuts()) return lose()
            try {
                answer(session.receive(message))
            } catch (_: MalformedException) { // of a device that was told another text
                return lose()
            } catch (_: ProtocolException) {
                return lose()
            }
            if (cuts()) lose() // what was said is lost
        }

        override suspend fun receive(): ByteString {
            if (!over && due.isEmpty) write()
            val data = due.receive()
            if (over) throw LostException("cut")
            return spoils(data)
        }

        /** What it writes without being asked. */
        private suspend fun write() {
            when (session.state) {
                State.STREAMING -> stream()
                State.WRITING -> {
                    withTimeoutOrNull(STEP_MS) { proposed.receive() } // as long as a step takes, or until there is something
                    if (over || session.state != State.WRITING) return
                    step()
                }
                else -> return
            }
            if (cuts()) lose()
        }

        private fun lose() {
            over = true
            parked = session.takeIf { it.generation != 0L }
            due.close(LostException("cut"))
        }

        override fun close() {
            if (!over) lose()
        }

        private fun say(frame: Frame) {
            due.trySend(session.send(frame))
        }

        private fun answer(frame: Frame?) {
            when (frame) {
                is Hello -> say(
                    Welcome(
                        6, frame.tokenizerHash, VOCABULARY.toLong(), 2000, frame.schemes, "fake", "float32",
                        "ticket".toByteArray().toByteString(), features(frame.features),
                    ),
                )
                is Start -> {
                    history = ArrayList(history.take(frame.base.toInt()) + frame.ids)
                    path.clear()
                }
                is Draft -> verdict(frame)
                is Propose -> propose(frame)
                is Finish -> {
                    history = ArrayList(history.take(frame.keep.toInt()))
                    say(Done(frame.generation, frame.keep, session.epoch + 1))
                }
                is Resume -> resume(frame)
                is Replay -> history = ArrayList(frame.ids)
                is Switch -> if (session.state == State.SWITCHING) say(Switched(frame.generation, session.epoch + 1, session.length))
                null -> Unit
                else -> error("a device sent $frame")
            }
        }

        private fun resume(asked: Resume) {
            val live = parked?.takeIf { remembers() }?.let { session.adopt(it) } ?: false
            say(Resumed(asked.start.generation, if (live) session.headway.frames.received else 0, !live))
            if (!live) return
            for (data in session.resend(asked.seen)) due.trySend(data)
            if (session.state == State.WRITING && history.size > asked.length) { // told once more
                val rest = history.drop(asked.length.toInt())
                say(Written(asked.length, rest, 0, rest.size.toLong() == session.headway.left, 0, 0, rows = 0))
            }
        }

        private fun propose(frame: Propose) {
            if (frame.first == 0L) path = ArrayList()
            val ids = IdModel(VOCABULARY).apply { extend(history.take(frame.base.toInt()) + path) }
            val payloads = Payloads(session.headway.start!!.scheme, true, VOCABULARY)
            path += payloads.decode(frame.payload, frame.length.toInt(), ids).map { it.token }
            proposed.trySend(Unit)
        }

        /** What was proposed and is right, and a token of its own. */
        private fun step() {
            val begin = history.size
            val base = session.headway.pathBase.toInt()
            val left = session.headway.left
            if (path.take(begin - base) == history.drop(base)) {
                val right = path.drop(begin - base).take(left.toInt() - 1)
                for (id in right) if (id == nextOf(history)) history += id else break
            }
            val accepted = history.size - begin
            history += nextOf(history)
            val ids = history.drop(begin)
            say(Written(begin.toLong(), ids, accepted.toLong(), ids.size.toLong() == left, 0, STEP_MS * 1000))
        }

        private fun verdict(draft: Draft) {
            val payloads = Payloads(session.headway.start!!.scheme, true, VOCABULARY)
            val ids = IdModel(VOCABULARY).apply { extend(history) }
            var accepted = 0L
            for (token in payloads.decode(draft.payload, draft.length.toInt(), ids)) {
                if (token.token != nextOf(history)) break
                history += token.token
                accepted++
            }
            val left = session.headway.left - accepted
            val next = if (left > 0) nextOf(history).also { history += it } else null
            say(Verdict(draft.epoch, draft.base, accepted, next, left <= 1, 1, 1))
        }

        private fun stream() {
            val id = nextOf(history)
            history += id
            say(Tokens(session.epoch, session.length, listOf(id), session.headway.left == 1L))
        }
    }
}
