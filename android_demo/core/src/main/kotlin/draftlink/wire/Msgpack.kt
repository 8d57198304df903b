package draftlink.wire

import okio.Buffer
import okio.ByteString
import java.math.BigInteger
import java.nio.charset.CharacterCodingException
import java.nio.charset.CodingErrorAction

/**
 * The msgpack that control messages are made of, as plain values: null, [Boolean], [Long] (or
 * [BigInteger] from 2⁶³ on), [Double], [String], [ByteString], [List], and [Map] with string keys.
 *
 * A reader of our own: what bytes say of a size is believed only as far as there are bytes, and a
 * value that is nested deeper than any message is an error, so that no peer can fill the heap or
 * the stack.
 */
internal object Msgpack {
    private const val DEEPEST = 32 // ours are 4 deep; unknown keys are skipped, whatever they hold

    private val LONGEST = BigInteger.ONE.shiftLeft(64)

    /** The bytes of [value]: integers and strings in their shortest format, floats as float 64. */
    fun encode(value: Any?): ByteString = Buffer().also { write(it, value) }.readByteString()

    private fun write(out: Buffer, value: Any?) {
        when (value) {
            null -> out.writeByte(0xC0)
            is Boolean -> out.writeByte(if (value) 0xC3 else 0xC2)
            is Int -> writeInt(out, value.toLong())
            is Long -> writeInt(out, value)
            is BigInteger -> writeBig(out, value)
            is Double -> out.writeByte(0xCB).writeLong(value.toRawBits())
            is String -> writeString(out, value)
            is ByteString -> {
                size(out, value.size, 0, 0, 0xC4, 0xC5, 0xC6)
                out.write(value)
            }
            is List<*> -> {
                size(out, value.size, 0x90, 16, 0, 0xDC, 0xDD)
                for (each in value) write(out, each)
            }
            is Map<*, *> -> {
                size(out, value.size, 0x80, 16, 0, 0xDE, 0xDF)
                for ((key, each) in value) {
                    write(out, key)
                    write(out, each)
                }
            }
            else -> throw IllegalArgumentException("no msgpack of ${value::class}")
        }
    }

    private fun writeInt(out: Buffer, value: Long) {
        when {
            value in -32..127 -> out.writeByte(value.toInt())
            value in 0..0xFF -> out.writeByte(0xCC).writeByte(value.toInt())
            value in 0..0xFFFF -> out.writeByte(0xCD).writeShort(value.toInt())
            value in 0..MOST_VARINT -> out.writeByte(0xCE).writeInt(value.toInt())
            value >= 0 -> out.writeByte(0xCF).writeLong(value)
            value >= Byte.MIN_VALUE -> out.writeByte(0xD0).writeByte(value.toInt())
            value >= Short.MIN_VALUE -> out.writeByte(0xD1).writeShort(value.toInt())
            value >= Int.MIN_VALUE -> out.writeByte(0xD2).writeInt(value.toInt())
            else -> out.writeByte(0xD3).writeLong(value)
        }
    }

    private fun writeBig(out: Buffer, value: BigInteger) {
        if (value.bitLength() < 64) return writeInt(out, value.toLong())
        require(value.signum() > 0 && value < LONGEST) { "$value has more than 64 bits" }
        out.writeByte(0xCF).writeLong(value.toLong())
    }

    private fun writeString(out: Buffer, value: String) {
        val bytes = value.toByteArray()
        size(out, bytes.size, 0xA0, 32, 0xD9, 0xDA, 0xDB)
        out.write(bytes)
    }

    /** A size in its shortest format: below [few] in the byte [fixed], else behind a byte of its own (0: none). */
    private fun size(out: Buffer, size: Int, fixed: Int, few: Int, byte: Int, short: Int, int: Int) {
        when {
            size < few -> out.writeByte(fixed or size)
            byte != 0 && size <= 0xFF -> out.writeByte(byte).writeByte(size)
            size <= 0xFFFF -> out.writeByte(short).writeShort(size)
            else -> out.writeByte(int).writeInt(size)
        }
    }

    /** The one value that [source] holds, and nothing behind it. Throws [MalformedException]. */
    fun decode(source: FrameReader): Any? {
        val value = read(source, 0)
        source.finish()
        return value
    }

    private fun read(source: FrameReader, depth: Int): Any? {
        demand(depth < DEEPEST) { "a control message is nested too deeply" }
        return when (val first = source.byte()) {
            in 0x00..0x7F -> first.toLong()
            in 0x80..0x8F -> map(source, (first and 0x0F).toLong(), depth)
            in 0x90..0x9F -> list(source, (first and 0x0F).toLong(), depth)
            in 0xA0..0xBF -> string(source, (first and 0x1F).toLong())
            0xC0 -> null
            0xC2 -> false
            0xC3 -> true
            0xC4, 0xC5, 0xC6 -> bytes(source, uint(source, 1 shl first - 0xC4))
            0xC7, 0xC8, 0xC9 -> extension(source, uint(source, 1 shl first - 0xC7))
            0xCA -> Float.fromBits(uint(source, 4).toInt()).toDouble()
            0xCB -> Double.fromBits(uint(source, 8))
            0xCC, 0xCD, 0xCE -> uint(source, 1 shl first - 0xCC)
            0xCF -> unsigned(uint(source, 8))
            0xD0 -> uint(source, 1).toByte().toLong()
            0xD1 -> uint(source, 2).toShort().toLong()
            0xD2 -> uint(source, 4).toInt().toLong()
            0xD3 -> uint(source, 8)
            in 0xD4..0xD8 -> extension(source, 1L shl first - 0xD4)
            0xD9, 0xDA, 0xDB -> string(source, uint(source, 1 shl first - 0xD9))
            0xDC, 0xDD -> list(source, uint(source, 2 shl first - 0xDC), depth)
            0xDE, 0xDF -> map(source, uint(source, 2 shl first - 0xDE), depth)
            0xC1 -> throw MalformedException("a control message has a byte that msgpack has not")
            else -> (first - 0x100).toLong() // a negative number of five bits
        }
    }

    /** So many [size] bytes as an integer, the most significant first. */
    private fun uint(source: FrameReader, size: Int): Long {
        var value = 0L
        repeat(size) { value = value shl 8 or source.byte().toLong() }
        return value
    }

    private fun unsigned(bits: Long): Any =
        if (bits >= 0) bits else BigInteger.valueOf(bits).add(LONGEST)

    private fun bytes(source: FrameReader, size: Long): ByteString {
        demand(size <= source.left) { "a control message ends too early" }
        return source.bytes(size.toInt())
    }

    /** A string; a [BrokenText] where it is not UTF-8, which is no fault of what is skipped. */
    private fun string(source: FrameReader, size: Long): Any {
        val data = bytes(source, size)
        val strict = Charsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPORT)
        return try {
            strict.decode(data.asByteBuffer()).toString()
        } catch (_: CharacterCodingException) {
            BrokenText(data)
        }
    }

    /** What is said to be a string, and is none. */
    data class BrokenText(val data: ByteString)

    /** An extension's type and [size] bytes, which no message of ours has: skipped where a key is unknown. */
    private fun extension(source: FrameReader, size: Long): Any {
        val type = source.byte()
        return Extension(type, bytes(source, size))
    }

    private data class Extension(val type: Int, val data: ByteString)

    private fun list(source: FrameReader, size: Long, depth: Int): List<Any?> {
        demand(size <= source.left) { "a control message ends too early" } // a value has a byte or more
        val found = ArrayList<Any?>(minOf(size, 1024L).toInt())
        for (i in 0 until size) found += read(source, depth + 1)
        return found
    }

    private fun map(source: FrameReader, size: Long, depth: Int): Map<Any?, Any?> {
        demand(size <= source.left) { "a control message ends too early" }
        val found = LinkedHashMap<Any?, Any?>()
        for (i in 0 until size) {
            val key = read(source, depth + 1)
            found[key] = read(source, depth + 1)
        }
        return found
    }
}
