package draftlink.drafting

/** What decides who does what next in one generation: [Window] where one end writes, [Paths] where both do. */
internal sealed interface Decides {
    /** Who writes, and how. */
    val mode: String

    /**
     * What is to be done at [now], in this order; the last may be to wait. [cached] tokens are in the draft's
     * cache; [connected]: frames can be sent; [unread]: a frame has come that it has not been told of.
     */
    fun due(now: Double, cached: Int, connected: Boolean = true, unread: Boolean = false): List<Action>

    /** The history has grown by so many [tokens], the first [confirmed] as shown; [refuted]: the next one is not. */
    fun commit(tokens: Int, confirmed: Int = 0, refuted: Boolean = false)
}

/**
 * The drafting window (docs/window.md, 1): decides what a device does next, without I/O, a model, a clock or
 * an id. [length] tokens of history are there when it begins; [streams]: the base station writes first;
 * [auto]: who writes may change. [startedS]: when the generation began, [now] when the base station was asked.
 */
internal class Window(
    private val controller: Controller,
    limits: Limits,
    length: Int,
    private val startedS: Double,
    now: Double,
    streams: Boolean,
    private val auto: Boolean,
    offlineAfterS: Double? = null,
) : Decides {
    private val counts = Counts(limits, length)
    private val offline = Offline(offlineAfterS).apply { heardS = startedS }
    private var stream: Stream? = if (streams) streaming() else null // one of the two is there
    private var epochs: Epochs? = if (streams) null else drafting(now)

    private fun streaming() = Stream(controller, counts, startedS, auto)

    private fun drafting(now: Double) = Epochs(controller, counts, offline, now, auto)

    override val mode: String get() = (epochs?.mode ?: Writer.STREAM).said

    /** Whether the base station writes alone. */
    val streams: Boolean get() = stream != null

    /** Whether [due] gives back as soon as a connection is there, whatever is unread. */
    val gone: Boolean get() = epochs?.gone ?: false

    /** Drafted tokens that have been accepted since the epoch began. */
    val judged: Int get() = epochs!!.judged

    override fun due(now: Double, cached: Int, connected: Boolean, unread: Boolean): List<Action> {
        val epochs = epochs
        var actions = emptyList<Action>()
        var pauseS: Double? = null
        val sinceS: Double?
        if (epochs == null) {
            actions = stream!!.due(now, cached)
            sinceS = startedS
        } else if (connected && epochs.gone) {
            this.epochs = null
            stream = streaming()
            return listOf(Action.GiveBack)
        } else {
            sinceS = epochs.waitsSinceS(connected)
            if (connected && !unread) {
                actions = epochs.due(now, cached)
                pauseS = epochs.pauseS // it ends with a token being drafted, for which both ends must be agreed
            }
        }
        if (actions.isNotEmpty()) return actions
        var aloneS = if (unread) null else offline.beginsS(sinceS)
        if (aloneS != null && now >= aloneS) {
            show()?.let { return listOf(it) }
            aloneS = null // there is no more than that
        }
        return listOf(Action.Wait(listOfNotNull(pauseS, aloneS).minOrNull()))
    }

    private fun show(): Action? = epochs?.let { offline.next(it.ends, it.begins, counts.room, it.drafting) }
        ?: stream?.let { offline.next(emptyList(), it.begins, counts.room, it.drafting) }

    // What has happened.

    /** What `Draft` asked for is there. False if it is void. [waitedS]: of the time, the draft was at work for others. */
    fun drafted(now: Double, proposed: List<Proposed>, waitedS: Double = 0.0): Boolean =
        epochs!!.drafted(now, proposed, waitedS)

    /** What `Reuse` asked for: tokens that are shown already follow those drafted. */
    fun reused(proposed: List<Proposed>) = epochs!!.append(proposed)

    /** What `Guess` asked for has been drafted and shown. */
    fun guessed(eos: Boolean) = offline.guessed(eos)

    /** What `Follow` asked for has been proposed. */
    fun followed(now: Double, waitedS: Double = 0.0) = stream!!.followed(now, waitedS)

    /** A proposal beside the stream has met the target's own token. */
    fun foretold(chance: Double, accepted: Boolean) = controller.estimates.acceptance.judged(chance, accepted)

    /** A token of the stream has come: what share of it a draft's own would have kept. */
    fun told(share: Double) = controller.estimates.acceptance.told(share)

    override fun commit(tokens: Int, confirmed: Int, refuted: Boolean) {
        counts.length += tokens
        offline.accept(confirmed, refuted)
    }

    /** A verdict has come; then [commit] says what it adds, and [proceed] that this is all. Whether it rejects a token. */
    fun verdict(now: Double, verdict: Judged): Boolean {
        offline.heardS = now
        return epochs!!.verdict(now, verdict)
    }

    /** All that a verdict adds to the history is there, and the text has not ended. */
    fun proceed(now: Double, closes: Boolean, owes: Boolean = false) = epochs!!.proceed(now, closes, owes)

    /** So many tokens of the stream have come, and [commit] has been told. The switch that is due at once, if one is. */
    fun streamed(now: Double, tokens: Int, ended: Boolean): Action.Switch? {
        offline.heardS = now
        return stream!!.streamed(now, tokens, ended)
    }

    /** The base station has stopped its stream, and the device drafts. */
    fun switched(now: Double) {
        offline.heardS = now
        stream = null
        epochs = drafting(now)
    }
}
