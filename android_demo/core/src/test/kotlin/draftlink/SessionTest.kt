package draftlink

import draftlink.session.ProtocolException
import draftlink.session.Role
import draftlink.session.Session
import draftlink.wire.Frames
import draftlink.wire.Replay
import draftlink.wire.Resume
import draftlink.wire.Resumed
import kotlinx.serialization.json.JsonObject
import okio.ByteString
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** Both ends of a golden conversation, what is under way between them, and what comes again. */
class Conversation(entry: JsonObject) {
    private val vocabSize = entry.int("vocab_size")
    private val history = entry.ints("history")
    private val device = Session(Role.DEVICE, vocabSize)
    private var bs = Session(Role.BS, vocabSize)
    private var parked: Session? = null
    private val underWay = Role.entries.associateWith { ArrayDeque<ByteString>() }
    private val again = Role.entries.associateWith { ArrayDeque<ByteString>() }

    private fun end(role: Role) = if (role == Role.DEVICE) device else bs

    private fun other(role: Role) = if (role == Role.DEVICE) Role.BS else Role.DEVICE

    /** One step: who said, sent or received what, and the numbers of that end afterwards. */
    fun play(step: JsonObject) {
        val verb = listOf("from", "sent", "received", "again").find { it in step } ?: return lose(step.flag("kept"))
        val role = Role.valueOf(step.text(verb).uppercase())
        when (verb) {
            "from" -> {
                send(step, role)
                take(step, other(role), underWay.getValue(other(role)).removeFirst(), overtaken = false)
                // Nothing here may come twice.
                assertThrows(ProtocolException::class.java) { end(other(role)).receive(step.bytes("hex")) }
            }
            "sent" -> send(step, role)
            "received" -> { // what was sent; or, with bytes of its own, a frame that no true peer sends here
                val data = if ("hex" in step) step.bytes("hex") else underWay.getValue(role).removeFirst()
                take(step, role, data, step.flag("overtaken"))
            }
            else -> {
                val data = again.getValue(role).removeFirst()
                assertEquals(step.text("hex"), data.hex())
                take(step, other(role), data, step.flag("overtaken"))
            }
        }
    }

    private fun lose(kept: Boolean) {
        device.reopen()
        parked = if (kept) bs else null
        bs = Session(Role.BS, vocabSize)
        underWay.values.forEach { it.clear() }
    }

    private fun send(step: JsonObject, role: Role) {
        val frame = Frames.decode(step.bytes("hex"))
        if (frame is Resume) assertEquals(frame, end(role).resume(history))
        val data = end(role).send(frame)
        if (step.text("type") != "Welcome") assertEquals(step.text("hex"), data.hex()) // see WireTest
        underWay.getValue(other(role)) += data
        check(step, role)
    }

    private fun take(step: JsonObject, role: Role, data: ByteString, overtaken: Boolean) {
        val frame = Frames.decode(data)
        assertEquals(step.text("type"), frame::class.simpleName)
        assertEquals(if (overtaken) null else frame, end(role).receive(data))
        check(step, role)
        when (frame) {
            is Resume -> {
                assertEquals(parked != null, parked?.let { bs.adopt(it) } ?: false)
                if (parked != null) again.getValue(Role.BS) += bs.resend(frame.seen)
            }
            is Resumed -> if (!frame.replay) again.getValue(Role.DEVICE) += device.resend(frame.handled)
            is Replay -> again.getValue(Role.DEVICE) += device.resend(0)
            else -> Unit
        }
    }

    private fun check(step: JsonObject, role: Role) {
        val end = end(role)
        assertEquals(
            Triple(step.text("state"), step.long("epoch"), step.long("length")),
            Triple(end.state.name, end.epoch, end.length),
        )
    }

    /** Nothing is left under way. */
    fun finish() = assertTrue((underWay.values + again.values).all { it.isEmpty() })
}

/** The session against the golden conversations: states, epochs and lengths at both ends, step by step. */
class SessionTest {
    @Test
    fun conversations() {
        for (file in listOf("sessions", "both", "logprobs", "recovery")) {
            Golden.each(file, "sessions") { entry ->
                val conversation = Conversation(entry)
                entry.objects("steps").forEachIndexed { i, step ->
                    try {
                        conversation.play(step)
                    } catch (error: Throwable) {
                        throw AssertionError("step $i, $step: $error", error)
                    }
                }
                conversation.finish()
            }
        }
    }
}
