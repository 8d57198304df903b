package draftlink.coding

import draftlink.wire.MalformedException
import draftlink.wire.demand
import okio.ByteString
import okio.ByteString.Companion.toByteString
import java.math.BigInteger

private const val TOP = 56 // bits of the first interval's width
private const val LOW = 40 // below 2^LOW the width is scaled up
private const val WORD = TOP - LOW
private const val ONE = 1L shl TOP
private const val MASK = (1L shl WORD) - 1

/** A payload: its bytes, and its length in [bits] before padding. */
data class Payload(val bytes: ByteString, val bits: Int)

/**
 * Symbols of known frequency to the shortest bit string (docs/protocol.md, 8). All numbers are below
 * 2⁵⁸, so they are exact in a Long.
 */
class RangeEncoder {
    private var words = IntArray(64) // the interval's lower end, 16 bits each, most significant first
    private var size = 0
    private var low = 0L // and what comes after those words, below 2^57
    private var width = ONE

    /** Appends the symbol that owns [start, start + frequency) of [0, total). */
    fun push(start: Long, frequency: Long, total: Long) {
        require(start >= 0 && frequency > 0 && start + frequency <= total) { "no symbol: $start, $frequency, $total" }
        val unit = width / total
        low += unit * start
        width = unit * frequency
        while (width < 1L shl LOW) {
            settle()
            if (size == words.size) words = words.copyOf(2 * size)
            words[size++] = (low shr LOW).toInt()
            low = low shl WORD and ONE - 1
            width = width shl WORD
        }
    }

    /** Appends one of [total] equally likely values. */
    fun uniform(value: Long, total: Long) = push(value, 1, total)

    /** Carries what stands above 2^TOP into the words. */
    private fun settle() {
        if (low < ONE) return
        low -= ONE
        var at = size - 1
        while (words[at] == MASK.toInt()) words[at--] = 0
        words[at]++
    }

    /** The payload. Nothing may be pushed after it. */
    fun finish(): Payload {
        settle()
        val settled = ByteArray(1 + 2 * size) // behind a zero, so that it is no negative number
        for (i in 0 until size) {
            settled[1 + 2 * i] = (words[i] shr 8).toByte()
            settled[2 + 2 * i] = words[i].toByte()
        }
        val number = BigInteger(settled).shiftLeft(TOP).or(BigInteger.valueOf(low))
        return shortest(number, width, 16 * size + TOP)
    }
}

/** Reads what a [RangeEncoder] wrote, given the same totals and frequencies. */
class RangeDecoder(private val payload: ByteString) {
    private var at = TOP / 8 // bytes read; zeros without end follow the payload
    private var code = 0L
    private var width = ONE
    private var unit = 0L

    init {
        for (i in 0 until at) code = code shl 8 or byte(i)
    }

    private fun byte(i: Int): Long = if (i < payload.size) payload[i].toLong() and 0xFF else 0L

    /** The value in [0, total) that the next symbol owns. Throws [MalformedException] where none leads. */
    fun peek(total: Long): Long {
        unit = width / total
        val value = code / unit
        demand(value < total) { "the payload is none that an encoder writes" }
        return value
    }

    /** Consumes the symbol that owns [start, start + frequency) of the last [peek]'s total. */
    fun take(start: Long, frequency: Long) {
        code -= unit * start
        width = unit * frequency
        while (width < 1L shl LOW) {
            code = code shl WORD or (byte(at) shl 8) or byte(at + 1)
            width = width shl WORD
            at += 2
        }
    }

    /** The next of [total] equally likely values. */
    fun uniform(total: Long): Long = peek(total).also { take(it, 1) }

    /** The place of the next symbol, where the [frequencies], whose sum is [total], follow one another. */
    internal inline fun choose(count: Int, total: Long, frequencies: (Int) -> Long): Int {
        val value = peek(total)
        var start = 0L
        for (i in 0 until count) {
            val frequency = frequencies(i)
            if (value < start + frequency) {
                take(start, frequency)
                return i
            }
            start += frequency
        }
        throw MalformedException("the payload is none that an encoder writes")
    }

    /** Throws [MalformedException] unless the payload is the one that an encoder writes. */
    fun finish() {
        demand(payload.size <= at) { "the payload has bytes left over" }
        val padded = ByteArray(1 + at)
        for (i in 0 until payload.size) padded[1 + i] = payload[i]
        val low = BigInteger(padded).subtract(BigInteger.valueOf(code))
        demand(shortest(low, width, 8 * at).bytes == payload) { "the payload is not the shortest of its meaning" }
    }
}

/** The shortest bit string in [low, low + width) / 2^scale, padded to bytes. */
private fun shortest(low: BigInteger, width: Long, scale: Int): Payload {
    if (low.signum() == 0) return Payload(ByteString.EMPTY, 0)
    val last = low.add(BigInteger.valueOf(width - 1))
    val bits = scale + 1 - low.subtract(BigInteger.ONE).xor(last).bitLength()
    val size = (bits + 7) / 8
    val number = last.shiftRight(scale - bits).shiftLeft(8 * size - bits).toByteArray()
    val bytes = ByteArray(size) // without the sign's byte, and with zeros before
    for (i in 1..minOf(size, number.size)) bytes[size - i] = number[number.size - i]
    return Payload(bytes.toByteString(), bits)
}
