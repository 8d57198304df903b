package draftlink.writers

import draftlink.device.Proposal

/**
 * What the draft has shown while nothing was heard of the base station: provisional tokens behind the
 * history. When they are shown is the window's to decide, which does not see the ids; here are the ids.
 */
internal class Alone {
    private val shown = ArrayList<Proposal>()

    /** The provisional tokens that may still be accepted. */
    val tokens: List<Int> get() = shown.map { it.drafted.token }

    /** These are shown, behind what has been. */
    fun show(proposals: List<Proposal>) {
        shown += proposals
    }

    /** The history goes on with [ids]: how many were shown, and whether the next one refutes what was. */
    fun meet(ids: List<Int>): Pair<Int, Boolean> {
        ids.forEachIndexed { place, id ->
            val first = shown.firstOrNull() ?: return place to false
            if (first.drafted.token != id) {
                shown.clear()
                return place to true
            }
            shown.removeAt(0)
        }
        return ids.size to false
    }

    /** Up to [count] of what is shown, from number [first] on. */
    fun known(first: Int, count: Int): List<Proposal> = shown.drop(first).take(count)
}
