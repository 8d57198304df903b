package draftlink.wire

import okio.Buffer
import okio.ByteString

/** Bytes that are no frame, or a payload that no encoder writes: the peer's mistake. */
class MalformedException(message: String) : Exception(message)

/** Throws [MalformedException], for the reason [why], unless [holds]. */
internal inline fun demand(holds: Boolean, why: () -> String) {
    if (!holds) throw MalformedException(why())
}

/** The largest number that a compact frame may hold: 2³² − 1. */
const val MOST_VARINT = 0xFFFF_FFFFL

/** Appends [values], from 0 to 2³² − 1: seven bits a byte, the least significant first. */
fun Buffer.varints(vararg values: Long): Buffer {
    for (value in values) {
        require(value in 0..MOST_VARINT) { "$value is no number of a frame" }
        var left = value
        while (left >= 0x80) {
            writeByte((left and 0x7F or 0x80).toInt())
            left = left shr 7
        }
        writeByte(left.toInt())
    }
    return this
}

/** Appends a block: its length, then its bytes; nothing where it is empty. */
fun Buffer.block(data: ByteString): Buffer {
    if (data.size > 0) {
        varints(data.size.toLong())
        write(data)
    }
    return this
}

/**
 * Reads a frame's bytes from [at] on. Every function throws [MalformedException] where they are not
 * what is asked for; nothing is ever read behind the end, and nothing is made before it is there.
 */
class FrameReader(private val data: ByteString, private var at: Int = 0) {
    /** Bytes that are not read yet. */
    val left: Int get() = data.size - at

    /** The next byte, from 0 to 255. */
    fun byte(): Int {
        demand(at < data.size) { "the frame ends too early" }
        return data[at++].toInt() and 0xFF
    }

    /** The next [size] bytes. */
    fun bytes(size: Int): ByteString {
        demand(size in 0..left) { "the frame ends too early" }
        at += size
        return data.substring(at - size, at)
    }

    /** A number from 0 to 2³² − 1 in its shortest form. */
    fun varint(): Long {
        var value = 0L
        for (shift in 0..28 step 7) {
            val byte = byte()
            value = value or ((byte and 0x7F).toLong() shl shift)
            if (byte < 0x80) {
                demand(value <= MOST_VARINT && (shift == 0 || byte != 0)) {
                    "a number is longer than 32 bits, or not in its shortest form"
                }
                return value
            }
        }
        throw MalformedException("a number is longer than 32 bits")
    }

    /** A token id: one of 2³¹ or more is beyond every vocabulary. */
    fun id(): Int {
        val value = varint()
        demand(value <= Int.MAX_VALUE) { "an id of $value" }
        return value.toInt()
    }

    /** A number that would be left out if it were 0: a frame has one form. */
    fun positive(): Long {
        val value = varint()
        demand(value != 0L) { "a number of the frame is 0, and would be left out" }
        return value
    }

    /** A length of at least 1, and so many bytes. */
    fun block(): ByteString {
        val size = varint()
        demand(size in 1..left.toLong()) { "a block of the frame is empty or ends too early" }
        return bytes(size.toInt())
    }

    /** A byte of flags, none but those [known]. */
    fun flags(known: Int): Int {
        val flags = byte()
        demand(flags and known.inv() == 0) { "unknown flags $flags" }
        return flags
    }

    /** All that is left. */
    fun rest(): ByteString = bytes(left)

    /** Nothing is left. */
    fun finish() = demand(left == 0) { "the frame has bytes left over" }
}
