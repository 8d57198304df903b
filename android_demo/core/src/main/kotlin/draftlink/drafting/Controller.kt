package draftlink.drafting

import draftlink.planning.Costs
import draftlink.planning.Schedule
import draftlink.planning.Theory
import kotlin.math.pow

/** Who writes, and how, where one end does. */
internal enum class Writer(val said: String) { STREAM("stream"), STOP_AND_WAIT("stop-and-wait"), RUN_AHEAD("run-ahead") }

/**
 * How to draft: blocks of [first] tokens, and whether the device [waits] behind each. A block is sent as
 * soon as the probability that all of it is accepted has fallen to [sure]. [window]: drafted tokens without
 * a verdict, at most.
 */
internal data class Plan(val first: Int, val waits: Boolean, val sure: Double, val window: Int)

/**
 * Which mode writes (docs/window.md, 4): estimates into closed forms, what was measured on top, and no
 * oscillation. It decides for one generation, which begins with it; no clock is read.
 *
 * [gamma]: the draft length of stop-and-wait, if the caller has fixed it. [foretells]: what would be
 * accepted is also learned while the target streams.
 */
internal class Controller(
    val estimates: Estimates,
    val gamma: Int? = null,
    var writer: Writer = Writer.STREAM,
    private val foretells: Boolean = false,
    private var since: Int = 0, // tokens written in this mode
    private var dwell: Int = DWELL,
    private var measuredS: Double = 0.0, // time that epochs took,
    private var foretoldS: Double = 0.0, // over the time that was foretold for them
    private var here: Boolean = false, // the base station's address is this machine's
    opens: Boolean = false,
) {
    /** Nothing delays behind that address: the base station has the cores for itself while it reads the prompt (5.1). */
    var opens = opens
        private set

    init {
        estimates.acceptance.begin()
    }

    /**
     * Whether a base station may be on this machine, by the round trip: through a tunnel one at this
     * machine's address is not.
     */
    val near: Boolean get() = estimates.rtt.typical > 0.0 && estimates.rtt.typical <= NEAR_S

    /** How to draft, where drafting it is. */
    val drafts: Writer get() = if (writer == Writer.STREAM) Writer.RUN_AHEAD else writer

    /** How to draft in a mode, as the estimates are now (4.1). */
    fun plan(mode: Writer): Plan {
        if (mode == Writer.RUN_AHEAD) return ahead()
        val (length, sure) = round()
        return Plan(length, true, sure, length)
    }

    /** Foretold seconds per token, if the acceptance rate is [alpha] (4.2). */
    fun tokenS(writer: Writer, alpha: Double): Double = when (writer) {
        Writer.STREAM -> estimates.streamS
        Writer.STOP_AND_WAIT -> roundS(alpha)
        Writer.RUN_AHEAD -> schedule(alpha).tokenS
    }

    /**
     * Who writes first, where that may change: the base station, while the device reads its own prompt. Where
     * both are on one machine ([near]) the device drafts, and waits, unless it has found that to be slower (4.6).
     */
    fun begin(near: Boolean): Writer {
        val alpha = estimates.acceptance.alpha
        here = near
        opens = near && this.near
        val waits = near && if (known) draftingS(Writer.STOP_AND_WAIT, alpha) < tokenS(Writer.STREAM, alpha) else opens
        if (waits) writer = Writer.STOP_AND_WAIT
        return writer
    }

    /** An epoch, or a round of [length], brought so many [tokens] in so many [seconds] (4.3). */
    fun drafted(mode: Writer, tokens: Int, seconds: Double, length: Int) {
        since += tokens
        if (!known) return
        val foretold = epochS(mode, tokens, length)
        measuredS = MEMORY * measuredS + minOf(seconds, SLOWEST * foretold)
        foretoldS = MEMORY * foretoldS + foretold
    }

    /** So many [tokens] of a stream came. */
    fun streamed(tokens: Int) {
        since += tokens
    }

    /** Tokens of a stream that the draft looks at once: on one machine it slows the stream (6.1). */
    val looks: Int
        get() {
            val told = estimates.acceptance
            if (!here || !known || told.weight < LOOKS) return 1
            val hope = minOf(told.alpha + told.error, HOPE)
            val pays = draftingS(drafting(hope), hope) < (1.0 - HYSTERESIS) * tokenS(Writer.STREAM, hope)
            return if (pays) LOOKS else LOOKS_DESPITE
        }

    /** The link has become another one: that drafting did not pay over the last says little (6.3). */
    fun nearer() {
        dwell = DWELL
    }

    private fun epochS(mode: Writer, tokens: Int, length: Int): Double {
        if (mode == Writer.STOP_AND_WAIT) {
            val (fixedS, draftedS) = estimates.roundS()
            return length * draftedS + fixedS
        }
        val (draftS, verifyS) = estimates.costsS(beside = true)
        val first = schedule(estimates.acceptance.alpha).first
        val costs = Costs(draftS, verifyS, estimates.rtt.mean)
        return Schedule.epochTime(tokens, first, costs, draftS / 2.0, estimates.stallS)
    }

    /** The mode for the next of [left] tokens; [writer] from now on (4.4). */
    fun choose(left: Int): Writer {
        if (!known) return writer
        val alpha = estimates.acceptance.alpha
        val better = drafting(alpha)
        val streamS = tokenS(Writer.STREAM, alpha)
        if (writer == Writer.STREAM) fromStream(left, alpha, better, streamS) else fromDrafting(alpha, better, streamS)
        return writer
    }

    private fun fromStream(left: Int, alpha: Double, better: Writer, streamS: Double) {
        // By what is expected: to wait for certainty costs what drafting would save for as long.
        val changeS = estimates.rtt.mean + estimates.draft.mean
        val draftS = draftingS(better, alpha)
        val pays = draftS < (1.0 - HYSTERESIS) * streamS && (streamS - draftS) * left > 2.0 * changeS &&
            (dwell == DWELL || since >= dwell) // the first stream need not last
        if (pays || (!foretells && worthATry(left))) change(better)
    }

    private fun fromDrafting(alpha: Double, better: Writer, streamS: Double) {
        val lasted = since >= dwell
        val patience = if (lasted) PATIENCE else MORE_PATIENCE
        val draftS = draftingS(writer, minOf(alpha + patience * estimates.acceptance.error, HOPE))
        // Drafting on may have shown that both ends share cores: that is no streak of luck.
        val crowded = writer == Writer.RUN_AHEAD && estimates.draft.slowdown > 1.0
        if (streamS < (1.0 - HYSTERESIS) * draftS) change(Writer.STREAM)
        else if (better != writer && (since >= DWELL || crowded)) change(better)
    }

    private fun drafting(alpha: Double): Writer {
        // Run-ahead looks at each token's probability, which its formula knows nothing of.
        val shares = if (opens && !estimates.draft.compared) SHARES else 1.0
        val waits = tokenS(Writer.STOP_AND_WAIT, alpha) < WAITS_BELOW * shares * tokenS(Writer.RUN_AHEAD, alpha)
        return if (waits) Writer.STOP_AND_WAIT else Writer.RUN_AHEAD
    }

    private val known: Boolean
        get() = estimates.rtt.size > 0 && estimates.draft.size > 0 && estimates.streamS != 0.0

    /** Foretold, and corrected by what was measured: a few epochs say little, where one that stalled may take twice as long. */
    private fun draftingS(writer: Writer, alpha: Double): Double {
        val foretold = tokenS(writer, alpha)
        return foretold * (measuredS + TRUST * foretold) / (foretoldS + TRUST * foretold)
    }

    /** Whether drafting might be faster, and finding out costs little of what is left (4.5). */
    private fun worthATry(left: Int): Boolean {
        val alpha = estimates.acceptance.alpha
        val hope = minOf(alpha + estimates.acceptance.error, HOPE)
        val streamS = tokenS(Writer.STREAM, hope)
        val epochS = (tokenS(Writer.RUN_AHEAD, alpha) - streamS) / (1.0 - alpha)
        return dwell == DWELL && // else it was tried before
            tokenS(Writer.RUN_AHEAD, hope) < (1.0 - HYSTERESIS) * streamS &&
            epochS + estimates.rtt.mean < PROBE_SHARE * left * streamS
    }

    private fun change(next: Writer) {
        if (next == Writer.STREAM) dwell *= 2 // from one way to draft to the other is no way back
        writer = next
        since = 0
    }

    private fun roundS(alpha: Double): Double {
        val (fixedS, draftedS) = estimates.roundS()
        val length = gamma ?: Theory.bestDraftLength(alpha, fixedS, draftedS, LONGEST)
        return (length * draftedS + fixedS) / Theory.expectedTokens(alpha, length)
    }

    /**
     * The most tokens of a block that waits, and how sure of all of it to be to go on: one more saves what a
     * token takes, if it and all before it are accepted, and costs what a drafted token costs.
     */
    private fun round(): Pair<Int, Double> {
        if (gamma != null) return gamma to 0.0
        if (estimates.draft.size == 0 || estimates.rtt.size == 0) return EARLY to 0.0
        val alpha = estimates.acceptance.alpha
        return LONGEST to minOf(estimates.roundS().second / (alpha * roundS(alpha)), 1.0)
    }

    private fun ahead(): Plan {
        val draftS = estimates.draft.typical
        if (draftS == 0.0) return Plan(2, false, 0.75, 2 * LONGEST)
        val alpha = estimates.acceptance.alpha
        val verifyS = estimates.verifyS
        val first = schedule(alpha).first
        // Enough to draft without pause until the first block's verdict is there, and no deeper than one
        // epoch in a hundred gets.
        val until = first + ((estimates.rtt.typical + 2.0 * verifyS) / draftS).toInt() + 1
        val window = maxOf(first, minOf(until, Schedule.depth(alpha, DEEPEST)))
        // Others wait for the base station too: what it checks should be accepted.
        val load = if (verifyS != 0.0) estimates.queue.typical / verifyS else 0.0
        return Plan(first, false, alpha.pow(first - 0.5), maxOf(first, (window / (1.0 + load)).toInt()))
    }

    private fun schedule(alpha: Double): Schedule {
        val (draftS, verifyS) = estimates.costsS(beside = true)
        return Schedule.planned(alpha, draftS, verifyS, estimates.rtt.mean, estimates.stallS)
    }

    companion object {
        const val LONGEST = 16 // tokens of a block that is planned
        const val HOPE = 0.98 // the acceptance rate that is hoped for, at the most
        const val DWELL = 12 // tokens written in a mode before it is left; doubled each time it is
        private const val EARLY = 5 // tokens of a block before anything is known
        private const val HYSTERESIS = 0.05 // by how much another mode must be faster
        private const val WAITS_BELOW = 0.95 // of run-ahead's time per token, before stop-and-wait is chosen
        private const val PATIENCE = 0.6 // of them by which acceptance may be better than it looks, before drafting is left
        private const val MORE_PATIENCE = 1.0 // and before it has been drafted for long
        private const val TRUST = 60.0 // tokens' time, foretold, that weighs against what was measured
        private const val SLOWEST = 2.0 // times what was foretold, as which an epoch counts at the most
        private const val PROBE_SHARE = 0.03 // of what is left, in time, that finding out may cost
        private const val MEMORY = 0.95 // what an epoch's time weighs after the next one
        private const val SHARES = 1.5 // times as long run-ahead is taken to take on one machine, before it is known
        private const val NEAR_S = 0.02 // a greeting's way there and back within a busy machine
        private const val LOOKS = 8 // tokens of a stream between two looks on one machine, where there is hope
        private const val LOOKS_DESPITE = 64 // and where there is none
        private const val DEEPEST = 0.01 // of all epochs get as deep as the window
    }
}
