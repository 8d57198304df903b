package draftlink

import draftlink.coding.IdPrior
import draftlink.coding.IdShare
import draftlink.coding.TargetRows
import draftlink.distribution.Distribution
import draftlink.distribution.Rounding
import draftlink.distribution.SparseRow
import draftlink.wire.Sampling
import draftlink.wire.Scheme
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonArray
import okio.ByteString.Companion.encodeUtf8
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test

/** Distributions, rows and what comes of the target against the golden files. */
class RowsTest {
    @Test
    fun `target rows`() = Golden.each("rows", "target") { entry ->
        val logits = entry.doubles("logits")
        assertArrayEquals(logits, TargetRows.logits(entry.bytes("packed"), logits.size))
    }

    @Test
    fun `truncation and rounding`() = Golden.each("rows", "truncate") { entry ->
        val weights = entry.doubles("weights")
        val q = DoubleArray(weights.size) { weights[it] / weights.sum() }
        val scheme = schemeOf(entry.inner("scheme"))
        if ("rows" in entry) {
            scheme as Scheme.TopK
            val rows = Rounding.rows(q, scheme.k, scheme.total.toLong(), scheme.tiers).toMutableList()
            if (rows.last().rest > 0) rows += remainder(rows, q.size)
            assertEquals(entry.objects("rows").map { row(it) }, rows)
        } else {
            val row = when (scheme) {
                is Scheme.TopK -> if (scheme.coding == Scheme.FP16) Rounding.half(q, scheme.k, scheme.mass)
                else Rounding.lattice(q, scheme.k, scheme.total.toLong(), scheme.mass)
                is Scheme.Split -> Rounding.lattice(q, scheme.k, scheme.total.toLong())
                else -> Rounding.half(q, q.size)
            }
            assertEquals(row(entry), row)
        }
    }

    private fun row(entry: JsonObject): SparseRow {
        val counts = entry.longs("counts").toLongArray()
        val rest = if (entry.has("rest")) entry.long("rest") else 0L
        val total = if (entry.has("total")) entry.long("total") else counts.sum() + rest
        return SparseRow(entry.ints("ids").toIntArray(), counts, total, rest)
    }

    /** The prior as a row over the ids that none of [rows] lists. */
    private fun remainder(rows: List<SparseRow>, vocabSize: Int): SparseRow {
        val prior = IdPrior(vocabSize)
        val ids = (0 until vocabSize).filter { id -> rows.none { id in it.ids } }.toIntArray()
        val counts = LongArray(ids.size) { prior.share(ids[it]).weight }
        return SparseRow(ids, counts, counts.sum())
    }

    @Test
    fun sampling() {
        for (name in listOf("rows", "penalties")) {
            Golden.each(name, "sampling") { entry ->
                val sampling = samplingOf(entry.inner("sampling"))
                val begins = if (entry.has("begins")) entry.int("begins") else 0
                val scores = entry.doubles("logits")
                Distribution.shape(scores, sampling, entry.ints("history"), begins)
                val p = Distribution.of(scores, sampling)
                entry.doubles("p").forEachIndexed { id, wanted -> assertEquals(wanted, p[id], 1e-12 * wanted) }
            }
        }
    }

    private fun samplingOf(entry: JsonObject) = Sampling(
        entry.at("temperature").double(),
        entry.long("top_k"),
        entry.at("top_p").double(),
        entry.at("min_p").double(),
        entry.at("repetition_penalty").double(),
        if (entry.has("frequency_penalty")) entry.at("frequency_penalty").double() else null,
        if (entry.has("presence_penalty")) entry.at("presence_penalty").double() else null,
        if (entry.has("logit_bias")) {
            entry.array("logit_bias").map { it.jsonArray }.map { it[0].double().toInt() to it[1].double() }
        } else {
            null
        },
    )

    @Test
    fun pairs() = Golden.each("recovery", "pairs") { entry ->
        val vocabSize = entry.int("vocab_size")
        val begin = entry.int("begin")
        val pairs = pairs(entry)
        assertEquals(pairs, TargetRows.draws(entry.bytes("hex"), begin, entry.int("most"), vocabSize))
        assertEquals(entry.text("hex"), TargetRows.ofDraws(pairs, begin, entry.int("most"), vocabSize).hex())
    }

    @Test
    fun `all of a small p`() = Golden.each("recovery", "all") { entry ->
        val vocabSize = entry.int("vocab_size")
        val pairs = pairs(entry)
        assertEquals(pairs, TargetRows.all(entry.bytes("hex"), vocabSize))
        assertEquals(entry.text("hex"), TargetRows.ofAll(pairs, vocabSize).hex())
    }

    private fun pairs(entry: JsonObject) =
        entry.array("pairs").map { it.jsonArray }.map { IdShare(it[0].double().toInt(), it[1].double()) }

    @Test
    fun `the tokenizer's hash`() = Golden.each("rows", "tokenizer") { entry ->
        assertEquals(entry.text("hash"), entry.text("hashed").encodeUtf8().sha256().hex())
    }
}
