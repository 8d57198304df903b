package draftlink.writers

import draftlink.device.Kind
import draftlink.device.Proposal
import draftlink.distribution.Drafted
import draftlink.drafting.Action
import draftlink.wire.Propose
import draftlink.wire.Written

/** A room of a generation: whoever's turn it is to write. */
internal interface Room {
    /** The next tokens of the text; none where another room goes on. Provisional ones while nothing is heard. */
    suspend fun more(): List<Came>
}

/** Both ends write: drafts, proposes and rolls back as the window says, and reads the text. */
internal class Both(private val writing: Writing) : Room {
    private val window = writing.paths
    private var nodes = emptyList<Proposal>() // of the path, behind the text
    private var reconnects = writing.client.reconnects
    private var path = 0L
    private var base = 0
    private var proposed = 0

    init {
        leavePath()
    }

    override suspend fun more(): List<Came> {
        while (true) {
            mend()
            for (action in writing.due()) {
                when (action) {
                    is Action.Show -> return writing.show(action, nodes)
                    is Action.Draft -> writing.draft(writing.history + tokens(nodes), action.tokens, action.begins.toLong())
                    is Action.Propose -> propose(action)
                    is Action.Wait -> wait(action)?.let { return it }
                    else -> error("where both ends write nothing asks for $action")
                }
            }
        }
    }

    private fun tokens(proposals: List<Proposal>) = proposals.map { it.drafted.token }

    /** Until something has come, or a time; what has been written, if that has come. */
    private suspend fun wait(action: Action.Wait): List<Came>? {
        writing.event(action.untilS)
        if (writing.job?.isCompleted == true) collect()
        if (!writing.came) return null
        val frame = writing.receive()
        return take(frame as? Written ?: writing.client.broke(frame, "Written"))
    }

    /** Over a new connection a path of what is drafted and not refuted takes the last's place: what was sent may be lost. */
    private fun mend() {
        if (writing.client.reconnects == reconnects) return
        reconnects = writing.client.reconnects
        leavePath()
        window.lost()
    }

    /** The next token that is proposed begins a path behind the text. */
    private fun leavePath() {
        path = writing.client.session.headway.path + 1
        base = writing.history.size
        proposed = 0
    }

    private suspend fun propose(action: Action.Propose) {
        if (writing.client.reconnects != reconnects) return // since it was asked for: `lost` has it proposed anew
        val begin = base + proposed - writing.history.size // of the nodes, sent before
        val drafted = nodes.subList(begin, begin + action.tokens).map { Drafted(it.drafted.token) }
        val payload = writing.drafter.encode(writing.history + tokens(nodes.take(begin)), drafted)
        val frame = Propose(
            path, base.toLong(), writing.history.size.toLong(), proposed.toLong(), drafted.size.toLong(), payload.bytes, action.goesOn,
        )
        proposed += drafted.size
        writing.send(frame)
    }

    private suspend fun collect() {
        val proposals = writing.proposals()
        if (window.drafted(writing.now(), writing.seen(proposals))) nodes = nodes + proposals
    }

    /** What the base station has written; the path is held against it. */
    private fun take(frame: Written): List<Came> {
        val begin = writing.history.size
        val count = frame.ids.size
        val agreed = frame.ids.zip(nodes).takeWhile { (id, node) -> id == node.drafted.token }.size
        val differs = agreed < minOf(count, nodes.size)
        val stepS = frame.stepUs * US
        window.heard(writing.now())
        writing.tally.wrote(frame.accepted.toInt(), again = frame.rows == 0L)
        writing.tally.met(agreed, differs)
        if (window.follows) writing.tally.followed += count
        val goesOn = window.written(writing.now(), agreed, frame.accepted.toInt(), count, stepS, (frame.rows ?: count.toLong()).toInt())
        if (agreed == count) {
            nodes = nodes.drop(agreed)
        } else {
            nodes = emptyList()
            writing.drop(begin + agreed)
        }
        writing.commit(frame.ids)
        if (!goesOn) leavePath()
        val own = if (differs) Kind.CORRECTION else Kind.BONUS
        return frame.ids.mapIndexed { place, id -> Came(id, if (place < frame.accepted) Kind.DRAFT else own) }
    }

    private companion object {
        const val US = 1e-6
    }
}
