package draftlink.device

import draftlink.model.DraftModel
import draftlink.noise.Draws
import draftlink.session.Features
import draftlink.session.State
import draftlink.transport.Client
import draftlink.transport.LinkException
import draftlink.wire.Draft
import draftlink.wire.Scheme
import draftlink.wire.Start
import draftlink.wire.Switch
import draftlink.wire.Tokens
import draftlink.wire.Verdict
import kotlinx.coroutines.CoroutineDispatcher
import kotlinx.coroutines.Dispatchers
import kotlinx.coroutines.flow.Flow
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.withContext
import java.security.SecureRandom
import java.util.concurrent.atomic.AtomicBoolean

/**
 * A draft model and a session with a base station, and a conversation of the two. Texts are written in
 * stop-and-wait: draft, send, wait; behind the draft's context the base station writes alone.
 *
 * [eosIds] end a text where the target's files name none. [work]: where the draft computes.
 */
class Device(
    private val model: DraftModel,
    val client: Client,
    private val eosIds: List<Int> = emptyList(),
    private val work: CoroutineDispatcher = Dispatchers.Default,
) {
    private var history = ArrayList<Int>()
    private val busy = AtomicBoolean()

    /** The tokens of the conversation, prompts and texts. */
    val tokens: List<Int> get() = history.toList()

    /** What the last text took, when it has ended. */
    var result: Result? = null
        private set

    /**
     * The tokens behind a [prompt], which is all of the conversation's ids; those that the prompt has
     * in common with what went before are not fed again. A flow that is left ends the text there, and
     * one text is written at a time. It throws [LinkException], and [IllegalArgumentException] for what
     * cannot be asked.
     */
    fun generate(prompt: List<Int>, options: Options = Options()): Flow<Token> = flow {
        check(busy.compareAndSet(false, true)) { "another text of this conversation is being written" }
        var ends = history.size // of what the caller has seen
        try {
            val writing = begin(prompt, options.checked())
            ends = prompt.size
            do {
                val came = if (client.session.state == State.STREAMING) streamed() else drafted(writing)
                for (token in came) {
                    ends++
                    emit(token)
                }
            } while (client.session.state != State.READY)
            result = writing.tally.result(history.drop(prompt.size), client)
        } finally {
            while (history.size > ends) history.removeAt(history.lastIndex)
            busy.set(false)
        }
    }

    private class Writing(val start: Start, val drafter: Drafter, val gamma: Int, val tally: Tally) {
        val ends = start.begins + start.maxTokens
    }

    private suspend fun begin(prompt: List<Int>, options: Options): Writing {
        val welcome = client.welcome
        val shared = minOf(model.vocabSize.toLong(), welcome.vocabSize).toInt()
        require(prompt.isNotEmpty() && prompt.all { it in 0 until shared }) { "the prompt is empty, or has ids of neither model" }
        val room = welcome.context - prompt.size
        require(room >= 1) { "the prompt has ${prompt.size} tokens, and the target's context is ${welcome.context}" }
        val suppressed = welcome.suppressedIds.distinct().sorted()
        require(suppressed.isEmpty() || Features.SUPPRESSED in welcome.features) { "the base station cannot leave ids out" }
        // A text that was left in the middle ends where it was left.
        if (client.session.state != State.READY) client.finish(history.size.toLong())
        val kept = history.zip(prompt).takeWhile { (a, b) -> a == b }.size
        // The row behind the prompt has to be made in any case.
        val base = minOf(kept.toLong(), client.session.length, prompt.size - 1L)
        val start = Start(
            client.session.generation + 1, base, prompt.drop(base.toInt()), options.sampling, options.scheme, "draft",
            minOf(options.maxTokens.toLong(), room), options.eosIds ?: welcome.eosIds.ifEmpty { eosIds }, options.seed,
            suppressedIds = suppressed.ifEmpty { null },
        )
        val drafter = Drafter(model, start, welcome.vocabSize.toInt(), key(options))
        drafter.rollback(kept)
        history = ArrayList(prompt)
        client.history = history
        val tally = Tally(client)
        client.send(start)
        return Writing(start, drafter, options.gamma, tally)
    }

    private fun key(options: Options): ByteArray {
        val seed = options.seed ?: return ByteArray(KEY_BYTES).also { SecureRandom().nextBytes(it) }
        return Draws.keyFromSeed(seed, if (options.scheme is Scheme.Coupled) "coupled" else "device")
    }

    /** A round: what a draft and its verdict add to the text. */
    private suspend fun drafted(writing: Writing): List<Token> {
        val session = client.session
        val left = writing.ends - history.size
        val room = minOf(left, model.context.toLong() - history.size, left - 1)
        if (room < 1 && left > 1) { // the draft's context is full
            client.send(Switch(session.generation, "stream"))
            return emptyList()
        }
        val message = writing.drafter.rule.longest(client.welcome.vocabSize.toInt(), client.welcome.frameEntries)
        val count = minOf(room, writing.gamma.toLong(), message).coerceAtLeast(0).toInt()
        val past = history.toList()
        val (proposals, payload) = withContext(work) {
            val drafted = writing.drafter.propose(past, count, past.size.toLong())
            drafted to writing.drafter.encode(past, drafted)
        }
        client.send(Draft(session.epoch, session.headway.expected, count.toLong(), payload.bytes))
        val verdict = client.receive() as? Verdict ?: throw LinkException("the base station sent something else than Verdict")
        val accepted = proposals.take(verdict.accepted.toInt()).map { Token(it.token, Kind.DRAFT) }
        history += accepted.map { it.id }
        // The cache keeps what stands; what it lacks is fed before the next draft.
        withContext(work) { writing.drafter.rollback(history.size) }
        val rejected = verdict.next != null && verdict.accepted < count
        writing.tally.verdict(count, verdict.accepted.toInt(), rejected)
        val next = verdict.next ?: return accepted
        history += next
        return accepted + Token(next, if (rejected) Kind.CORRECTION else Kind.BONUS)
    }

    private suspend fun streamed(): List<Token> {
        val frame = client.receive() as? Tokens ?: throw LinkException("the base station sent something else than Tokens")
        history += frame.ids
        return frame.ids.map { Token(it, Kind.STREAM) }
    }

    private companion object {
        const val KEY_BYTES = 32
    }
}

/** What a text took, as it comes. */
internal class Tally(client: Client) {
    private val reconnects = client.reconnects
    private val sent = client.sentBytes
    private val received = client.receivedBytes
    private var rounds = 0
    private var drafted = 0
    private var accepted = 0
    private var rejected = 0
    private val histogram = ArrayList<Int>()

    fun verdict(drafted: Int, accepted: Int, rejected: Boolean) {
        rounds++
        this.drafted += drafted
        this.accepted += accepted
        if (rejected) this.rejected++
        while (histogram.size < accepted) histogram += 0
        for (place in 0 until accepted) histogram[place]++
    }

    fun result(tokens: List<Int>, client: Client) = Result(
        tokens, rounds, drafted, accepted, rejected, histogram.toList(),
        client.reconnects - reconnects, client.sentBytes - sent, client.receivedBytes - received,
    )
}
