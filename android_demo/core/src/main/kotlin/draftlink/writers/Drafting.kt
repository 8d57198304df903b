package draftlink.writers

import draftlink.device.Kind
import draftlink.device.Proposal
import draftlink.drafting.Action
import draftlink.drafting.Judged
import draftlink.wire.Draft
import draftlink.wire.Switch
import draftlink.wire.Verdict

/** Drafts, sends and rolls back as the window says, until the base station writes alone. */
internal class Drafting(private val writing: Writing) : Room {
    private var proposals = emptyList<Proposal>() // drafted and not judged, and of them
    private var inFlight = 0 // those that have been sent

    init {
        beginEpoch()
    }

    /** Nothing is in flight; what was shown is not drafted again, and may be in the cache. */
    private fun beginEpoch() {
        if (writing.alone != null && !writing.drafter.rule.foretells && writing.job == null) {
            writing.drafter.rollback(writing.history.size)
        }
    }

    override suspend fun more(): List<Came> {
        while (true) {
            for (action in writing.due()) {
                when (action) {
                    is Action.GiveBack -> {
                        writing.drafter.rollback(writing.history.size)
                        return emptyList()
                    }
                    is Action.Show, is Action.Guess -> return writing.show(action, proposals)
                    is Action.Wait -> wait(action)?.let { return it }
                    else -> carryOut(action)
                }
            }
        }
    }

    /** Until something has come, or a time; what a verdict adds to the text, if one has. */
    private suspend fun wait(action: Action.Wait): List<Came>? {
        writing.event(action.untilS)
        if (writing.job?.isCompleted == true) collect()
        // Behind the last verdict a stream has begun, whose frames another reads.
        if (!writing.came || writing.window.gone) return null
        val frame = writing.receive()
        return apply(frame as? Verdict ?: writing.client.broke(frame, "Verdict"))
    }

    private suspend fun carryOut(action: Action) {
        when (action) {
            is Action.Draft -> writing.draft(writing.history + tokens(proposals), action.tokens, action.begins.toLong())
            is Action.Send -> send(action)
            is Action.Reuse -> {
                val known = writing.alone!!.known(action.first, action.tokens)
                proposals = proposals + known
                writing.window.reused(writing.seen(known))
            }
            is Action.Switch -> writing.send(Switch(writing.start.generation, action.mode))
            else -> error("while it drafts nothing asks for $action")
        }
    }

    private fun tokens(proposals: List<Proposal>) = proposals.map { it.drafted.token }

    private suspend fun send(block: Action.Send) {
        val session = writing.client.session
        val drafted = proposals.subList(inFlight, inFlight + block.tokens).map { it.drafted }
        val payload = writing.drafter.encode(writing.history + tokens(proposals.take(inFlight)), drafted)
        inFlight += block.tokens
        val frame = Draft(session.epoch, session.headway.expected, block.tokens.toLong(), payload.bytes, waits = block.waits)
        writing.send(frame)
    }

    /** Tokens have been drafted; they are void where a verdict has closed their epoch. */
    private suspend fun collect() {
        val found = writing.proposals()
        if (writing.window.drafted(writing.now(), writing.seen(found))) proposals = proposals + found
    }

    /** Applies a verdict to history and cache; the tokens that it adds to the text. */
    private fun apply(verdict: Verdict): List<Came> {
        val window = writing.window
        val accepted = verdict.accepted.toInt()
        val judged = window.judged
        val said = Judged(accepted, verdict.next != null, verdict.closes, verdict.verifyUs * US, verdict.queueUs * US)
        val rejected = window.verdict(writing.now(), said)
        writing.tally.verdict(judged, accepted, rejected)
        val stands = tokens(proposals.take(accepted))
        writing.commit(stands)
        val came = stands.map { Came(it, Kind.DRAFT) }.toMutableList()
        if (verdict.closes) {
            proposals = emptyList()
            inFlight = 0
            writing.drop()
            verdict.next?.let { next ->
                writing.commit(listOf(next))
                came += Came(next, if (rejected) Kind.CORRECTION else Kind.BONUS)
            }
        } else {
            proposals = proposals.drop(accepted)
            inFlight -= accepted
        }
        if (!verdict.ended) {
            window.proceed(writing.now(), verdict.closes)
            if (verdict.closes) beginEpoch()
        }
        return came
    }

    private companion object {
        const val US = 1e-6
    }
}
