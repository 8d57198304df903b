package draftlink.writers

import draftlink.device.Kind

/** A token of which the text is made. */
internal class Came(val id: Int, val kind: Kind)

/** What a text took, as it comes. */
internal class Tally(val startedS: Double) {
    var rounds = 0
        private set
    var drafted = 0
    var accepted = 0
        private set
    var forwards = 0
        private set

    /** Tokens that came while nothing was proposed: it would have been late. */
    var followed = 0
    var provisional = 0
    var takenBack = 0
    var draftS = 0.0
    val kinds = ArrayList<Kind>()
    var firstS: Double? = null
        private set
    var lastS = startedS
        private set

    private var rejected = 0
    private var right = 0 // proposals behind the right prefix that are the text's, where both ends write,
    private var wrong = 0 // and those that are not
    private var reached = 0 // tokens behind the last correction, with those of the last verdict
    private val places = ArrayList<Int>()

    /** Accepted tokens by their place behind the last correction. */
    val histogram: List<Int> get() = places.dropLastWhile { it == 0 }

    /** Of a block, [position] tokens behind the last correction, [accepted] stand; [rejected]: one more was judged. */
    fun verdict(position: Int, accepted: Int, rejected: Boolean) {
        rounds++
        forwards++
        if (rejected) this.rejected++
        stand(position, accepted)
    }

    private fun stand(position: Int, accepted: Int) {
        this.accepted += accepted
        while (places.size < position + accepted) places += 0
        for (place in position until position + accepted) places[place]++
        reached = position + accepted
    }

    /** Where both ends write, a step has; one that is told once more is no step. */
    fun wrote(accepted: Int, again: Boolean) = if (again) stand(0, accepted) else verdict(0, accepted, rejected = false)

    /** The base station wrote alone, in a step. */
    fun streamed() {
        forwards++
    }

    /** The text has reached so many proposals that are right, and where it [differs] a wrong one. */
    fun met(right: Int, differs: Boolean) {
        this.right += right
        if (differs) wrong++
    }

    /** The text ended before tokens of these kinds, the last of what came: not counted. */
    fun behind(kinds: List<Kind>) {
        val count = kinds.count { it == Kind.DRAFT }
        accepted -= count
        if (right + wrong == 0) rejected -= kinds.count { it == Kind.CORRECTION }
        for (place in reached - count until reached) places[place]--
    }

    /** A token of the text came. */
    fun token(now: Double, kind: Kind) {
        if (firstS == null) firstS = now
        lastS = now
        kinds += kind
    }

    /** Of the proposals that were judged, or met the text: the right ones, and all. */
    val met: Pair<Int, Int>
        get() {
            val both = right + wrong
            return if (both == 0) accepted to accepted + rejected else maxOf(right, accepted) to maxOf(both, accepted)
        }
}
