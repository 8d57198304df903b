package draftlink.noise

/**
 * Philox-4x32-10 and Exp(1) numbers of its words (docs/protocol.md, 11.3): integers, and float64
 * operations that IEEE 754 rounds in one way only. The JVM and Android fuse none of them, and no
 * library's logarithm is called, for libraries differ in theirs.
 */
internal object Philox {
    private const val MASK = 0xFFFF_FFFFL

    /** Writes the four words of a counter under a key to [out]; all words are from 0 to 2³² − 1. */
    fun words(counter: Long, purpose: Long, p0: Long, p1: Long, key0: Long, key1: Long, out: LongArray) {
        var c0 = counter
        var c1 = purpose
        var c2 = p0
        var c3 = p1
        var k0 = key0
        var k1 = key1
        repeat(10) {
            val a = c0 * 0xD2511F53L // all 64 bits are right, though the sign may be wrong
            val b = c2 * 0xCD9E8D57L
            c0 = b ushr 32 xor c1 xor k0
            c1 = b and MASK
            c2 = a ushr 32 xor c3 xor k1
            c3 = a and MASK
            k0 = k0 + 0x9E3779B9L and MASK
            k1 = k1 + 0xBB67AE85L and MASK
        }
        out[0] = c0
        out[1] = c1
        out[2] = c2
        out[3] = c3
    }

    /** Exp(1) of two words: −log(u), u = (2n + 1) / 2⁵³ for n of 52 bits. */
    fun exponential(high: Long, low: Long): Double {
        val n = high shl 20 or (low ushr 12)
        return -log((2 * n + 1).toDouble() * EPSILON)
    }

    /** The natural logarithm of a positive normal [u], in the page's order of operations. */
    fun log(u: Double): Double {
        val shifted = u.toRawBits() + (0x3FF0000000000000L - 0x3FE6A09E00000000L)
        val f = Double.fromBits((shifted and 0x000FFFFFFFFFFFFFL) + 0x3FE6A09E00000000L) - 1.0
        val k = ((shifted shr 52) - 1023).toDouble()
        val s = f / (f + 2.0)
        val z = s * s
        val w = z * z
        val even = (w * 1.531383769920937332e-01 + 2.222219843214978396e-01) * w + 3.999999999940941908e-01
        val odd = (w * 1.479819860511658591e-01 + 1.818357216161805012e-01) * w + 2.857142874366239149e-01
        val r = even * w + (odd * w + 6.666666666666735130e-01) * z
        val h = f * f * 0.5
        val small = s * (h + r) + k * 1.90821492927058770002e-10
        return small - h + f + k * 6.93147180369123816490e-01
    }

    private const val EPSILON = 1.0 / (1L shl 53)
}
