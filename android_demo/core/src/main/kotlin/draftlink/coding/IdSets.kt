package draftlink.coding

import java.math.BigInteger

/**
 * Sets of ids through a range coder, at the cost of the set (docs/protocol.md, 9.3): the ids' range is
 * halved again and again, and how many fall to the left is coded by the law that a random set has.
 */
internal class IdSets(private val prior: IdPrior) {
    private inner class Node(first: Int, last: Int) {
        val start = prior.starts[first]
        val stop = prior.starts[last]
        val base = prior.below(first)
        val total = prior.below(last) - base
        val left: Node? // none where it is one octave
        val right: Node?

        init {
            if (last - first == 1) {
                left = null
                right = null
            } else {
                val half = base + total / 2
                val cut = (first + 1 until last).minBy { j -> Math.abs(prior.below(j) - half) } // the first of equals
                left = Node(first, cut)
                right = Node(cut, last)
            }
        }
    }

    private val root = Node(0, prior.octaves)

    /** Appends a set of known size: [ids] ascending and distinct, one or more. */
    fun write(out: RangeEncoder, ids: IntArray) = write(out, root, ids, 0, ids.size)

    private fun write(out: RangeEncoder, node: Node, ids: IntArray, first: Int, last: Int) {
        val left = node.left
        val right = node.right
        when {
            last == first -> return
            last - first == 1 -> {
                val share = prior.share(ids[first])
                out.push(share.below - node.base, share.weight, node.total)
            }
            left == null || right == null -> writeFlat(out, node.start, node.stop, ids, first, last)
            else -> {
                val middle = below(ids, right.start, first, last)
                law(left, right, last - first).write(out, middle - first)
                write(out, left, ids, first, middle)
                write(out, right, ids, middle, last)
            }
        }
    }

    private fun law(left: Node, right: Node, count: Int) =
        SplitLaw.of(count, left.stop - left.start, right.stop - right.start, left.total, right.total)

    private fun writeFlat(out: RangeEncoder, start: Int, stop: Int, ids: IntArray, first: Int, last: Int) {
        val count = last - first
        if (count == 0 || count == stop - start) return
        if (count == 1) return out.uniform((ids[first] - start).toLong(), (stop - start).toLong())
        val half = (start + stop) / 2
        val middle = below(ids, half, first, last)
        SplitLaw.flat(count, half - start, stop - half).write(out, middle - first)
        writeFlat(out, start, half, ids, first, middle)
        writeFlat(out, half, stop, ids, middle, last)
    }

    /** The place in [first, last) of the first id that is not below [bound]. */
    private fun below(ids: IntArray, bound: Int, first: Int, last: Int): Int {
        val at = ids.binarySearch(bound, first, last)
        return if (at >= 0) at else -at - 1
    }

    /** The next set of [count] ids, ascending; from 1 to the size of the vocabulary. */
    fun read(source: RangeDecoder, count: Int): IntArray {
        val ids = IntArray(count)
        read(source, root, count, ids, 0)
        return ids
    }

    private fun read(source: RangeDecoder, node: Node, count: Int, ids: IntArray, at: Int) {
        val left = node.left
        val right = node.right
        when {
            count == 0 -> return
            count == 1 -> ids[at] = prior.read(source, node.base, node.total)
            left == null || right == null -> readFlat(source, node.start, node.stop, count, ids, at)
            else -> {
                val i = law(left, right, count).read(source)
                read(source, left, i, ids, at)
                read(source, right, count - i, ids, at + i)
            }
        }
    }

    private fun readFlat(source: RangeDecoder, start: Int, stop: Int, count: Int, ids: IntArray, at: Int) {
        when (count) {
            0 -> return
            stop - start -> for (i in 0 until count) ids[at + i] = start + i
            1 -> ids[at] = start + source.uniform((stop - start).toLong()).toInt()
            else -> {
                val half = (start + stop) / 2
                val i = SplitLaw.flat(count, half - start, stop - half).read(source)
                readFlat(source, start, half, i, ids, at)
                readFlat(source, half, stop, count - i, ids, at + i)
            }
        }
    }
}

/**
 * How many of `count` ids fall to the left (docs/protocol.md, 9.2): the number `fewest + i` owns
 * [edges[i], edges[i + 1]).
 */
internal class SplitLaw private constructor(val fewest: Int, val edges: LongArray) {
    fun write(out: RangeEncoder, number: Int) {
        val i = number - fewest
        out.push(edges[i], edges[i + 1] - edges[i], edges.last())
    }

    fun read(source: RangeDecoder): Int {
        val value = source.peek(edges.last())
        val at = edges.binarySearch(value)
        val i = if (at >= 0) at else -at - 2
        source.take(edges[i], edges[i + 1] - edges[i])
        return fewest + i
    }

    private data class Key(val count: Int, val left: Int, val right: Int, val leftWeight: Long, val rightWeight: Long)

    companion object {
        private const val CACHED = 64 // laws of sets up to this size are kept,
        private const val KEPT = 1 shl 12 // so many of them

        private val laws = object : LinkedHashMap<Key, SplitLaw>(16, 0.75f, true) {
            override fun removeEldestEntry(eldest: Map.Entry<Key, SplitLaw>) = size > KEPT
        }

        /** The law where ids are equally likely on either side. */
        fun flat(count: Int, left: Int, right: Int): SplitLaw = of(count, left, right, left.toLong(), right.toLong())

        /** The law of [count] ids, of [left] with weight [leftWeight] together and [right] likewise. */
        fun of(count: Int, left: Int, right: Int, leftWeight: Long, rightWeight: Long): SplitLaw {
            val key = Key(count, left, right, leftWeight, rightWeight)
            if (count > CACHED) return make(key)
            return synchronized(laws) { laws.getOrPut(key) { make(key) } }
        }

        private fun make(key: Key): SplitLaw {
            val (count, left, right, leftWeight, rightWeight) = key
            val fewest = maxOf(0, count - right)
            val most = minOf(count, left)
            val up = BigInteger.valueOf(leftWeight).multiply(BigInteger.valueOf(right.toLong()))
            val down = BigInteger.valueOf(rightWeight).multiply(BigInteger.valueOf(left.toLong()))
            val peak = (count * leftWeight / (leftWeight + rightWeight)).toInt().coerceIn(fewest, most)
            val law = Array<BigInteger>(most - fewest + 1) { BigInteger.ZERO }
            law[peak - fewest] = BigInteger.ONE.shiftLeft(40)
            var i = peak
            while (i > fewest && law[i - fewest].signum() != 0) { // behind a 0 all are
                val over = big(i.toLong() * (right - count + i)).multiply(down)
                val under = big((left - i + 1L) * (count - i + 1)).multiply(up)
                law[i - 1 - fewest] = law[i - fewest].multiply(over).divide(under)
                i--
            }
            i = peak
            while (i < most && law[i - fewest].signum() != 0) {
                val over = big((left - i).toLong() * (count - i)).multiply(up)
                val under = big((i + 1L) * (right - count + i + 1)).multiply(down)
                law[i + 1 - fewest] = law[i - fewest].multiply(over).divide(under)
                i++
            }
            return SplitLaw(fewest, edges(law))
        }

        private fun big(value: Long) = BigInteger.valueOf(value)

        private fun edges(law: Array<BigInteger>): LongArray {
            val largest = law.maxOf { it.bitLength() }
            val shift = largest - minOf(16, 27 - (32 - law.size.countLeadingZeroBits()))
            val edges = LongArray(law.size + 1)
            for (i in law.indices) edges[i + 1] = edges[i] + 1 + law[i].shiftRight(shift).toLong()
            return edges
        }
    }
}
