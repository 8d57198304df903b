package draftlink

import draftlink.wire.ControlCodec
import draftlink.wire.Draft
import draftlink.wire.Frames
import draftlink.wire.Logprobs
import draftlink.wire.MalformedException
import draftlink.wire.Start
import draftlink.wire.Tokens
import draftlink.wire.Welcome
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonArray
import okio.ByteString.Companion.decodeHex
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

/** Frames against the golden files: what they say, and their bytes, both ways. */
class WireTest {
    @Test
    fun `control messages`() {
        for (name in listOf("control", "both", "logprobs", "penalties", "recovery", "leaves", "branches", "streamed")) {
            Golden.each(name, "control") { entry ->
                val bytes = entry.bytes("hex")
                val message = Frames.decode(bytes)
                assertEquals(entry.text("type"), message::class.simpleName)
                // The reference keeps two bytes for the size of a Welcome's map: it may have 18 keys. A device sends none.
                if (message !is Welcome) assertEquals(entry.text("hex"), Frames.encode(message).hex())
                assertEquals(message, Frames.decode(Frames.encode(message)))
                // The fields say the same as the bytes: a message made of them alone is equal.
                assertEquals(message, ControlCodec.of(plain(entry.at("fields"))))
            }
        }
    }

    @Test
    fun `hot frames`() {
        for (name in listOf("hot", "both", "logprobs", "leaves", "branches", "streamed")) {
            Golden.each(name, "hot") { entry ->
                val frame = hotOf(entry.text("type"), entry.inner("fields"))
                assertEquals(entry.text("hex"), Frames.encode(frame).hex())
                assertEquals(frame, Frames.decode(entry.bytes("hex")))
            }
        }
    }

    @Test
    fun `drafts that ask`() = Golden.each("recovery", "asking") { entry ->
        val frame = Frames.decode(entry.bytes("hex")) as Draft
        assertEquals(entry.text("hex"), Frames.encode(frame).hex())
        assertEquals(entry.longs("epoch", "base", "had"), listOf(frame.epoch, frame.base, frame.had))
    }

    @Test
    fun varints() = Golden.each("hot", "varints") { entry ->
        val tokens = Tokens(entry.long("value"), 0, listOf(0), false)
        val data = "0400${entry.text("hex")}000100".decodeHex()
        assertEquals(data, Frames.encode(tokens))
        assertEquals(tokens, Frames.decode(data))
    }

    @Test
    fun `malformed frames`() {
        for (name in listOf("hot", "both", "logprobs", "recovery", "leaves", "branches", "streamed")) {
            Golden.each(name, "malformed") { entry ->
                assertThrows(MalformedException::class.java) { Frames.decode(entry.bytes("hex")) }
            }
        }
    }

    @Test
    fun `log-probabilities`() = Golden.each("logprobs", "hot") { entry ->
        val told = entry.objects("told").map { one ->
            val top = one.array("top").map { it.jsonArray.longs() }
            Logprobs(one.long("own"), top.map { it[0].toInt() }, top.map { it[1] })
        }
        val block = entry.inner("fields").bytes("logprobs")
        assertEquals(told, Logprobs.decode(block, told.size, entry.int("count"), entry.int("vocab_size")))
        assertEquals(block, Logprobs.encode(told))
    }

    @Test
    fun `log-probabilities that cannot be`() = Golden.each("logprobs", "refused") { entry ->
        assertThrows(MalformedException::class.java) {
            Logprobs.decode(entry.bytes("hex"), entry.int("tokens"), entry.int("count"), entry.int("vocab_size"))
        }
    }

    @Test
    fun `penalties that cannot be`() = Golden.each("penalties", "refused") { entry ->
        val start = Frames.decode(entry.bytes("hex")) as Start
        assertThrows(IllegalArgumentException::class.java) { start.sampling.check() }
    }

    private fun JsonObject.longs(vararg keys: String) = keys.map { long(it) }
}
