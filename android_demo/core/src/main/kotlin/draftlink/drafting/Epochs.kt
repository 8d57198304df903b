package draftlink.drafting

/**
 * The window while the device drafts, epoch by epoch (docs/window.md, 5): what is due next, and what
 * verdicts change. Stop-and-wait is the window that closes after one block.
 *
 * Whether a position is drafted is decided before its draw; once drawn, a token is sent, or discarded for a
 * reason that does not depend on its value. With [auto] the controller chooses the mode from epoch to epoch.
 */
internal class Epochs(
    private val controller: Controller,
    private val counts: Counts,
    private val offline: Offline,
    now: Double,
    private val auto: Boolean,
) {
    /** Drafting under way since [askedS], behind [fed] tokens; [stale]: a verdict has closed its epoch meanwhile. */
    private class Forward(val askedS: Double, val beside: Boolean, val fed: Int, var stale: Boolean = false)

    var mode: Writer = controller.drafts
        private set

    /** Where the epoch begins, */
    var begins = 0
        private set

    /** and drafted tokens that were accepted in it. */
    var judged = 0
        private set

    /** Until when nothing is drafted, if a verdict is waited for first. */
    var pauseS: Double? = null
        private set

    private val estimates = controller.estimates
    private val flight = Flight()
    private val refuted = Refuted()
    private var forward: Forward? = null
    private var owes = false // the next block brings the token that the device drew itself
    private var wantsStream = false
    private var leaves = false // and has told the base station so
    private var length = 0 // of the block judged last
    private var opened = false // that was the text's first, and empty: it took what the prompt took to be read
    private lateinit var plan: Plan
    private var freeS: Double? = null // when the base station can take another block
    private var beganS = 0.0

    init {
        beginEpoch(now)
    }

    /** The last token of the history was not drafted, and nothing is in flight. */
    private fun beginEpoch(now: Double) {
        begins = counts.length
        judged = 0
        length = 0
        plan = controller.plan(mode)
        freeS = null
        beganS = now
        if (!counts.limits.foretells) offline.outdate()
    }

    // What is due.

    /** Whether a forward is under way. */
    val drafting: Boolean get() = forward != null

    /** Of each drafted token that has not been judged, whether it is an EOS. */
    val ends: List<Boolean> get() = flight.ends

    /** Whether the base station writes: it has been told, and nothing is in flight. */
    val gone: Boolean get() = leaves && flight.sent.isEmpty()

    /** Since when something of the base station's is due, if anything is. */
    fun waitsSinceS(connected: Boolean): Double? =
        flight.sent.firstOrNull()?.sentS ?: if (leaves || !connected) beganS else null

    /** What is to be done at once, while both ends agree; [cached] tokens are in the draft's cache (5.1). */
    fun due(now: Double, cached: Int): List<Action> {
        if (leaves || forward != null || flight.waits) return emptyList()
        val full = flight.size == 0 && counts.left > 1 && most() < 1 // the draft's context
        if ((wantsStream || full) && counts.left > 0) return leave(now)
        val first = counts.length == counts.limits.begins && flight.sent.isEmpty()
        if (controller.opens && first) return listOf(take(now, waits = true))
        val actions = ArrayList<Action>()
        val block = cut(now)
        var known = 0
        if (block == null || !block.waits) {
            val count = wanted()
            if (count > 0) known = offline.known(flight.size, count)
            if (count > 0 && known == 0 && !holds(now)) {
                forward = Forward(now, flight.sent.isNotEmpty(), counts.length + flight.size - cached)
                actions += Action.Draft(count, begins, flight.size == 0)
            }
        }
        if (block != null) actions += block
        if (known > 0) {
            pauseS = null
            actions += Action.Reuse(flight.size, known)
        }
        return actions
    }

    /** The base station is to stream, once it has judged what is in flight. */
    private fun leave(now: Double): List<Action> {
        if (owes) return listOf(take(now, waits = true)) // it brings the token, and nothing to judge
        // Whether a token was held back depends on which it is: to drop it would be to choose.
        if (flight.block.isNotEmpty()) return listOf(take(now, waits = false))
        if (flight.sent.isNotEmpty() && counts.limits.corrects) return emptyList() // a token may come to be owed
        leaves = true
        return listOf(Action.Switch("stream"))
    }

    /** Tokens that can still be drafted behind those that have been; the last one of the text is the target's. */
    private fun most(): Int = if (flight.over) 0 else minOf(counts.room, counts.left - 1) - flight.size

    /** How many tokens to draft before there is something to decide. */
    private fun wanted(): Int {
        val count = minOf(most(), window() - flight.size, longest())
        return if (plan.waits && plan.sure == 0.0) minOf(count, plan.first - flight.block.size) else minOf(count, 1)
    }

    private fun longest() = counts.limits.message - flight.block.size

    private fun window() = minOf(plan.window, counts.limits.flight)

    /** The block that is to be sent now, if any (5.2). */
    private fun cut(now: Double): Action.Send? {
        if (most() <= 0) {
            // With nothing drafted it asks for a token of the target's.
            return if (flight.block.isNotEmpty() || flight.sent.isEmpty()) take(now, waits = true) else null
        }
        val full = flight.size >= window() || longest() <= 0
        return if (flight.block.isEmpty() || !(full || isDue(now))) null else take(now, plan.waits)
    }

    /** Whether the base station should check the block, rather than wait for more of it. */
    private fun isDue(now: Double): Boolean {
        if (plan.waits || flight.block.size >= BLOCK) {
            return flight.block.size >= plan.first || (plan.waits && whole() <= plan.sure)
        }
        // The next token would come too late for the next verification. While it is all but certain that
        // nothing is rejected, that would be for nothing.
        val nextS = now + estimates.draft.typical
        return (freeS?.let { nextS > it } ?: true) && whole() <= plan.sure && isWorthIt()
    }

    /**
     * Whether a message of its own gains more for the block than it costs: if all that is in flight is
     * accepted and something of the block is not, the correction comes a verification sooner.
     */
    private fun isWorthIt(): Boolean {
        if (flight.sent.isEmpty()) return true
        val reached = flight.sent.fold(1.0) { product, block -> product * block.whole }
        return reached * (1.0 - whole()) * estimates.verifyS >= estimates.stallS
    }

    /** How likely all of the block is to be accepted, if all before it is. */
    private fun whole() = flight.block.fold(1.0) { product, one -> product * estimates.acceptance.probability(one.chance) }

    /** Whether to wait for a verdict that is due before another token could be drafted: a forward is not interrupted (5.3). */
    private fun holds(now: Double): Boolean {
        val paused = pauseS
        if (paused != null && now < paused) return true
        pauseS = null
        val block = flight.sent.firstOrNull()
        if (paused != null || block == null) return false
        val draftS = estimates.draft.typical
        val idleS = block.dueS - now
        val lostS = now + draftS - block.dueS
        if (idleS <= 0.0 || (1.0 - block.whole) * lostS <= block.whole * idleS) return false
        pauseS = block.dueS + LATE * draftS
        return true
    }

    private fun take(now: Double, waits: Boolean): Action.Send {
        // In this end's time: when it would have to be sent to arrive at that moment.
        val doneS = maxOf(freeS ?: 0.0, now) + estimates.verifyS
        freeS = doneS
        val whole = whole()
        owes = false
        return Action.Send(flight.take(waits, whole, now, doneS + estimates.rtt.typical).proposed.size, waits)
    }

    // What has happened.

    /** Tokens have been drafted. False if they are void: their epoch has been closed (5.4). */
    fun drafted(now: Double, proposed: List<Proposed>, waitedS: Double): Boolean {
        val asked = forward!!
        forward = null
        if (asked.fed <= BACKLOG) { // else the prompt, or a backlog, was a part of it
            // While a forward went stale, the base station was at work for a part of it.
            val beside = if (asked.stale) null else asked.beside
            estimates.draft.took((now - asked.askedS - waitedS) / proposed.size, beside)
        }
        if (!asked.stale) append(proposed)
        return !asked.stale
    }

    /** These follow what has been drafted. */
    fun append(proposed: List<Proposed>) = flight.append(proposed)

    /** A verdict on what was sent first. Whether it rejects a token (5.5). */
    fun verdict(now: Double, verdict: Judged): Boolean {
        val first = flight.sent.first()
        val chances = flight.chances
        val rejected = verdict.own && verdict.accepted < chances.size
        counts.rounds++
        length = first.proposed.size
        opened = counts.rounds == 1 && length == 0
        if (!opened) estimates.verify.took(verdict.verifyS, !first.waits)
        if (first.waits && !opened) estimates.rows.add(length, verdict.verifyS)
        estimates.queue.add(verdict.queueS)
        val fates = chances.take(verdict.accepted + if (rejected) 1 else 0).mapIndexed { i, chance -> chance to (i < verdict.accepted) }
        refuted.judged(estimates.acceptance, fates)
        // Behind the prompt, or another verification, a block waits longer than the verdict says. An
        // epoch's first one is behind neither, however many have been sent by then.
        if (judged == 0 && counts.rounds > 1) estimates.rtt.add(now - first.sentS - verdict.verifyS - verdict.queueS)
        pauseS = null
        if (verdict.closes) {
            flight.clear()
            forward?.stale = true
        } else {
            flight.accept(verdict.accepted)
        }
        judged += verdict.accepted
        return rejected
    }

    /** The history holds all that a verdict makes of it (5.6). [owes]: the device drew its last token. */
    fun proceed(now: Double, closes: Boolean, owes: Boolean) {
        if (closes && !opened) controller.drafted(mode, judged + 1, now - beganS, length)
        if (auto && !leaves) {
            val chosen = controller.choose(counts.left)
            if (chosen == Writer.STREAM) wantsStream = true else if (closes) mode = chosen
        }
        if (closes) {
            this.owes = owes
            beginEpoch(now)
        }
    }

    companion object {
        const val BACKLOG = 2 // a forward that feeds more tokens than that tells nothing of a forward's time
        private const val BLOCK = 16 // a block of so many tokens is sent however certain they are
        private const val LATE = 0.1 // by how much of a forward a verdict may be late before it is not waited for
    }
}
