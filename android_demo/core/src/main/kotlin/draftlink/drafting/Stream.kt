package draftlink.drafting

/**
 * The window while the base station writes alone (docs/window.md, 6): what the draft does beside it, and
 * when it ends. With [auto] the draft follows the stream, and the controller may end it. [startedS]: when
 * the generation began.
 */
internal class Stream(
    private val controller: Controller,
    private val counts: Counts,
    val startedS: Double,
    private val auto: Boolean,
) {
    private class Forward(val askedS: Double, val fed: Int)

    /** Where it begins. */
    val begins = counts.length

    /** The controller has ended it. */
    var leaves = false
        private set

    private val estimates = controller.estimates
    private var lastS: Double? = null // when the last token came
    private var firstS = 0.0 // when the first one of the last burst came
    private var bounded = counts.length > counts.limits.begins // by the stream that a generation begins with
    private var forward: Forward? = null
    private val nearer = Nearer()

    /** Whether a forward is under way. */
    val drafting: Boolean get() = forward != null

    /** What is to be done at once; [cached] tokens are in the draft's cache (6.1). */
    fun due(now: Double, cached: Int): List<Action> {
        val looks = auto && !leaves && (counts.limits.follows || estimates.draft.size < LOOKS)
        if (forward != null || !looks) return emptyList()
        // The prompt's last token is fed alone where no forward has been timed yet.
        val prompt = if (estimates.draft.size > 0) counts.limits.begins else counts.limits.begins - 1
        var until = maxOf(cached + 1, prompt)
        val there = minOf(counts.length, counts.limits.context)
        val rarely = controller.looks
        if (rarely > 1 && until > prompt) until = maxOf(cached + rarely, there) // what came meanwhile is fed at once
        if (until > there) return emptyList()
        forward = Forward(now, until - cached)
        return listOf(Action.Follow(until, begins))
    }

    /** The draft has proposed a token. The switch that is due at once, if one is: it may have read the prompt (6.1). */
    fun followed(now: Double, waitedS: Double): Action.Switch? {
        val asked = forward!!
        forward = null
        val news = lastS == null || estimates.draft.size == 0
        if (asked.fed <= Epochs.BACKLOG) estimates.draft.took(now - asked.askedS - waitedS, true)
        return if (news && mayLeave) choose() else null
    }

    /** Tokens have come, and joined the history. The switch that is due at once, if one is (6.2). */
    fun streamed(now: Double, tokens: Int, ended: Boolean): Action.Switch? {
        val last = lastS
        if (last != null && now - last > BURST_S) estimates.target.add((now - last) / tokens) else firstS = now
        lastS = now
        boundRtt()
        val nearerS = nearer.came(now, estimates.rtt.typical)
        if (nearerS != 0.0) {
            estimates.rtt.became(estimates.rtt.typical - 2.0 * nearerS)
            controller.nearer()
        }
        if (ended || !mayLeave) return null
        controller.streamed(tokens)
        return choose()
    }

    private val mayLeave: Boolean get() = auto && !leaves && counts.room > 0

    /** The switch, if the device is to draft from here on. */
    private fun choose(): Action.Switch? {
        if (controller.choose(counts.room) == Writer.STREAM) return null
        leaves = true
        return Action.Switch("draft")
    }

    /** A round trip and the prompt came before the first token: no link is slower than that, though a greeting stalled. */
    private fun boundRtt() {
        if (bounded || estimates.target.size == 0) return
        bounded = true
        val mostS = firstS - startedS - estimates.target.typical // the prompt takes no less than a token
        estimates.rtt.atMost(mostS)
    }

    private companion object {
        const val BURST_S = 0.002 // tokens that come closer to one another had waited for something on the link
        const val LOOKS = 3 // forwards that are timed, whatever else they tell
    }
}
