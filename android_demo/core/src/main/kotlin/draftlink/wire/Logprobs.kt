package draftlink.wire

import okio.Buffer
import okio.ByteString

/**
 * How likely the target found one token of the text (docs/protocol.md, 5.7), in units of 2⁻¹⁴:
 * −log p of the token itself, [own], and of the likeliest [ids], which have [units], the likeliest
 * first. The largest number of units, 2³² − 1, stands for all that is less likely.
 */
data class Logprobs(val own: Long, val ids: List<Int>, val units: List<Long>) {
    companion object {
        /** A unit of −log p. */
        const val UNIT = 1.0 / (1 shl 14)

        /**
         * What a [block] says of so many [tokens], with [count] of the likeliest ids each, in a
         * vocabulary of [vocabSize]. Throws [MalformedException] for any other bytes.
         */
        fun decode(block: ByteString, tokens: Int, count: Int, vocabSize: Int): List<Logprobs> {
            val source = FrameReader(block)
            val told = List(tokens) { one(source, minOf(count, vocabSize), vocabSize) }
            source.finish()
            return told
        }

        private fun one(source: FrameReader, count: Int, vocabSize: Int): Logprobs {
            val own = source.varint()
            val ids = LinkedHashSet<Int>()
            val units = ArrayList<Long>()
            var sum = 0L
            repeat(count) {
                val id = source.id()
                demand(id < vocabSize && ids.add(id)) { "the likeliest ids are out of range or repeated" }
                sum += source.varint()
                demand(sum <= MOST_VARINT) { "an id is less likely than can be said" }
                units += sum
            }
            return Logprobs(own, ids.toList(), units)
        }

        /** A block of what is [told] of the tokens of a frame. */
        fun encode(told: List<Logprobs>): ByteString {
            val out = Buffer()
            for (each in told) {
                out.varints(each.own)
                var before = 0L
                each.ids.zip(each.units) { id, units ->
                    out.varints(id.toLong(), units - before)
                    before = units
                }
            }
            return out.readByteString()
        }
    }
}
