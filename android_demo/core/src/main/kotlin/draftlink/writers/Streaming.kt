package draftlink.writers

import draftlink.device.Kind
import draftlink.device.Proposal
import draftlink.drafting.Action
import draftlink.wire.Switch
import draftlink.wire.Switched
import draftlink.wire.Tokens
import kotlin.math.pow

/** Reads a stream, and lets the draft follow it as the window says. */
internal class Streaming(private val writing: Writing) : Room {
    private val proposals = HashMap<Int, Proposal>() // by position, of tokens that have not come yet
    private val rows = HashMap<Int, DoubleArray>() // likewise: the draft's, (V,)
    private val surprisals = HashMap<Int, Int>() // of tokens whose row is not there yet

    override suspend fun more(): List<Came> {
        while (true) {
            for (action in writing.due()) {
                when (action) {
                    is Action.Show, is Action.Guess -> return writing.show(action, emptyList())
                    is Action.Follow -> writing.draft(writing.history.take(action.until), 1, action.begins.toLong())
                    is Action.Wait -> wait(action)?.let { return it }
                    else -> error("while the base station writes nothing asks for $action")
                }
            }
        }
    }

    /** Until something has come, or a time; the tokens of a frame, if one has, and none behind the last one. */
    private suspend fun wait(action: Action.Wait): List<Came>? {
        writing.event(action.untilS)
        if (writing.job?.isCompleted == true) collect()
        if (!writing.came) return null
        return when (val frame = writing.receive()) {
            is Switched -> {
                if (writing.job != null) collect()
                writing.window.switched(writing.now())
                emptyList()
            }
            is Tokens -> take(frame)
            else -> writing.client.broke(frame, "Tokens")
        }
    }

    private suspend fun take(frame: Tokens): List<Came> {
        val now = writing.now()
        val begin = writing.history.size
        writing.tally.streamed()
        for (place in 0 until frame.surprisals.size) surprisals[begin + place] = frame.surprisals[place].toInt() and 0xFF
        val place = writing.commit(frame.ids)
        if (place != null && writing.job == null) writing.drafter.rollback(begin + place) // a job has no more than history before it
        compare()
        writing.window.streamed(now, frame.ids.size, frame.ended)?.let { writing.send(Switch(writing.start.generation, it.mode)) }
        return frame.ids.map { Came(it, Kind.STREAM) }
    }

    /** The draft has proposed a token; the target's own may be there already. */
    private suspend fun collect() {
        val proposal = writing.done().single()
        writing.window.followed(writing.now())
        if (writing.drafter.rule.foretells) proposals[writing.model.length] = proposal
        else if (writing.start.streamedSurprisals == true) rows[writing.model.length] = writing.drafter.last
        compare()
    }

    /** Holds proposals against the tokens that have come. */
    private fun compare() {
        val history = writing.history
        for (position in proposals.keys.filter { it < history.size }) {
            val proposal = proposals.remove(position)!!
            writing.window.foretold(proposal.chance, proposal.drafted.token == history[position])
        }
        for (position in rows.keys.filter { it in surprisals }.sorted()) {
            val q = rows.remove(position)!![history[position]]
            writing.window.told(minOf(1.0, q * 2.0.pow(surprisals.getValue(position) / EIGHTHS)))
            surprisals.keys.removeAll { it <= position } // the draft goes forward alone
        }
    }

    private companion object {
        const val EIGHTHS = 8.0 // of a bit: what a surprisal is told in
    }
}
