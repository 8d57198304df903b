package draftlink

import draftlink.noise.Draws
import draftlink.noise.Philox
import draftlink.noise.Purpose
import draftlink.noise.Race
import okio.ByteString.Companion.toByteString
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import java.lang.Long.toUnsignedString
import java.math.BigInteger

/** Keys, draws and the shared noise against the golden files, to the bit. */
class NoiseTest {
    @Test
    fun keys() = Golden.each("noise", "keys") { entry ->
        val key = Draws.keyFromSeed(BigInteger(entry.text("seed")), entry.text("role"))
        assertEquals(entry.text("key"), key.toByteString().hex())
    }

    @Test
    fun draws() {
        for (name in listOf("noise", "recovery")) {
            Golden.each(name, "draws") { entry ->
                val key = entry.bytes("key").toByteArray()
                val purpose = Purpose.valueOf(entry.text("purpose"))
                val position = entry.long("position")
                val tier = if (entry.has("tier")) entry.int("tier") else 0
                val pair = if (entry.has("pair")) entry.int("pair") else 0
                assertEquals(entry.text("bits64"), toUnsignedString(Draws.bits64(key, position, purpose, tier, pair)))
                if (tier == 0) {
                    assertEquals(entry.at("uniform").double(), Draws.uniform(key, position, purpose, pair))
                }
                if (entry.has("below_256")) {
                    assertEquals(entry.long("below_256"), Draws.below(key, position, purpose, 256, tier))
                }
            }
        }
    }

    @Test
    fun philox() = Golden.each("noise", "philox") { entry ->
        val (c0, c1, c2, c3) = entry.longs("counter")
        val (k0, k1) = entry.longs("key")
        val words = LongArray(4)
        Philox.words(c0, c1, c2, c3, k0, k1, words)
        assertEquals(entry.longs("words"), words.toList())
    }

    @Test
    fun logarithm() = Golden.each("noise", "log") { entry ->
        assertEquals(entry.at("log").double().toRawBits(), Philox.log(entry.at("u").double()).toRawBits())
    }

    @Test
    fun race() = Golden.each("noise", "race") { entry ->
        val race = race(entry.text("seed"))
        assertEquals(entry.longs("philox_key"), race.keyWords.toList())
        val found = entry.longs("ids").map { race.x(entry.long("position"), it).toRawBits() }
        assertEquals(entry.doubles("x").map { it.toRawBits() }, found)
    }

    @Test
    fun picks() = Golden.each("noise", "picks") { entry ->
        val given = entry.at("weights")
        val plain = given.toString() == "\"v + 1 for v below 1000\""
        val weights = if (plain) DoubleArray(1000) { it + 1.0 } else entry.doubles("weights")
        val (first, end) = entry.longs("positions")
        assertEquals(entry.ints("picks"), (first until end).map { race(entry.text("seed")).pick(it, weights) })
    }

    private fun race(seed: String) = Race(Draws.keyFromSeed(BigInteger(seed), "coupled"))
}
