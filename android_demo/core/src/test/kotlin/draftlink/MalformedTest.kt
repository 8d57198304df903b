package draftlink

import draftlink.coding.IdModel
import draftlink.coding.TargetRows
import draftlink.wire.Draft
import draftlink.wire.Frames
import draftlink.wire.Logprobs
import draftlink.wire.MalformedException
import kotlinx.serialization.json.JsonObject
import okio.Buffer
import okio.ByteString
import okio.ByteString.Companion.decodeHex
import okio.ByteString.Companion.toByteString
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import kotlin.random.Random

/** Whatever a base station sends is what it should be, or a [MalformedException]: no other error, no hang. */
class MalformedTest {
    private val random = Random(28)
    private val vocabSize = 1000

    /** What becomes of the bytes of good ones, some of which are changed, cut off or put in. */
    private fun spoilt(data: ByteString): ByteString {
        val bytes = data.toByteArray()
        repeat(1 + random.nextInt(3)) { if (bytes.isNotEmpty()) bytes[random.nextInt(bytes.size)] = random.nextInt().toByte() }
        val at = random.nextInt(bytes.size + 1)
        val more = random.nextBytes(random.nextInt(4))
        return (bytes.copyOf(at) + more + bytes.drop(at + random.nextInt(3)).toByteArray()).toByteString()
    }

    /** How many of the [count] spoilt ones [read] still takes. */
    private fun taken(count: Int, good: List<ByteString>, read: (ByteString) -> Unit): Int {
        var taken = 0
        for (number in 0 until count) {
            val data = spoilt(good[number % good.size])
            try {
                read(data)
                taken++
            } catch (_: MalformedException) {
                continue
            } catch (error: Throwable) {
                throw AssertionError("${data.hex()}: $error", error)
            }
        }
        return taken
    }

    private fun hexes(name: String, list: String): List<ByteString> {
        val found = ArrayList<ByteString>()
        Golden.all(name, list) { found += it.bytes("hex") }
        return found
    }

    @Test
    fun `any bytes are a frame or an error`() {
        val good = listOf("control", "both", "logprobs", "penalties").flatMap { hexes(it, "control") } +
            listOf("hot", "both", "logprobs").flatMap { hexes(it, "hot") } + hexes("drafts", "drafts")
        assert(taken(100_000, good) { Frames.decode(it) } in 1 until 100_000)
    }

    @Test
    fun `any payload is drafted tokens or an error`() {
        Golden.all("drafts", "drafts") { entry -> check(entry) }
    }

    private fun check(entry: JsonObject) {
        val payloads = payloadsOf(entry.inner("scheme"), entry.int("vocab_size"))
        val ids = IdModel(entry.int("vocab_size"))
        ids.extend(entry.ints("history"))
        val frame = Frames.decode(entry.bytes("hex")) as Draft
        taken(400, listOf(frame.payload)) { payloads.decode(it, frame.length.toInt(), ids) }
        assertEquals(entry.ints("history").size, ids.length)
    }

    @Test
    fun `any row is a row or an error`() {
        Golden.all("rows", "target") { entry ->
            val size = entry.doubles("logits").size
            taken(20_000, listOf(entry.bytes("packed"))) { TargetRows.logits(it, size) }
        }
        taken(20_000, hexes("recovery", "pairs")) { TargetRows.draws(it, 0, 256, vocabSize) }
        taken(20_000, hexes("recovery", "all")) { TargetRows.all(it, vocabSize) }
        Golden.all("logprobs", "hot") { entry ->
            val block = entry.inner("fields").bytes("logprobs")
            val tokens = entry.objects("told").size
            taken(2_000, listOf(block)) { Logprobs.decode(it, tokens, entry.int("count"), vocabSize) }
        }
    }

    /** A header of five bytes that claims 2³² − 1 of something costs no more than those bytes. */
    @Test
    fun `sizes are believed as far as there are bytes`() {
        for (kind in listOf("dd", "df", "db", "c6", "c9")) {
            assertThrows(MalformedException::class.java) { Frames.decode("0181a161${kind}ffffffff".decodeHex()) }
        }
    }

    @Test
    fun `values nested without end are no frame`() {
        val deep = Buffer().writeByte(1).write("81a161".decodeHex())
        repeat(Frames.MAX_MESSAGE_BYTES - 5) { deep.writeByte(0x91) }
        deep.writeByte(0xC0)
        val data = deep.readByteString()
        assertThrows(MalformedException::class.java) { Frames.decode(data) }
    }

    /** What is read leaves nothing behind: the heap after 1,000 bad frames is that before them. */
    @Test
    fun `a thousand bad frames leave nothing behind`() {
        val good = hexes("hot", "hot") + hexes("control", "control")
        taken(1_000, good) { Frames.decode(it) }
        val before = held()
        taken(1_000, good) { Frames.decode(it) }
        val grown = (held() - before) / before.toDouble()
        assert(grown < 0.05) { "the heap has grown by ${100 * grown}%" }
    }

    private fun held(): Long {
        val runtime = Runtime.getRuntime()
        repeat(3) { System.gc() }
        return runtime.totalMemory() - runtime.freeMemory()
    }
}
