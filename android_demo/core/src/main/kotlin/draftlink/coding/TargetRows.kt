package draftlink.coding

import draftlink.wire.MalformedException
import draftlink.wire.demand
import okio.Buffer
import okio.ByteString
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.util.zip.DataFormatException
import java.util.zip.Inflater

/** What a base station sends of the target where the device corrects (docs/protocol.md, 10.2 and 10.3). */
object TargetRows {
    private const val DRAWS = 1
    private const val ALL = 2
    private const val FEW = 32 // ids of a distribution that is sent whole

    /** Whether pairs came, not a row or all of p. */
    fun bringsDraws(data: ByteString): Boolean = data.size > 0 && data[0].toInt() == DRAWS

    /** Whether all of p came, as a few ids. */
    fun bringsAll(data: ByteString): Boolean = data.size > 0 && data[0].toInt() == ALL

    /**
     * The target's logits (V,) of a row, which is float32 or float64 on the wire. Throws
     * [MalformedException] for anything else; makes no more than a row of it.
     */
    fun logits(data: ByteString, vocabSize: Int): DoubleArray {
        val size = if (data.size > 0) data[0].toInt() else 0
        demand(size == 4 || size == 8) { "a target row is neither float32 nor float64" }
        val planes = inflate(data, size * vocabSize)
        val bytes = ByteArray(planes.size)
        for (plane in 0 until size) for (i in 0 until vocabSize) bytes[i * size + plane] = planes[plane * vocabSize + i]
        val numbers = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN)
        val row = DoubleArray(vocabSize) { if (size == 4) numbers.float.toDouble() else numbers.double }
        val largest = row.reduce { a, b -> maxOf(a, b) } // NaN where one is
        demand(Math.abs(largest) <= Float.MAX_VALUE) { "a target row has no largest logit" }
        return row
    }

    private fun inflate(data: ByteString, size: Int): ByteArray {
        val inflater = Inflater()
        try {
            val found = ByteArray(size + 1)
            inflater.setInput(data.toByteArray(), 1, data.size - 1)
            var at = 0
            while (at < found.size) {
                val more = inflater.inflate(found, at, found.size - at)
                if (more == 0) break
                at += more
            }
            demand(at == size && inflater.finished() && inflater.remaining == 0) { "a target row is of another length" }
            return found.copyOf(size)
        } catch (error: DataFormatException) {
            throw MalformedException("a target row does not unpack ($error)")
        } finally {
            inflater.end()
        }
    }

    /** The pairs from number [begin] on, of [most] in all. Throws MalformedException for other bytes. */
    fun draws(data: ByteString, begin: Int, most: Int, vocabSize: Int): List<IdShare> {
        val source = RangeDecoder(data.substring(1))
        val number = source.uniform((most - begin).toLong()).toInt() + 1
        return PairsCoder(vocabSize).readDraws(source, number).also { source.finish() }
    }

    /** The bytes of pairs, of which the first is number [begin] of [most]. */
    fun ofDraws(draws: List<IdShare>, begin: Int, most: Int, vocabSize: Int): ByteString {
        val out = RangeEncoder()
        out.uniform(draws.size - 1L, (most - begin).toLong())
        PairsCoder(vocabSize).writeDraws(out, draws)
        return Buffer().writeByte(DRAWS).write(out.finish().bytes).readByteString()
    }

    /** All of p: its ids, ascending, and their probabilities. Throws MalformedException for other bytes. */
    fun all(data: ByteString, vocabSize: Int): List<IdShare> {
        val source = RangeDecoder(data.substring(1))
        val number = source.uniform(minOf(FEW, vocabSize).toLong()).toInt() + 1
        return PairsCoder(vocabSize).readAll(source, number).also { source.finish() }
    }

    /** The bytes of all of p, at most 32 ids, ascending. */
    fun ofAll(pairs: List<IdShare>, vocabSize: Int): ByteString {
        val out = RangeEncoder()
        out.uniform(pairs.size - 1L, minOf(FEW, vocabSize).toLong())
        PairsCoder(vocabSize).writeAll(out, pairs)
        return Buffer().writeByte(ALL).write(out.finish().bytes).readByteString()
    }
}
