package draftlink

import draftlink.coding.IdModel
import draftlink.coding.RangeDecoder
import draftlink.coding.RangeEncoder
import draftlink.noise.Draws
import draftlink.noise.Purpose
import draftlink.noise.Race
import draftlink.wire.Control
import draftlink.wire.ControlCodec
import draftlink.wire.Frames
import draftlink.wire.Hot
import draftlink.wire.MalformedException
import draftlink.wire.Welcome
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonObject
import okio.ByteString.Companion.toByteString
import okio.buffer
import okio.source
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.condition.EnabledIfSystemProperty
import java.io.File
import java.math.BigInteger

/** What Python wrote (`tests/jvm_vectors.py`), where it did: decoded, encoded again, and equal to the bit. */
@EnabledIfSystemProperty(named = "draftlink.vectors", matches = ".+")
class CrossTest {
    private val folder = File(System.getProperty("draftlink.vectors"))

    private fun each(name: String, check: (JsonObject) -> Unit) {
        var count = 0
        File(folder, "$name.jsonl").forEachLine { line ->
            try {
                check(Json.parseToJsonElement(line).jsonObject)
            } catch (error: Throwable) {
                throw AssertionError("$name, line $count: $error in ${line.take(400)}", error)
            }
            count++
        }
        println("from Python: $name: $count equal")
    }

    @Test
    fun rows() {
        val models = HashMap<Int, IdModel>()
        each("rows") { entry ->
            val vocabSize = entry.int("vocab_size")
            val payloads = payloadsOf(entry.inner("scheme"), vocabSize)
            val ids = models.getOrPut(vocabSize) { IdModel(vocabSize) }
            val drafted = entry.objects("drafted").map { draftedOf(it, entry) }
            assertEquals(drafted, payloads.decode(entry.bytes("hex"), drafted.size, ids))
            val payload = payloads.encode(drafted, ids)
            assertEquals(entry.text("hex") to entry.int("bits"), payload.bytes.hex() to payload.bits)
        }
    }

    @Test
    fun frames() = each("frames") { entry ->
        val frame = Frames.decode(entry.bytes("hex"))
        assertEquals(entry.text("type"), frame::class.simpleName)
        if (frame !is Welcome) assertEquals(entry.text("hex"), Frames.encode(frame).hex())
        when (frame) {
            is Hot -> assertEquals(hotOf(entry.text("type"), entry.inner("fields")), frame)
            is Control -> assertEquals(ControlCodec.of(plain(entry.at("fields"))), frame)
        }
    }

    /** Both take the same bytes for a frame, and the same for none. */
    @Test
    fun `bytes that may be no frame`() {
        var refused = 0
        each("bytes") { entry ->
            val frame = try {
                Frames.decode(entry.bytes("hex"))
            } catch (error: MalformedException) {
                refused++
                null
            }
            assertEquals(entry.flag("frame"), frame != null) { "as $frame" }
        }
        println("from Python: $refused refused")
    }

    /** One model for each vocabulary, rolled back and extended from history to history. */
    @Test
    fun ids() {
        val models = HashMap<Int, Pair<IdModel, ArrayList<Int>>>()
        each("ids") { entry ->
            val vocabSize = entry.int("vocab_size")
            val (model, known) = models.getOrPut(vocabSize) { IdModel(vocabSize) to ArrayList() }
            val history = entry.ints("history")
            val common = known.zip(history).takeWhile { (a, b) -> a == b }.size
            model.rollback(common)
            model.extend(history.drop(common))
            known.clear()
            known += history
            val out = RangeEncoder()
            model.encode(out, entry.ints("tokens"))
            val payload = out.finish()
            assertEquals(entry.text("hex") to entry.int("bits"), payload.bytes.hex() to payload.bits)
            val source = RangeDecoder(payload.bytes)
            assertEquals(entry.ints("tokens"), model.decode(source, entry.ints("tokens").size))
            source.finish()
        }
    }

    @Test
    fun noise() {
        val x = DoubleArray(Race.BLOCK)
        var numbers = 0
        File(folder, "noise.bin").source().buffer().use { wanted ->
            each("noise") { entry ->
                val race = Race(Draws.keyFromSeed(BigInteger(entry.text("seed")), "coupled"))
                val position = entry.text("position").toULong().toLong()
                val first = entry.long("first")
                var opened = -1L
                for (id in first until first + 1000) {
                    if (id / Race.BLOCK != opened) {
                        opened = id / Race.BLOCK
                        race.clocks(position, opened.toInt(), x)
                    }
                    val bits = x[(id % Race.BLOCK).toInt()].toRawBits()
                    if (wanted.readLongLe() != bits) throw AssertionError("x($position, $id) is $bits")
                    numbers++
                }
            }
        }
        println("from Python: noise: $numbers numbers equal")
        assertEquals(1_000_000, numbers)
    }

    @Test
    fun picks() = each("picks") { entry ->
        val race = Race(Draws.keyFromSeed(BigInteger(entry.text("seed")), "coupled"))
        assertEquals(entry.int("pick"), race.pick(entry.long("position"), entry.doubles("weights")))
    }

    @Test
    fun draws() = each("draws") { entry ->
        val key = entry.bytes("key").toByteArray()
        val position = entry.long("position")
        val purpose = Purpose.valueOf(entry.text("purpose"))
        val number = entry.int("number")
        val bits = Draws.bits64(key, position, purpose, 3, number % 256)
        assertEquals(entry.text("bits64"), java.lang.Long.toUnsignedString(bits))
        assertEquals(entry.at("uniform").double(), Draws.uniform(key, position, purpose))
        assertEquals(entry.long("below"), Draws.below(key, position, purpose, entry.long("total"), number % 8))
        assertEquals(entry.text("epoch"), Draws.keyOfEpoch(key, position).toByteString().hex())
        assertEquals(entry.text("digest"), Draws.digest(entry.ints("ids")).hex())
    }
}
