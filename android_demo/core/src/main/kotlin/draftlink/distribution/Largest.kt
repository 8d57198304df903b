package draftlink.distribution

/**
 * Ids of the [k] largest of [values] (V,) among those that are [taken], the largest first, of equals
 * the lower id; fewer where fewer are taken.
 *
 * O(V + k log k) where few of the values are large, and without an object an id: sorting a vocabulary
 * of boxed ids took ten times as long as all else that a drafted token needs beside the forward.
 */
internal inline fun largest(values: DoubleArray, k: Int, taken: (Int) -> Boolean): IntArray {
    val heap = Heap(values, minOf(k, values.size))
    for (id in values.indices) if (heap.wants(id) && taken(id)) heap.add(id)
    return heap.ranked()
}

/** At most [most] ids; at the root the one that the next larger value drives out. */
internal class Heap(private val values: DoubleArray, private val most: Int) {
    private val ids = IntArray(most)
    private var size = 0

    /** Whether an [id], higher than all that came before it, would stay. */
    fun wants(id: Int): Boolean = size < most || most > 0 && values[id] > values[ids[0]]

    /** Adds an id that is wanted. */
    fun add(id: Int) {
        if (size == most) return sink(0, id, size)
        var at = size++
        while (at > 0 && worse(id, ids[(at - 1) / 2])) {
            ids[at] = ids[(at - 1) / 2]
            at = (at - 1) / 2
        }
        ids[at] = id
    }

    /** All that stayed, the best first; the heap is empty then. */
    fun ranked(): IntArray {
        val count = size
        while (size > 1) {
            val worst = ids[0]
            size--
            sink(0, ids[size], size)
            ids[size] = worst
        }
        size = 0
        return ids.copyOf(count)
    }

    private fun sink(from: Int, id: Int, size: Int) {
        var at = from
        while (2 * at + 1 < size) {
            var child = 2 * at + 1
            if (child + 1 < size && worse(ids[child + 1], ids[child])) child++
            if (!worse(ids[child], id)) break
            ids[at] = ids[child]
            at = child
        }
        ids[at] = id
    }

    private fun worse(a: Int, b: Int) = values[a] < values[b] || values[a] == values[b] && a > b
}
