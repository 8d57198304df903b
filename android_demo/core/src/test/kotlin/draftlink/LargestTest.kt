package draftlink

import draftlink.distribution.Distribution
import draftlink.distribution.largest
import draftlink.wire.Sampling
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import kotlin.random.Random

/** What is picked out of a vocabulary without sorting it, held to what sorting picks. */
class LargestTest {
    private fun sorted(values: DoubleArray, taken: (Int) -> Boolean) =
        values.indices.filter(taken).sortedWith(compareByDescending<Int> { values[it] + 0.0 }.thenBy { it }) // -0.0 is 0.0

    @Test
    fun asSorted() {
        val random = Random(1)
        repeat(2_000) {
            val values = DoubleArray(random.nextInt(1, 40)) { (random.nextInt(-3, 4) / 2.0) } // many are equal
            val k = random.nextInt(0, 45)
            val taken = { id: Int -> values[id] > -1.0 && id % 7 != 3 }
            assertEquals(sorted(values, taken).take(k), largest(values, k) { taken(it) }.toList(), "${values.toList()}, $k")
        }
    }

    /** The mass is reached behind the first 64 of them, or by none but all. */
    @Test
    fun massOfMany() {
        val random = Random(2)
        for (mass in listOf(0.05, 0.5, 0.9, 0.999)) {
            val scores = DoubleArray(2_000) { random.nextInt(0, 8) / 4.0 }
            val p = Distribution.of(scores, Sampling(temperature = 1.0))
            val cut = Distribution.of(scores, Sampling(temperature = 1.0, topP = mass))
            var before = 0.0
            val kept = sorted(scores) { true }.takeWhile { id -> (before < mass).also { before += p[id] } }
            assertEquals(kept.sorted(), cut.indices.filter { cut[it] > 0.0 }, "$mass")
        }
    }

    /** As NumPy's arg max: of 0.0 and -0.0, which are equal, the first. */
    @Test
    fun signedZeros() {
        assertEquals(1, Distribution.greedy(doubleArrayOf(-1.0, -0.0, 0.0)))
        assertEquals(1, Distribution.greedy(doubleArrayOf(-1.0, 0.0, -0.0)))
    }
}
