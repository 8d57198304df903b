package draftlink.drafting

import draftlink.session.BothFaults
import kotlin.math.pow

/**
 * The window while both ends write (docs/window.md, 8): what the device drafts and proposes on one *path*
 * behind the text, without I/O or an id.
 *
 * Where both ends share a machine they take turns; elsewhere the device drafts on under a window that covers
 * what is under way. All of it is weighed by one price: of the text that a drafted token saves the base
 * station's steps it must bring [price] tokens. [shared]: the base station is on this machine; [here]: its address
 * is, though what delays behind it may lead elsewhere. [stepS], [rowS]: what it says that a step takes, and
 * each further row.
 */
internal class Paths(
    controller: Controller,
    limits: Limits,
    length: Int,
    shared: Boolean,
    private val here: Boolean = false,
    stepS: Double = 0.0,
    rowS: Double = 0.0,
    price: Double = PRICE,
    private val startedS: Double = 0.0,
    offlineAfterS: Double? = null,
) : Decides {
    private val estimates = controller.estimates
    private val worth = Worth(estimates, controller.gamma, shared, stepS, rowS, price)
    private val counts = Counts(limits, length)
    private val offline = Offline(offlineAfterS)
    private val beside = Beside(estimates.draft)
    private var text = 0.0 // tokens, lately,
    private var stood = 0.0 // and of them accepted proposals
    private var rest = REST_FIRST
    private var resumes = 0 // the length of the text at which the next token is drafted
    private val chances = ArrayList<Double>() // of the path's tokens behind the text
    private var ends = false // one of them is an EOS
    private var sent = 0 // of them, those that were proposed
    private var age = 0 // tokens of the path that the text has reached
    private var askedS: Double? = null // since when tokens are being drafted,
    private var asked = 0 // how many,
    private var fed = 0 // and how many are fed before the first comes
    private var void = false // it is drafted for a path that was left
    private var guesses = false // what [follows] says was decided before enough was known of costs
    private var bounded = false // the round trip, by the first token
    private var proposedS = startedS // when something was proposed last
    private var writtenS: Double? = null // when tokens of the text came last,
    private var spentS = 0.0 // and the time in forwards since then

    /** It proposes nothing, since that would not pay. */
    var follows = false
        private set

    init {
        decide()
    }

    /** `both`, or `stream` once the draft's context is full. */
    override val mode: String get() = if (counts.room <= 0 && counts.left > 0) "stream" else "both"

    /** Whether both ends take turns. */
    val turns: Boolean get() = worth.turns

    /**
     * Turns are yet to begin: the base station reads the prompt, to which reading it here, too, would add,
     * and makes a step alone, which tells what one takes.
     */
    private val opens: Boolean get() = turns && counts.length <= counts.limits.begins + 1

    // What is due (8.3).
    override fun due(now: Double, cached: Int, connected: Boolean, unread: Boolean): List<Action> {
        val ahead = chances.size
        val rests = ahead == 0 && (opens || counts.length < resumes)
        if ((ahead == 0 || guesses) && askedS == null && !rests) {
            guesses = worth.unsure || worth.tries
            decide()
        }
        val room = minOf(if (follows) 1 else worth.most, counts.room)
        // In turns it rests until it hears what came of what it has proposed: all of it.
        val full = ahead >= room || ends || (turns && sent > 0)
        val actions = if (connected && !unread) proposals(now, ahead, room, full) else ArrayList()
        if (askedS == null && !full && !unread && !rests) actions += draft(now, cached, atOnce(room - ahead))
        if (actions.isNotEmpty()) return actions
        var aloneS = if (unread) null else offline.beginsS(startedS)
        if (aloneS != null && now >= aloneS) {
            alone(now, cached)?.let { return listOf(it) }
            aloneS = null // there is no more than that, for now
        }
        return listOf(Action.Wait(aloneS))
    }

    /** Whether it pays to propose anything. Turns that were given up are hardly tried any more, so they go on for a while. */
    private fun decide() {
        val here = estimates.acceptance
        val trusted = if (turns && !follows) minOf(here.alpha + TRUST * here.error, Controller.HOPE) else here.alpha
        follows = !worth.pays(trusted)
    }

    private fun proposals(now: Double, ahead: Int, room: Int, full: Boolean): ArrayList<Action> {
        val actions = ArrayList<Action>()
        val held = follows && ahead <= 1 // more was drafted while nothing was heard
        val fresh = if (held) 0 else minOf(ahead, BothFaults.MAX_LIVE.toInt()) - sent
        // Beyond the window, where nothing is heard for long, only groups are worth their frames.
        val last = ends || ahead >= counts.room || (full && (turns || ahead == room))
        if (fresh <= 0 || !(last || fresh >= worth.group || (!full && misses(now)))) return actions
        sent += fresh
        proposedS = now
        val message = counts.limits.message
        for (begin in 0 until fresh step message) {
            actions += Action.Propose(minOf(message, fresh - begin), goesOn = !(full && turns))
        }
        return actions
    }

    /** Whether the next token would be too late for a step that those there are in time for. */
    private fun misses(now: Double): Boolean {
        if (turns || worth.draftS == 0.0 || worth.verifyS == 0.0) return false
        return beside.misses(now, worth.draftS + (askedS ?: now), worth.verifyS, estimates.rtt.typical)
    }

    private fun draft(now: Double, cached: Int, tokens: Int): Action {
        askedS = now
        asked = tokens
        fed = counts.length + chances.size - cached
        return Action.Draft(tokens, counts.limits.begins, chances.isEmpty())
    }

    /**
     * Up to [most] tokens that are drafted without a look at what has come: in turns it is nothing, and to
     * hand a small draft's forward over and back takes as long as it.
     */
    private fun atOnce(most: Int): Int =
        if (!turns || follows || worth.draftS == 0.0) 1 else maxOf(1, minOf(most, (BRIEF_S / worth.draftS).toInt()))

    /** While nothing is heard: what of the path is shown next, or is drafted for that. */
    private fun alone(now: Double, cached: Int): Action? {
        val eos = List(chances.size) { ends && it == chances.lastIndex }
        val next = offline.next(eos, counts.limits.begins, counts.room, askedS != null)
        return if (next is Action.Guess) draft(now, cached, 1) else next
    }

    // What comes of it (8.4).

    /** Something has come of the base station. */
    fun heard(now: Double) {
        offline.heardS = now
    }

    /** The connection was lost, and there is another: what was proposed may not have arrived. */
    fun lost() {
        sent = 0
        age = 0
    }

    /** What `Draft` asked for is there. False if it is void: its path was left. */
    fun drafted(now: Double, proposed: List<Proposed>, waitedS: Double = 0.0): Boolean {
        val beganS = askedS!!
        askedS = null
        spentS += now - beganS
        val eachS = (now - beganS - waitedS) / asked
        val one = fed <= Epochs.BACKLOG
        for (place in asked downTo 1) {
            if (one) estimates.draft.took(eachS, null)
            beside.drafted(now - place * eachS, now - (place - 1) * eachS, one)
        }
        if (void) return false.also { void = false }
        chances += proposed.map { it.chance }
        ends = proposed.any { it.ends }
        return true
    }

    /**
     * So many [tokens] of the text have come, of which the path has the first [agreed], too; [accepted] of
     * them had been proposed, to a step of so many [rows]. [stepS]: 0 for what is told once more. Whether the
     * path goes on.
     */
    fun written(now: Double, agreed: Int, accepted: Int, tokens: Int, stepS: Double, rows: Int): Boolean {
        val faded = MEMORY.pow(tokens)
        text = faded * text + tokens
        stood = faded * stood + accepted
        val apart = !turns
        val differs = agreed < tokens && agreed < chances.size
        for (place in 0 until minOf(chances.size, agreed + if (differs) 1 else 0)) {
            estimates.acceptance.judged(chances[place], place < agreed)
        }
        if (stepS > 0.0) {
            val answers = turns && accepted > 0
            // No link is slower than that, though a greeting stalled, or was a program's first work.
            val mostS = now - stepS - if (answers) proposedS else startedS
            val shorter = (answers || !bounded) && estimates.rtt.atMost(mostS)
            bounded = true
            val undisturbed = beside.stepped(now, stepS, estimates.rtt.typical, askedS, rows)
            worth.told(here && beside.slows, follows)
            if (undisturbed || !turns) { // else both slowed one another, which turns are to avoid
                estimates.verify.took(stepS, !undisturbed)
                estimates.rows.add(maxOf(rows - 1, 0), stepS)
            }
            writtenS?.let { if (turns && sent in 1 until rows) worth.turned(now - it - stepS - spentS) }
            if (shorter) decide()
        }
        writtenS = now
        spentS = 0.0
        val taken = apart && turns // turns are, from here on
        if (taken) estimates.undisturbed()
        age += tokens
        val tried = chances.isNotEmpty() || askedS != null
        if (agreed == tokens) {
            chances.subList(0, minOf(tokens, chances.size)).clear()
            if (tokens <= sent && age < LONG && !taken) {
                sent -= tokens
                return true
            }
        } else {
            void = askedS != null
            chances.clear()
            ends = false
        }
        lost()
        rests(accepted, tokens, tried)
        return false
    }

    private fun rests(accepted: Int, tokens: Int, tried: Boolean) {
        if (follows && tried) {
            val hope = minOf(estimates.acceptance.alpha + estimates.acceptance.error, Controller.HOPE)
            val hoping = if (turns || here || beside.slows) LOOKS_DEAR else LOOKS_HOPING
            resumes = counts.length + tokens + if (worth.pays(hope)) hoping else LOOKS_NOT
        } else if (accepted > 0) {
            rest = REST_FIRST
        } else if (tried && text >= TRIED && stood < USE * text) {
            resumes = counts.length + tokens + rest
            rest = minOf(2 * rest, REST_MOST)
        }
        worth.rare = rest > REST_FIRST
    }

    override fun commit(tokens: Int, confirmed: Int, refuted: Boolean) {
        counts.length += tokens
        offline.accept(confirmed, refuted)
    }

    companion object {
        const val PRICE = 0.02 // tokens of text that a drafted token must save
        private const val LONG = 192 // tokens of a path, after which a new one begins
        private const val TRIED = 15.0 // weight of text, which comes to 25, from which what was of no use is given up
        private const val USE = 0.03 // accepted proposals for each token of text: fewer gain less than they cost
        private const val MEMORY = 0.96 // what a token of text weighs after the next one
        private const val REST_FIRST = 8 // tokens of text between two trials, at first
        private const val REST_MOST = 64 // and at the most
        private const val LOOKS_HOPING = 8 // tokens of text between two looks while it follows: where there is hope,
        private const val LOOKS_DEAR = 32 // the same where a look slows the base station's steps, or may,
        private const val LOOKS_NOT = 64 // or where there is none
        private const val TRUST = 0.5 // standard errors by which turns go on where they do not pay by the estimate itself
        private const val BRIEF_S = 0.008 // in turns, forwards that together take no longer are one job
    }
}
