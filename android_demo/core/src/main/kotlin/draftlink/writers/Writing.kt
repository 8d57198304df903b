package draftlink.writers

import draftlink.device.Drafter
import draftlink.device.Kind
import draftlink.device.Proposal
import draftlink.drafting.Action
import draftlink.drafting.Controller
import draftlink.drafting.Decides
import draftlink.drafting.Limits
import draftlink.drafting.Paths
import draftlink.drafting.Proposed
import draftlink.drafting.Window
import draftlink.model.DraftModel
import draftlink.session.Rule
import draftlink.transport.Client
import draftlink.transport.LinkState
import draftlink.wire.Frame
import draftlink.wire.Start
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Deferred
import kotlinx.coroutines.async
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.launch
import kotlinx.coroutines.selects.select
import kotlinx.coroutines.withTimeoutOrNull
import kotlinx.coroutines.yield
import kotlin.math.ceil

/**
 * What the rooms of one generation share: history, link, one job of the draft's, and accounts. All but the
 * jobs, which run on [work], belongs to one thread at a time.
 *
 * [near]: the base station's address is this machine's. [offlineAfterS]: when the draft may go on alone.
 */
internal class Writing(
    val client: Client,
    val model: DraftModel,
    val drafter: Drafter,
    val controller: Controller,
    start: Start,
    val history: MutableList<Int>,
    val tally: Tally,
    private val near: Boolean,
    private val offlineAfterS: Double?,
    private val work: CoroutineDispatcher,
    private val nowS: () -> Double,
) {
    /** What it began with; its number, and what is sent of the ids, are settled as it begins. */
    var start = start
        private set

    /** What the draft has shown on its own, where it may. */
    val alone = if (offlineAfterS == null) null else Alone()

    /** The draft's work under way, until its result is taken. */
    var job: Deferred<List<Proposal>>? = null
        private set

    private lateinit var scope: CoroutineScope
    private lateinit var decides: Decides
    private var jobS = 0.0 // when it was asked for
    private var cut: Int? = null // tokens of what the job feeds that are kept
    private var coming: Deferred<Frame>? = null

    /** What decides while one end writes, */
    val window: Window get() = decides as Window

    /** and while both do. */
    val paths: Paths get() = decides as Paths

    /** Whether both ends write. */
    val both: Boolean get() = decides is Paths

    /** Who writes, and how. */
    val mode: String get() = decides.mode

    /** Whether the session is where the history is: no frame waits to be read, and no connection is looked for. */
    val agreed: Boolean get() = !unread && client.connected

    private val unread: Boolean get() = coming?.isCompleted ?: false

    fun now(): Double = nowS()

    /** The window decides from here on; [auto]: also about who writes. Jobs and frames are of this [scope]. */
    suspend fun begin(scope: CoroutineScope, auto: Boolean) {
        this.scope = scope
        val welcome = client.welcome
        val rule = Rule(start.scheme, start.sampling.greedy)
        val size = welcome.vocabSize.toInt()
        val begins = start.begins.toInt()
        val limits = Limits(
            begins, begins + start.maxTokens.toInt(), model.context, rule.longest(size, welcome.frameEntries).toInt(),
            rule.deepest(size, welcome.flightEntries).toInt(), rule.foretells, rule.corrects, start.streamedSurprisals == true,
        )
        if (start.mode == "both") {
            val paths = Paths(
                controller, limits, history.size, near && controller.near, near, welcome.stepUs * US, welcome.rowUs * US, Paths.PRICE, tally.startedS, offlineAfterS,
            )
            decides = paths
            if (paths.turns && !paths.follows) start = start.copy(turns = true)
        } else {
            decides = Window(
                controller, limits, history.size, tally.startedS, now(), start.mode == "stream", auto, offlineAfterS,
            )
        }
        client.send(start)
    }

    /** What the window asks for now. */
    fun due(): List<Action> = decides.due(now(), model.length, client.connected, unread)

    /** Has the draft propose [count] tokens behind [past]; see [Drafter.propose]. */
    fun draft(past: List<Int>, count: Int, begins: Long) {
        check(job == null) { "the draft is at work" }
        jobS = now()
        job = scope.async(work) { drafter.propose(past, count, begins) }
    }

    /** What the job has proposed, once it is there. */
    suspend fun done(): List<Proposal> {
        val found = job!!.await()
        ended()
        return found
    }

    /** As [done], and counted. */
    suspend fun proposals(): List<Proposal> {
        val found = done()
        tally.draftS += now() - jobS
        tally.drafted += found.size
        return found
    }

    /** Proposals as the window sees them. */
    fun seen(proposals: List<Proposal>): List<Proposed> =
        proposals.map { Proposed(it.chance, it.drafted.token in start.eosIds) }

    /** What was fed behind so many tokens is rolled back; a job under way is left to its end. */
    fun drop(keep: Int = history.size) {
        cut = minOf(cut ?: keep, keep)
        if (job == null) ended()
    }

    private fun ended() {
        job = null
        cut?.let { drafter.rollback(it) }
        cut = null
    }

    suspend fun send(frame: Frame) = client.send(frame)

    /** The next frame, on its way. */
    private fun incoming(): Deferred<Frame> = coming ?: scope.async { client.receive() }.also { coming = it }

    /** Whether a frame, or what ended the connection, is there. */
    val came: Boolean get() = incoming().isCompleted

    /** The next frame. Throws [draftlink.transport.LinkException]. */
    suspend fun receive(): Frame {
        val found = incoming()
        return try {
            found.await()
        } finally {
            if (found.isCompleted) coming = null
        }
    }

    /** Until the job is done, a frame or a connection is there, or until a time, if one is. */
    suspend fun event(untilS: Double?) {
        val next = incoming()
        val back = if (client.connected) null else scope.launch { client.state.first { it != LinkState.LOST } }
        suspend fun any() = select {
            next.onJoin {}
            job?.let { it.onJoin {} }
            back?.let { it.onJoin {} }
        }
        try {
            if (untilS == null) return any()
            val leftMs = ceil((untilS - now()) * 1000).toLong()
            if (leftMs > 0) withTimeoutOrNull(leftMs) { any() } else yield()
        } finally {
            back?.cancel()
        }
    }

    /** Provisional tokens: those of [ahead], which are in flight, or one that is drafted, from [numbers] of its own. */
    suspend fun show(action: Action, ahead: List<Proposal>, numbers: Long = 0): List<Came> {
        val fresh = if (action is Action.Show) ahead.drop(action.first) else guess(action as Action.Guess, numbers)
        alone!!.show(fresh)
        return fresh.map { Came(it.drafted.token, Kind.PROVISIONAL) }
    }

    private suspend fun guess(action: Action.Guess, numbers: Long): List<Proposal> {
        // The cache may hold what is in flight; and will have to, once more.
        if (action.apart) drafter.rollback(history.size)
        draft(history + alone!!.tokens, 1, action.begins.toLong() or numbers or if (action.apart) APART else 0)
        val fresh = proposals()
        if (action.apart) drafter.rollback(history.size)
        window.guessed(fresh.single().drafted.token in start.eosIds)
        return fresh
    }

    /** [ids] join the history. The place of the one that refutes what was shown, or null. */
    fun commit(ids: List<Int>): Int? {
        val (confirmed, refuted) = alone?.meet(ids) ?: (0 to false)
        history += ids
        decides.commit(ids.size, confirmed, refuted)
        return if (refuted) confirmed else null
    }

    /** Nothing is under way any more: neither a job nor a frame waited for. */
    suspend fun close() {
        coming?.cancelAndJoin()
        job?.join()
        ended()
    }

    companion object {
        private const val US = 1e-6
        private const val APART = 1L shl 62 // beside a position: numbers of their own, for tokens that are shown and never sent
        const val BESIDE = 1L shl 61 // likewise: for what is drafted beside a stream, as an epoch may begin where it did
    }
}
