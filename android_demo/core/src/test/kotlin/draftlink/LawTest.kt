package draftlink

import draftlink.device.Drafter
import draftlink.distribution.Drafted
import draftlink.model.DraftModel
import draftlink.wire.Sampling
import draftlink.wire.Scheme
import draftlink.wire.Start
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import kotlin.random.Random

/**
 * What is written follows the target's law whatever the draft: 200,000 tokens at six ids, drafted by the
 * device's own code and judged as a base station does (docs/protocol.md, 7.2). The rows that are judged by
 * are those that were sent, so a draw that is not from them shows.
 */
class LawTest {
    private val p = doubleArrayOf(0.05, 0.35, 0.15, 0.20, 0.15, 0.10)
    private val q = doubleArrayOf(0.30, 0.12, 0.30, 0.12, 0.08, 0.08)
    private val draws = 200_000

    /** A draft to which every token is followed by the same row. */
    private inner class Flat : DraftModel {
        override val vocabSize = q.size
        override val context = 100
        override var length = 0
        override fun forward(ids: List<Int>): FloatArray {
            length += ids.size
            return FloatArray(q.size) { Math.log(q[it]).toFloat() }
        }

        override fun rollback(length: Int) {
            this.length = length
        }

        override fun close() = Unit
    }

    private fun drafted(scheme: Scheme, seed: Int): Drafted {
        val start = Start(1, 0, listOf(0), Sampling(), scheme, "draft", 9, emptyList(), null)
        val key = Random(seed).nextBytes(32)
        return Drafter(Flat(), start, q.size, key).propose(listOf(0), 1, 1).single().drafted
    }

    /** The token that is written where [one] was drafted: itself, or one of what it left over. */
    private fun judged(one: Drafted, random: Random): Int {
        val row = one.row!!
        if (random.nextDouble() * one.count < p[one.token] * one.total) return one.token
        return drawn(DoubleArray(p.size) { maxOf(0.0, p[it] - row.probability(it)) }, random)
    }

    private fun drawn(weights: DoubleArray, random: Random): Int {
        var left = random.nextDouble() * weights.sum()
        for (id in weights.indices) {
            left -= weights[id]
            if (left < 0) return id
        }
        return weights.indices.last { weights[it] > 0 }
    }

    private fun chiSquare(write: (Int, Random) -> Int): Double {
        val found = IntArray(p.size)
        val random = Random(28)
        for (seed in 0 until draws) found[write(seed, random)]++
        return p.indices.sumOf { (found[it] - draws * p[it]).let { off -> off * off / (draws * p[it]) } }
    }

    // Of five degrees of freedom: exceeded once in a million.
    private val limit = 35.9

    @Test
    fun `what is written follows the target`() {
        val schemes = listOf(
            Scheme.TopK(4, 5, tiers = 1), Scheme.TopK(3, 1, Scheme.FP16), Scheme.TopK(5, 16, mass = 0.6), Scheme.Dense,
        )
        for (scheme in schemes) {
            val found = chiSquare { seed, random -> judged(drafted(scheme, seed), random) }
            println("law: $scheme chi-square $found")
            assertTrue(found < limit) { "$scheme: $found" }
        }
    }

    /** The control: drawn from the draft before it is rounded, as published systems do it. */
    @Test
    fun `drawing before rounding is found`() {
        val found = chiSquare { seed, random ->
            val sent = drafted(Scheme.TopK(4, 5, tiers = 1), seed)
            val row = sent.row!!
            val token = row.ids[drawn(DoubleArray(row.ids.size) { q[row.ids[it]] }, random)]
            judged(Drafted.of(row, row.ids.indexOf(token)), random)
        }
        println("law: drawn before rounding, chi-square $found")
        assertTrue(found > 2 * limit) { "$found" }
    }
}
