package draftlink.drafting

import draftlink.planning.Theory
import draftlink.session.BothFaults
import kotlin.math.ceil
import kotlin.math.ln
import kotlin.math.pow

/**
 * The window while both ends write (docs/window.md, 8): what the device drafts and proposes on one *path*
 * behind the text, without I/O or an id.
 *
 * Where both ends share a machine they take turns; elsewhere the device drafts on under a window that covers
 * what is under way. All of it is weighed by one price: of the text that a drafted token saves the base
 * station's steps it must bring [price] tokens. [shared]: the base station is on this machine. [stepS],
 * [rowS]: what it says that a step takes, and each further row.
 */
internal class Paths(
    controller: Controller,
    limits: Limits,
    length: Int,
    private val shared: Boolean,
    private val stepS: Double = 0.0,
    private val rowS: Double = 0.0,
    private val price: Double = PRICE,
    private val startedS: Double = 0.0,
    offlineAfterS: Double? = null,
) : Decides {
    private val estimates = controller.estimates
    private val gamma = controller.gamma
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

    /** It proposes nothing, since that would not pay. */
    var follows = !pays(estimates.acceptance.alpha)
        private set

    /** `both`, or `stream` once the draft's context is full. */
    override val mode: String get() = if (counts.room <= 0 && counts.left > 0) "stream" else "both"

    /** Whether both ends take turns. */
    val turns: Boolean get() = shared || estimates.draft.slowdown > 1.0
    private val opens: Boolean get() = turns && counts.length == counts.limits.begins // the first turn is not over

    // What things cost (8.2).
    private val draftS: Double get() = estimates.draft.meanS(!turns, estimates.draft.slowdown)

    private val verifyS: Double get() = estimates.verifyS.takeIf { it != 0.0 } ?: stepS

    /** What each proposed token adds to a step, which is no more than a step without any; and what that takes. */
    private val eachS: Double
        get() = minOf(estimates.rows.eachS(rowS), verifyS / (1.0 + estimates.rows.tokens))

    private val loneS: Double get() = verifyS - estimates.rows.tokens * eachS

    /** Tokens that are drafted before the base station gives up waiting for them. */
    private val inTime: Int
        get() {
            if (!turns) return Controller.LONGEST
            return ((WAITS * loneS - estimates.rtt.mean) / draftS).toInt().coerceIn(1, Controller.LONGEST)
        }

    /** Tokens that are proposed at once. */
    private val group: Int
        get() {
            if (gamma != null) return gamma
            if (draftS == 0.0 || verifyS == 0.0) return EARLY
            val alpha = estimates.acceptance.alpha
            val pays = minOf(Theory.bestDraftLength(alpha, estimates.rtt.mean + loneS, draftS + eachS, inTime), deep)
            return if (turns) pays else maxOf(1, minOf(pays, Math.rint(verifyS / (2.0 * draftS)).toInt()))
        }

    /** Tokens of a path that may be ahead of the text as the device knows it. */
    private val most: Int get() = ahead(minOf(Math.rint(1.0 / (1.0 - estimates.acceptance.alpha)).toInt(), Controller.LONGEST))

    /** The same where a base station may be waiting for so many. */
    private fun ahead(waits: Int): Int {
        if (turns || draftS == 0.0 || rest > REST_FIRST) return group
        val underWay = ceil((estimates.rtt.mean + verifyS) / draftS)
        return minOf(MOST.toDouble(), maxOf(group, waits) + underWay, maxOf(group, deep).toDouble()).toInt()
    }

    /** Tokens of a path of which the last still saves its price, if it comes in time. */
    private val deep: Int
        get() = if (price <= 0.0) MOST else (ln(price) / ln(estimates.acceptance.alpha)).toInt().coerceIn(1, MOST)

    private val unsure: Boolean get() = estimates.draft.size < SEEN || verifyS == 0.0

    /**
     * Whether a path that is begun now saves its price, at an acceptance rate: token j of it is in time for
     * a step if j times what a step takes longer than a draft makes up for the round trip and a step. In
     * turns nothing is overtaken, if the base station waits: it does where a turn brings more than its own steps.
     */
    private fun pays(alpha: Double): Boolean {
        if (unsure || price <= 0.0 || (turns && gamma != null)) return true
        if (turns) {
            val turnS = estimates.rtt.mean + loneS + group * (draftS + eachS)
            return Theory.expectedTokens(alpha, group) * loneS >= turnS
        }
        val lateS = estimates.rtt.mean + verifyS
        val savesS = verifyS - draftS
        val window = ahead(0)
        if (savesS <= 0.0 || window < lateS / verifyS) return false // by so much the text is ahead
        val tokens = alpha.pow(lateS / savesS) / (1.0 - alpha)
        return tokens * savesS / verifyS >= BEGUN * price * window
    }

    // What is due (8.3).
    override fun due(now: Double, cached: Int, connected: Boolean, unread: Boolean): List<Action> {
        val ahead = chances.size
        if ((ahead == 0 || guesses) && askedS == null) {
            guesses = unsure
            follows = !pays(estimates.acceptance.alpha)
        }
        val room = minOf(if (follows || opens) 1 else most, counts.room)
        // In turns it rests until it hears what came of what it has proposed: all of it.
        val full = ahead >= room || ends || (turns && sent > 0)
        val actions = if (connected && !unread) proposals(now, ahead, room, full) else ArrayList()
        val rests = ahead == 0 && counts.length < resumes
        if (askedS == null && !full && !unread && !rests) actions += draft(now, cached, atOnce(room - ahead))
        if (actions.isNotEmpty()) return actions
        var aloneS = if (unread) null else offline.beginsS(startedS)
        if (aloneS != null && now >= aloneS) {
            alone(now, cached)?.let { return listOf(it) }
            aloneS = null // there is no more than that, for now
        }
        return listOf(Action.Wait(aloneS))
    }

    private fun proposals(now: Double, ahead: Int, room: Int, full: Boolean): ArrayList<Action> {
        val actions = ArrayList<Action>()
        val held = (follows || opens) && ahead <= 1 // more was drafted while nothing was heard
        val fresh = if (held) 0 else minOf(ahead, BothFaults.MAX_LIVE.toInt()) - sent
        // Beyond the window, where nothing is heard for long, only groups are worth their frames.
        val last = ends || ahead >= counts.room || (full && (turns || ahead == room))
        if (fresh <= 0 || !(last || fresh >= group || (!full && misses(now)))) return actions
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
        if (turns || draftS == 0.0 || verifyS == 0.0) return false
        return beside.misses(now, draftS + (askedS ?: now), verifyS, estimates.rtt.typical)
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
        if (!turns || follows || draftS == 0.0) 1 else maxOf(1, minOf(most, (BRIEF_S / draftS).toInt()))

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
        if (fed <= Epochs.BACKLOG) {
            val eachS = (now - beganS - waitedS) / asked
            for (place in asked downTo 1) {
                estimates.draft.took(eachS, null)
                beside.drafted(now - place * eachS, now - (place - 1) * eachS)
            }
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
            if ((answers || !bounded) && estimates.rtt.atMost(mostS)) follows = !pays(estimates.acceptance.alpha)
            bounded = true
            // Else both slowed one another, which turns are to avoid.
            if (beside.stepped(now, stepS, estimates.rtt.typical, askedS) || !turns) {
                estimates.verify.took(stepS, null)
                estimates.rows.add(maxOf(rows - 1, 0), stepS)
            }
        }
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
            resumes = counts.length + tokens + if (pays(hope)) LOOKS_HOPING else LOOKS_NOT
        } else if (accepted > 0) {
            rest = REST_FIRST
        } else if (tried && text >= TRIED && stood < USE * text) {
            resumes = counts.length + tokens + rest
            rest = minOf(2 * rest, REST_MOST)
        }
    }

    override fun commit(tokens: Int, confirmed: Int, refuted: Boolean) {
        counts.length += tokens
        offline.accept(confirmed, refuted)
    }

    companion object {
        const val PRICE = 0.02 // tokens of text that a drafted token must save
        private const val BEGUN = 1.25 // times the price: a path goes on until it is known to be wrong
        private const val MOST = 64 // tokens of a path that the text has not reached at the device
        private const val LONG = 192 // tokens of a path, after which a new one begins
        private const val TRIED = 15.0 // weight of text, which comes to 25, from which what was of no use is given up
        private const val USE = 0.03 // accepted proposals for each token of text: fewer gain less than they cost
        private const val MEMORY = 0.96 // what a token of text weighs after the next one
        private const val REST_FIRST = 8 // tokens of text between two trials, at first
        private const val REST_MOST = 64 // and at the most
        private const val LOOKS_HOPING = 8 // tokens of text between two looks while it follows: where there is hope,
        private const val LOOKS_NOT = 64 // or none
        private const val EARLY = 4 // tokens that are proposed before anything is known of times
        private const val WAITS = 2.5 // steps in which a turn is to be over: a base station waits for four at the most
        private const val SEEN = 3 // forwards, before which it is not judged whether drafting pays: the first may be slow
        private const val BRIEF_S = 0.008 // in turns, forwards that together take no longer are one job
    }
}
