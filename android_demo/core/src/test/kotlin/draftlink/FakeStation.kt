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
import draftlink.wire.Replay
import draftlink.wire.Resume
import draftlink.wire.Resumed
import draftlink.wire.Start
import draftlink.wire.Switch
import draftlink.wire.Tokens
import draftlink.wire.Verdict
import draftlink.wire.Welcome
import okio.ByteString
import okio.ByteString.Companion.toByteString

const val VOCABULARY = 50

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
 * connection where [cuts] says so, and [spoils] what it says. [remembers]: a session outlives its connection.
 */
class FakeStation(
    private val remembers: () -> Boolean = { true },
    private val cuts: () -> Boolean = { false },
    private val spoils: (ByteString) -> ByteString = { it },
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
        private val due = ArrayDeque<ByteString>()
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
            if (due.isEmpty() && session.state == State.STREAMING && !over) {
                stream()
                if (cuts()) lose()
            }
            return spoils(due.removeFirstOrNull() ?: throw LostException(if (over) "cut" else "nothing is due"))
        }

        private fun lose() {
            over = true
            parked = session.takeIf { it.generation != 0L }
            due.clear()
        }

        override fun close() {
            if (!over) lose()
        }

        private fun say(frame: Frame) {
            due += session.send(frame)
        }

        private fun answer(frame: Frame?) {
            when (frame) {
                is Hello -> say(
                    Welcome(
                        6, frame.tokenizerHash, VOCABULARY.toLong(), 2000, frame.schemes, "fake", "float32",
                        "ticket".toByteArray().toByteString(), frame.features,
                    ),
                )
                is Start -> history = ArrayList(history.take(frame.base.toInt()) + frame.ids)
                is Draft -> verdict(frame)
                is Finish -> {
                    history = ArrayList(history.take(frame.keep.toInt()))
                    say(Done(frame.generation, frame.keep, session.epoch + 1))
                }
                is Resume -> resume(frame)
                is Replay -> history = ArrayList(frame.ids)
                is Switch, null -> Unit
                else -> error("a device sent $frame")
            }
        }

        private fun resume(asked: Resume) {
            val live = parked?.takeIf { remembers() }?.let { session.adopt(it) } ?: false
            say(Resumed(asked.start.generation, if (live) session.headway.frames.received else 0, !live))
            if (live) due += session.resend(asked.seen)
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
