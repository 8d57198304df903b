package draftlink

import draftlink.session.ProtocolException
import draftlink.session.Role
import draftlink.session.Session
import draftlink.wire.Frames
import draftlink.wire.MalformedException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonObject
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.condition.EnabledIfSystemProperty
import java.io.File

/** Random walks that Python wrote (`tests/jvm_talks.py`): each frame is taken, refused or overtaken as there. */
@EnabledIfSystemProperty(named = "draftlink.vectors", matches = ".+")
class TalksTest {
    @Test
    fun talks() {
        var walks = 0
        var frames = 0
        File(System.getProperty("draftlink.vectors"), "talks.jsonl").forEachLine { line ->
            val entry = Json.parseToJsonElement(line).jsonObject
            val session = Session(Role.valueOf(entry.text("role").uppercase()), entry.int("vocab_size"))
            entry.objects("steps").forEachIndexed { i, step ->
                try {
                    play(session, step)
                } catch (error: Throwable) {
                    throw AssertionError("walk $walks, step $i, $step: $error", error)
                }
                frames++
            }
            walks++
        }
        println("from Python: talks: $walks equal, of $frames frames")
    }

    private fun play(session: Session, step: JsonObject) {
        if ("lost" in step) session.reopen() else assertEquals(step.text("outcome"), outcome(session, step))
        val headway = session.headway
        assertEquals(step.text("state"), session.state.name)
        assertEquals(
            listOf("generation", "epoch", "length", "written").map { step.long(it) },
            listOf(session.generation, session.epoch, session.length, headway.written),
        )
        assertEquals(step.longs("drafts"), headway.drafts)
        val flags = listOf(headway.waits, headway.first, headway.owed, headway.switching)
        assertEquals(step.array("flags").toString(), flags.toString().replace(" ", ""))
        assertEquals(step.longs("path"), listOf(headway.path, headway.pathBase, headway.proposed ?: -1L, headway.known))
        assertEquals(step.longs("frames"), listOf(headway.frames.sent, headway.frames.received))
        assertEquals(step.array("again").map { it.toString().trim('"') }, session.resend(0).map { it.hex() })
    }

    private fun outcome(session: Session, step: JsonObject): String {
        val data = step.bytes("hex")
        try {
            if (step.text("verb") == "receive") return if (session.receive(data) == null) "overtaken" else "taken"
            session.send(Frames.decode(data))
            return "taken"
        } catch (_: ProtocolException) {
            return "refused"
        } catch (_: MalformedException) { // an id of 2³¹ or more, which no frame has here
            return "refused"
        }
    }
}
