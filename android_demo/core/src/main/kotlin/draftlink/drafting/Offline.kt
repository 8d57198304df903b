package draftlink.drafting

/**
 * When the draft goes on alone although the base station is silent (docs/window.md, 7): provisional tokens
 * behind the history. They are shown before they are judged, and sent like any others once the link is back.
 *
 * [afterS]: seconds without a word, although one is due, that the device waits; null is for ever.
 */
internal class Offline(private val afterS: Double?) {
    /** When the base station was last heard. */
    var heardS = 0.0

    private var outdated = false // what is shown was drafted in an epoch that has ended
    private val ends = ArrayList<Boolean>() // of each token that is shown, whether it is an EOS

    /** When provisional tokens begin, if something has been due since [sinceS]; else null. */
    fun beginsS(sinceS: Double?): Double? = if (afterS == null || sinceS == null) null else maxOf(heardS, sinceS) + afterS

    /**
     * What is shown next, if anything can be: [drafted] says of each token that was drafted and not judged
     * whether it is an EOS; [room]: tokens that the draft can be fed behind the history.
     */
    fun next(drafted: List<Boolean>, begins: Int, room: Int, busy: Boolean): Action? {
        val shown = ends.size
        if (drafted.size > shown && !outdated) {
            ends += drafted.drop(shown)
            return Action.Show(shown)
        }
        val over = ends.isNotEmpty() && ends.last()
        return if (busy || over || room <= shown) null else Action.Guess(begins, outdated)
    }

    /** A token was drafted and shown. */
    fun guessed(eos: Boolean) {
        ends += eos
    }

    /** How many shown tokens follow [drafted] ones, and need not be drafted once more. */
    fun known(drafted: Int, most: Int): Int = if (outdated) 0 else maxOf(0, minOf(ends.size - drafted, most))

    /** An epoch begins, which draws afresh: what is shown is not a part of its draft. */
    fun outdate() {
        outdated = ends.isNotEmpty()
    }

    /** The history goes on with the first [confirmed] shown tokens; if [refuted], with another one behind them. */
    fun accept(confirmed: Int, refuted: Boolean) {
        ends.subList(0, minOf(confirmed, ends.size)).clear()
        if (refuted) ends.clear()
        outdated = outdated && ends.isNotEmpty()
    }
}
