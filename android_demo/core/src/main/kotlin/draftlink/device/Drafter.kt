package draftlink.device

import draftlink.coding.IdModel
import draftlink.coding.Payload
import draftlink.coding.Payloads
import draftlink.coding.Remainder
import draftlink.distribution.Distribution
import draftlink.distribution.Drafted
import draftlink.distribution.Rounding
import draftlink.distribution.SparseRow
import draftlink.model.DraftModel
import draftlink.noise.Draws
import draftlink.noise.Purpose
import draftlink.noise.Race
import draftlink.session.Rule
import draftlink.wire.Scheme
import draftlink.wire.Start
import kotlin.math.exp

/** A drafted token, and the draft's own probability for it. */
data class Proposal(val drafted: Drafted, val chance: Double)

/**
 * Drafts for one generation: forward, truncate, round, draw; then the next (docs/protocol.md, 7).
 *
 * [vocabSize]: the target's; ids from there on are never drafted. [key]: of 32 bytes, for `coupled` the
 * shared one.
 */
class Drafter(private val model: DraftModel, private val start: Start, private val vocabSize: Int, private val key: ByteArray) {
    /** How drafts are coded and judged. */
    val rule = Rule(start.scheme, start.sampling.greedy)

    private val payloads = Payloads(start.scheme, start.sampling.greedy, vocabSize)
    private val ids = IdModel(vocabSize)
    private val coded = ArrayList<Int>() // the history of [ids]
    private val race = if (start.scheme is Scheme.Coupled && !start.sampling.greedy) Race(key) else null

    init {
        require(rule.greedy || start.scheme !is Scheme.Split) { "this client drafts with topk, dense and coupled, not with split" }
    }

    /**
     * [count] tokens after [past], of which the cache holds a true prefix: what it lacks is fed first.
     *
     * [begins]: the position at which the epoch began, whose numbers they are drawn from: no number is
     * used for two draws, though what was drawn before was dropped.
     */
    fun propose(past: List<Int>, count: Int, begins: Long): List<Proposal> {
        val text = past.toMutableList()
        val drawn = Draws.keyOfEpoch(key, begins)
        // Its row has been seen, but is not there any more.
        if (model.length >= text.size) model.rollback(text.size - 1)
        return List(count) {
            val row = model.forward(text.subList(model.length, text.size).toList())
            draw(row, text, drawn).also { text += it.drafted.token }
        }
    }

    private fun draw(row: FloatArray, past: List<Int>, drawn: ByteArray): Proposal {
        val scores = DoubleArray(minOf(row.size, vocabSize)) { row[it].toDouble() }
        val sampling = start.sampling
        val suppressed = start.suppressedIds.orEmpty()
        Distribution.shape(scores, sampling, past, start.begins.toInt(), suppressed)
        if (rule.greedy) {
            val token = Distribution.greedy(scores)
            return Proposal(Drafted(token), 1.0 / scores.sumOf { exp(it - scores[token]) })
        }
        // Ids that the draft lacks have probability 0.
        val q = Distribution.of(scores, sampling).let { if (it.size < vocabSize) it.copyOf(vocabSize) else it }
        last = q
        val position = past.size.toLong()
        val drafted = race?.let { Drafted(it.pick(position, q)) } ?: when (val scheme = start.scheme) {
            is Scheme.TopK -> drawRows(rows(scheme, q), drawn, position)
            else -> drawRows(sequenceOf(Rounding.half(q, vocabSize)), drawn, position)
        }
        return Proposal(drafted, q[drafted.token])
    }

    /** The distribution (V,) that the last token was drawn from. */
    var last = DoubleArray(0)
        private set

    private fun rows(scheme: Scheme.TopK, q: DoubleArray): Sequence<SparseRow> = when {
        scheme.coding == Scheme.FP16 -> sequenceOf(Rounding.half(q, scheme.k, scheme.mass))
        scheme.mass < 1.0 -> sequenceOf(Rounding.lattice(q, scheme.k, scheme.total.toLong(), scheme.mass))
        else -> Rounding.rows(q, scheme.k, scheme.total.toLong(), scheme.tiers)
    }

    /** Of the rows, where the draw falls on a rest, the next; behind the last the prior of ids. */
    private fun drawRows(rows: Sequence<SparseRow>, drawn: ByteArray, position: Long): Drafted {
        val above = ArrayList<SparseRow>()
        for (row in rows) {
            val index = row.draw(Draws.below(drawn, position, Purpose.DRAFT, row.total, above.size))
            if (index < row.ids.size) return Drafted.of(row, index, above)
            above += row
        }
        return Remainder.draw(above, vocabSize) { total -> Draws.below(drawn, position, Purpose.DRAFT, total, above.size) }
    }

    /** The payload that carries tokens [drafted] after [past]. */
    fun encode(past: List<Int>, drafted: List<Drafted>): Payload {
        if (start.scheme !is Scheme.Coupled && !rule.greedy) return payloads.encode(drafted, ids)
        val known = minOf(coded.size, past.size)
        if (coded.size > known) coded.subList(known, coded.size).clear()
        ids.rollback(known)
        val behind = past.subList(known, past.size)
        ids.extend(behind)
        coded += behind
        return payloads.encode(drafted, ids)
    }

    /** Keeps at most the first [length] tokens of what was fed and coded. */
    fun rollback(length: Int) {
        model.rollback(minOf(model.length, length))
        if (coded.size > length) {
            coded.subList(length, coded.size).clear()
            ids.rollback(length)
        }
    }
}
