package draftlink

import draftlink.coding.IdModel
import draftlink.coding.IdPrior
import draftlink.coding.IdSets
import draftlink.coding.RangeDecoder
import draftlink.coding.RangeEncoder
import draftlink.coding.SplitLaw
import draftlink.distribution.Drafted
import draftlink.wire.Draft
import draftlink.wire.Frames
import draftlink.wire.MalformedException
import draftlink.wire.Propose
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonArray
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test

/** The coders against the golden files: range coder, prior, laws, sets, drafts of every scheme, paths. */
class CoderTest {
    @Test
    fun `range coder`() = Golden.each("coder", "range") { entry ->
        val symbols = symbols(entry)
        val out = RangeEncoder()
        for ((start, frequency, total) in symbols) out.push(start, frequency, total)
        val payload = out.finish()
        assertEquals(entry.text("hex") to entry.int("bits"), payload.bytes.hex() to payload.bits)
        read(entry).finish()
    }

    @Test
    fun `payloads that no encoder writes`() = Golden.each("coder", "refused") { entry ->
        val source = read(entry)
        assertThrows(MalformedException::class.java) { source.finish() }
    }

    private fun symbols(entry: JsonObject) = entry.array("symbols").map { it.jsonArray.longs() }

    private fun read(entry: JsonObject): RangeDecoder {
        val source = RangeDecoder(entry.bytes("hex"))
        for ((start, frequency, total) in symbols(entry)) {
            assert(source.peek(total) in start until start + frequency)
            source.take(start, frequency)
        }
        return source
    }

    @Test
    fun prior() = Golden.each("coder", "priors") { entry ->
        val prior = IdPrior(entry.int("vocab_size"))
        assertEquals(entry.ints("starts") + entry.int("vocab_size"), prior.starts.toList())
        assertEquals(entry.longs("weights"), entry.ints("starts").map { prior.share(it).weight })
        assertEquals(entry.long("total"), prior.total)
    }

    @Test
    fun `split law`() = Golden.each("coder", "laws") { entry ->
        val weights = entry.long("left_weight") to entry.long("right_weight")
        val law = SplitLaw.of(entry.int("count"), entry.int("left"), entry.int("right"), weights.first, weights.second)
        assertEquals(entry.int("fewest"), law.fewest)
        assertEquals(entry.longs("edges"), law.edges.toList())
    }

    @Test
    fun `sets of ids`() = Golden.each("coder", "sets") { entry ->
        val sets = IdSets(IdPrior(entry.int("vocab_size")))
        val ids = entry.ints("ids")
        val out = RangeEncoder()
        sets.write(out, ids.toIntArray())
        val payload = out.finish()
        assertEquals(entry.text("hex") to entry.int("bits"), payload.bytes.hex() to payload.bits)
        val source = RangeDecoder(payload.bytes)
        assertEquals(ids, sets.read(source, ids.size).toList())
        source.finish()
    }

    @Test
    fun drafts() = Golden.each("drafts", "drafts") { entry ->
        val vocabSize = entry.int("vocab_size")
        val first = if (entry.has("first")) entry.int("first") else null
        val ids = IdModel(vocabSize)
        ids.extend(entry.ints("history") + listOfNotNull(first))
        val payloads = payloadsOf(entry.inner("scheme"), vocabSize)
        val drafted = entry.objects("drafted").map { draftedOf(it, entry) }
        val payload = payloads.encode(drafted, ids)
        assertEquals(entry.int("bits"), payload.bits)
        val length = entry.long("length")
        val frame = Draft(entry.long("epoch"), entry.long("base"), length, payload.bytes, first, entry.flag("waits"))
        assertEquals(entry.text("hex"), Frames.encode(frame).hex())
        assertEquals(frame, Frames.decode(entry.bytes("hex")))
        assertEquals(drafted, payloads.decode(payload.bytes, length.toInt(), ids))
    }

    @Test
    fun `proposals are coded behind the path's base and its own earlier tokens`() = Golden.each("both", "paths") { path ->
        val vocabSize = path.int("vocab_size")
        val payloads = payloadsOf(path.inner("scheme"), vocabSize)
        val base = path.int("base")
        val context = path.ints("text").take(base).toMutableList()
        for (entry in path.objects("proposals")) {
            val ids = IdModel(vocabSize)
            ids.extend(context)
            val tokens = entry.ints("tokens")
            val payload = payloads.encode(tokens.map { Drafted(it) }, ids)
            assertEquals(entry.int("bits"), payload.bits)
            val frame = Propose(
                path.long("path"), base.toLong(), entry.long("known"), entry.long("first"),
                entry.long("length"), payload.bytes, entry.flag("goes_on"),
            )
            assertEquals(entry.text("hex"), Frames.encode(frame).hex())
            assertEquals(frame, Frames.decode(entry.bytes("hex")))
            assertEquals(tokens, payloads.decode(payload.bytes, tokens.size, ids).map { it.token })
            context += tokens
        }
    }

    @Test
    fun `candidates are coded beside their tokens, and not learned`() = Golden.each("leaves", "paths") { path ->
        val context = path.ints("text").take(path.int("base")).toMutableList()
        for (entry in path.objects("proposals")) {
            val ids = IdModel(path.int("vocab_size"))
            ids.extend(context)
            val nodes = entry.array("nodes").map { it.jsonArray.ints() }
            val out = RangeEncoder()
            ids.encode(out, nodes.map { it.first() }, nodes.map { it.drop(1) })
            val payload = out.finish()
            assertEquals(entry.int("bits"), payload.bits)
            val beside = nodes.map { it.size - 1 }
            val frame = Propose(
                path.long("path"), path.long("base"), entry.long("known"), entry.long("first"), entry.long("length"),
                payload.bytes, entry.flag("goes_on"), if (beside.any { it > 0 }) beside else emptyList(),
            )
            assertEquals(entry.text("hex"), Frames.encode(frame).hex())
            assertEquals(frame, Frames.decode(entry.bytes("hex")))
            val source = RangeDecoder(payload.bytes)
            assertEquals(nodes, ids.decode(source, beside))
            source.finish()
            context += nodes.map { it.first() }
        }
    }

    @Test
    fun `what branches off is coded behind the tokens that it follows`() = Golden.each("branches", "paths") { path ->
        val text = path.ints("text").take(path.int("base"))
        val behind = mutableListOf(text) // of what is before the path, and of each token all up to it
        for (entry in path.objects("proposals")) {
            val tokens = entry.ints("tokens")
            val context = behind[entry.int("first") - entry.int("behind")]
            val ids = IdModel(path.int("vocab_size"))
            ids.extend(context)
            val out = RangeEncoder()
            ids.encode(out, tokens)
            val payload = out.finish()
            assertEquals(entry.int("bits"), payload.bits)
            val frame = Propose(
                path.long("path"), path.long("base"), entry.long("known"), entry.long("first"), tokens.size.toLong(),
                payload.bytes, entry.flag("goes_on"), behind = entry.long("behind"),
            )
            assertEquals(entry.text("hex"), Frames.encode(frame).hex())
            assertEquals(frame, Frames.decode(entry.bytes("hex")))
            val source = RangeDecoder(payload.bytes)
            assertEquals(tokens, ids.decode(source, tokens.map { 0 }).map { it.single() })
            source.finish()
            for (count in 1..tokens.size) behind += context + tokens.take(count)
        }
    }
}
