package draftlink.noise

import okio.Buffer
import okio.ByteString
import okio.ByteString.Companion.toByteString
import java.math.BigInteger

/** What a number is drawn for; different purposes never share numbers (docs/protocol.md, 11.2). */
enum class Purpose { DRAFT, ACCEPT, RESIDUAL, BONUS, STREAM, PAIR, RECOVER }

/** Keys, and draws that are functions of (key, position, purpose) (docs/protocol.md, 11.1 and 11.2). */
object Draws {
    private const val KEY_BYTES = 32
    private val LOW_64 = BigInteger.ONE.shiftLeft(64).subtract(BigInteger.ONE)

    /** The key of a [role] (`device`, `bs` or `coupled`) under a [seed] of 64 bits, signed or not. */
    fun keyFromSeed(seed: BigInteger, role: String): ByteArray =
        Blake2b.digest(little(seed.and(LOW_64).toLong()), KEY_BYTES, person = role)

    /** The key of what a device drafts in the epoch that began at [position], of its generation's [key]. */
    fun keyOfEpoch(key: ByteArray, position: Long): ByteArray =
        Blake2b.digest(little(position), KEY_BYTES, key, "epoch")

    /** 64 random bits; [tier] counts nested rows from 0, [pair] those of 7.4 likewise. */
    fun bits64(key: ByteArray, position: Long, purpose: Purpose, tier: Int = 0, pair: Int = 0): Long {
        require(pair in 0..255 && tier in 0..255) { "no draw has tier $tier, pair $pair" }
        val what = byteArrayOf(purpose.ordinal.toByte(), tier.toByte(), pair.toByte())
        val size = if (pair != 0) 3 else if (tier != 0) 2 else 1 // the length tells the three apart
        val digest = Blake2b.digest(little(position) + what.copyOf(size), 8, key)
        return Buffer().write(digest).readLongLe()
    }

    /** A float in [0, 1) with 53 random bits. */
    fun uniform(key: ByteArray, position: Long, purpose: Purpose, pair: Int = 0): Double =
        (bits64(key, position, purpose, pair = pair) ushr 11).toDouble() * (1.0 / (1L shl 53))

    /** An integer in [0, total), total below 2³². */
    fun below(key: ByteArray, position: Long, purpose: Purpose, total: Long, tier: Int = 0): Long {
        val bits = bits64(key, position, purpose, tier)
        val high = (bits ushr 32) * total // the product of 96 bits, in two halves
        val low = (bits and 0xFFFF_FFFFL) * total
        return high + (low ushr 32) ushr 32
    }

    /** 16 bytes that stand for a history: BLAKE2b over its [ids] as 4 bytes each (docs/protocol.md, 3.1). */
    fun digest(ids: List<Int>): ByteString {
        val message = Buffer()
        for (id in ids) message.writeIntLe(id)
        return Blake2b.digest(message.readByteArray(), 16).toByteString()
    }

    private fun little(value: Long): ByteArray = Buffer().writeLongLe(value).readByteArray()
}
