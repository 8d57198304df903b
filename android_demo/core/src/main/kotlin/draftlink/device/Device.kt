package draftlink.device

import draftlink.drafting.Acceptance
import draftlink.drafting.Controller
import draftlink.drafting.Estimates
import draftlink.drafting.Writer
import draftlink.model.DraftModel
import draftlink.noise.Draws
import draftlink.session.Features
import draftlink.session.Rule
import draftlink.session.State
import draftlink.transport.Client
import draftlink.transport.LinkState
import draftlink.transport.OkLink
import draftlink.wire.Sampling
import draftlink.wire.Scheme
import draftlink.wire.Start
import draftlink.wire.Welcome
import draftlink.writers.Tally
import draftlink.writers.Writing
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.NonCancellable
import kotlinx.coroutines.channels.Channel
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.MutableStateFlow
import kotlinx.coroutines.flow.StateFlow
import kotlinx.coroutines.flow.buffer
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.flow.flowOn
import kotlinx.coroutines.withContext
import java.security.SecureRandom
import java.util.concurrent.atomic.AtomicBoolean

/**
 * A draft model and a session with a base station, and a conversation of the two.
 *
 * [eosIds] end a text where the target's files name none. [work]: where the draft computes, one forward
 * after another. What it has found out about link, models and acceptance outlives a text.
 */
class Device(
    private val model: DraftModel,
    val client: Client,
    private val eosIds: List<Int> = emptyList(),
    private val work: CoroutineDispatcher = Dispatchers.Default,
    private val nowS: () -> Double = { System.nanoTime() * 1e-9 },
) : Conversation {
    // All that is not the draft's work happens here, one thing at a time.
    private val loop = Dispatchers.Default.limitedParallelism(1)
    private val busy = AtomicBoolean()
    private val said = MutableStateFlow(Live())
    private var history = ArrayList<Int>() // what the draft's cache holds the beginning of
    private val estimates = Estimates()
    private val acceptances = HashMap<Pair<Scheme, Sampling>, Acceptance>()
    private var near = false
    private var begun = false // a text, whose prompt the history has

    @Volatile
    private var certain = emptyList<Int>()

    override val tokens: List<Int> get() = certain
    override val link: StateFlow<LinkState> get() = client.state
    override val live: StateFlow<Live> get() = said

    @Volatile
    override var result: Result? = null
        private set

    override suspend fun open() = withContext(loop) {
        client.open()
        near = OkLink.isNear(client.url)
        estimates.rtt.add(client.rttS)
    }

    override fun close() = client.close()

    override fun generate(prompt: List<Int>, options: Options): Flow<Token> = flow {
        check(busy.compareAndSet(false, true)) { "another text of this conversation is being written" }
        var keep = prompt.size
        try {
            // Nothing runs ahead of who collects: a flow that is left ends the text where it was left.
            text(prompt, options).buffer(Channel.RENDEZVOUS).flowOn(loop).collect { token ->
                if (token.kind != Kind.PROVISIONAL) {
                    keep++
                    certain = certain + token.id
                }
                emit(token)
            }
        } finally {
            withContext(NonCancellable + loop) { left(keep) }
            busy.set(false)
        }
    }

    /** A text has ended, or was left: what stands are so many tokens, at both ends. */
    private suspend fun left(keep: Int) {
        if (!begun) return
        begun = false
        while (history.size > keep) history.removeAt(history.lastIndex)
        if (model.length > history.size) model.rollback(history.size)
        certain = history.toList()
        client.leave(keep.toLong())
    }

    private fun text(prompt: List<Int>, asked: Options): Flow<Token> = flow {
        val options = asked.checked()
        val mode = resolved(options)
        demand(prompt, options)
        if (client.session.state != State.READY) client.finish(common(prompt).toLong())
        val generation = Generation(writing(prompt, options, mode), client, said)
        generation.run(mode == Mode.AUTO) { emit(it) }
        result = generation.result
    }

    private fun common(prompt: List<Int>) = history.zip(prompt).takeWhile { (a, b) -> a == b }.size

    private val welcome: Welcome get() = client.welcome

    /** The mode, which is `both` for `auto` where nothing hinders both ends from writing. */
    private fun resolved(options: Options): Mode {
        val hindered = when {
            !Rule(options.scheme, options.sampling.greedy).foretells ->
                "with rows the text depends on who proposes it, so both ends cannot write: choose coupled, or temperature 0"
            Features.BOTH !in welcome.features -> "the base station does not let both ends write; choose another mode"
            else -> null
        }
        require(options.mode != Mode.BOTH || hindered == null) { "$hindered" }
        return if (options.mode == Mode.AUTO && hindered == null) Mode.BOTH else options.mode
    }

    private fun demand(prompt: List<Int>, options: Options) {
        val shared = minOf(model.vocabSize.toLong(), welcome.vocabSize).toInt()
        require(prompt.isNotEmpty() && prompt.all { it in 0 until shared }) { "the prompt is empty, or has ids of neither model" }
        require(prompt.size < welcome.context) {
            "the prompt has ${prompt.size} tokens, and the target's context is ${welcome.context}"
        }
        require(welcome.suppressedIds.isEmpty() || Features.SUPPRESSED in welcome.features) { "the base station cannot leave ids out" }
        val longest = Rule(options.scheme, options.sampling.greedy).longest(welcome.vocabSize.toInt(), welcome.frameEntries)
        require(longest > 0) { "one drafted token of this scheme is more than a message holds" }
    }

    /** A generation behind a [prompt], of which both ends hold what they had before. */
    private fun writing(prompt: List<Int>, options: Options, mode: Mode): Writing {
        val kept = common(prompt)
        // The row behind the prompt has to be made in any case.
        val base = minOf(kept.toLong(), client.session.length, prompt.size - 1L)
        val tells = mode == Mode.AUTO && Features.STREAMED in welcome.features
        val fixed = when (mode) {
            Mode.STOP_AND_WAIT -> Writer.STOP_AND_WAIT
            Mode.RUN_AHEAD -> Writer.RUN_AHEAD
            else -> Writer.STREAM
        }
        val acceptance = acceptances.getOrPut(options.scheme to options.sampling) { Acceptance() }
        val foretells = Rule(options.scheme, options.sampling.greedy).foretells
        val controller = Controller(estimates.of(acceptance), options.gamma, fixed, foretells || tells)
        val start = Start(
            client.session.generation + 1, base, prompt.drop(base.toInt()), options.sampling, options.scheme,
            phase(mode, controller), minOf(options.maxTokens.toLong(), welcome.context - prompt.size),
            options.eosIds ?: welcome.eosIds.ifEmpty { eosIds }, options.seed,
            suppressedIds = welcome.suppressedIds.distinct().sorted().ifEmpty { null },
            streamedSurprisals = if (tells) true else null,
        )
        val drafter = Drafter(model, start, welcome.vocabSize.toInt(), key(options))
        drafter.rollback(kept)
        begun = true
        history = ArrayList(prompt)
        certain = prompt.toList()
        client.history = history
        return Writing(client, model, drafter, controller, start, history, Tally(nowS()), near, options.offlineAfterS, work, nowS)
    }

    /** Who writes first: until the device has its own prompt in the cache, the target does. */
    private fun phase(mode: Mode, controller: Controller): String = when (mode) {
        Mode.BOTH -> "both"
        Mode.STREAM -> "stream"
        Mode.AUTO -> if (controller.begin(near) == Writer.STREAM) "stream" else "draft"
        else -> "draft"
    }

    private fun key(options: Options): ByteArray {
        val seed = options.seed ?: return ByteArray(KEY_BYTES).also { SecureRandom().nextBytes(it) }
        return Draws.keyFromSeed(seed, if (options.scheme is Scheme.Coupled) "coupled" else "device")
    }

    private companion object {
        const val KEY_BYTES = 32
    }
}
