package draftlink.noise

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** BLAKE2b (RFC 7693) with a key and a personalisation, which the platform's digests lack. */
object Blake2b {
    private const val BLOCK = 128

    private val IV = longArrayOf(
        0x6a09e667f3bcc908, -0x4498517a7b3558c5, 0x3c6ef372fe94f82b, -0x5ab00ac5a0e2c90f,
        0x510e527fade682d1, -0x64fa9773d4c193e1, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179,
    )

    private val SIGMA = arrayOf(
        intArrayOf(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        intArrayOf(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
        intArrayOf(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
        intArrayOf(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
        intArrayOf(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
        intArrayOf(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
        intArrayOf(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
        intArrayOf(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
        intArrayOf(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
        intArrayOf(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
    )

    /**
     * The digest of [message], of [size] bytes (1 to 64), under a [key] of at most 64 bytes (none: an
     * empty one) and a [person]alisation of at most 16 ASCII characters, padded with zeros.
     */
    fun digest(message: ByteArray, size: Int, key: ByteArray = ByteArray(0), person: String = ""): ByteArray {
        require(size in 1..64 && key.size <= 64 && person.length <= 16) { "no BLAKE2b has such parameters" }
        val h = IV.copyOf()
        h[0] = h[0] xor (0x01010000L or (key.size.toLong() shl 8) or size.toLong())
        val words = ByteBuffer.wrap(person.toByteArray(Charsets.US_ASCII).copyOf(16)).order(ByteOrder.LITTLE_ENDIAN)
        h[6] = h[6] xor words.long
        h[7] = h[7] xor words.long
        val data = if (key.isEmpty()) message else key.copyOf(BLOCK) + message
        var at = 0
        do {
            val end = minOf(at + BLOCK, data.size)
            compress(h, data.copyOfRange(at, end).copyOf(BLOCK), end.toLong(), end == data.size)
            at = end
        } while (at < data.size)
        val out = ByteBuffer.allocate(64).order(ByteOrder.LITTLE_ENDIAN)
        for (word in h) out.putLong(word)
        return out.array().copyOf(size)
    }

    private fun compress(h: LongArray, block: ByteArray, counter: Long, last: Boolean) {
        val buffer = ByteBuffer.wrap(block).order(ByteOrder.LITTLE_ENDIAN)
        val m = LongArray(16) { buffer.long }
        val v = h + IV
        v[12] = v[12] xor counter
        if (last) v[14] = v[14].inv()
        for (round in 0 until 12) {
            val s = SIGMA[round % 10]
            for (i in 0 until 4) mix(v, i, i + 4, i + 8, i + 12, m[s[2 * i]], m[s[2 * i + 1]])
            for (i in 0 until 4) {
                val b = 4 + (i + 1 and 3)
                val c = 8 + (i + 2 and 3)
                val d = 12 + (i + 3 and 3)
                mix(v, i, b, c, d, m[s[8 + 2 * i]], m[s[9 + 2 * i]])
            }
        }
        for (i in 0 until 8) h[i] = h[i] xor v[i] xor v[i + 8]
    }

    private fun mix(v: LongArray, a: Int, b: Int, c: Int, d: Int, x: Long, y: Long) {
        v[a] += v[b] + x
        v[d] = (v[d] xor v[a]).rotateRight(32)
        v[c] += v[d]
        v[b] = (v[b] xor v[c]).rotateRight(24)
        v[a] += v[b] + y
        v[d] = (v[d] xor v[a]).rotateRight(16)
        v[c] += v[d]
        v[b] = (v[b] xor v[c]).rotateRight(63)
    }
}
