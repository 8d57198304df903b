package draftlink

import draftlink.coding.IdModel
import draftlink.coding.Payloads
import draftlink.coding.RangeEncoder
import draftlink.distribution.Drafted
import draftlink.distribution.Rounding
import draftlink.distribution.SparseRow
import draftlink.noise.Draws
import draftlink.noise.Purpose
import draftlink.wire.Control
import draftlink.wire.ControlCodec
import draftlink.wire.Draft
import draftlink.wire.Finish
import draftlink.wire.Frame
import draftlink.wire.Frames
import draftlink.wire.Hello
import draftlink.wire.Hot
import draftlink.wire.Propose
import draftlink.wire.Replay
import draftlink.wire.Resume
import draftlink.wire.Sampling
import draftlink.wire.Scheme
import draftlink.wire.Start
import draftlink.wire.Tokens
import draftlink.wire.Verdict
import draftlink.wire.Written
import okio.ByteString
import okio.ByteString.Companion.toByteString
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.condition.EnabledIfSystemProperty
import java.io.File
import java.math.BigInteger
import kotlin.random.Random

/** What Python reads afterwards (`tests/jvm_vectors.py`): rows, frames and ids that are made here. */
@EnabledIfSystemProperty(named = "draftlink.vectors", matches = ".+")
class MadeHereTest {
    private val folder = File(System.getProperty("draftlink.vectors"))
    private val random = Random(28)

    private fun write(name: String, entry: (Int) -> Map<String, Any?>) {
        File(folder, "jvm_$name.jsonl").bufferedWriter().use { out ->
            for (number in 0 until COUNT) {
                out.write(json(entry(number)).toString())
                out.write("\n")
            }
        }
        println("for Python: $name: $COUNT written")
    }

    @Test
    fun rows() = write("rows") { number ->
        val (scheme, vocabSize) = SCHEMES[number % SCHEMES.size]
        val q = distribution(vocabSize)
        val key = random.nextBytes(32)
        val drafted = propose(scheme, q, key, number.toLong())
        val payload = Payloads(scheme, false, vocabSize).encode(listOf(drafted), IdModel(vocabSize))
        val nested = scheme is Scheme.TopK && scheme.coding == Scheme.LATTICE && scheme.mass == 1.0 && scheme.tiers > 1
        mapOf(
            "scheme" to Scheme.toMap(scheme), "vocab_size" to vocabSize,
            "drafted" to listOf(itemOf(drafted, scheme, nested)),
            "bits" to payload.bits, "hex" to payload.bytes.hex(),
        )
    }

    /** A peaked distribution; of every second one some ids have no probability. */
    private fun distribution(vocabSize: Int): DoubleArray {
        val power = 1 + random.nextInt(12)
        val holes = random.nextBoolean()
        val q = DoubleArray(vocabSize) {
            if (holes && random.nextInt(5) == 0) 0.0 else Math.pow(random.nextDouble() + 1e-9, power.toDouble())
        }
        q[random.nextInt(vocabSize)] = 1.0
        val sum = q.sum()
        for (id in q.indices) q[id] /= sum
        return q
    }

    private fun propose(scheme: Scheme, q: DoubleArray, key: ByteArray, position: Long): Drafted {
        fun draw(row: SparseRow, tier: Int) = row.draw(Draws.below(key, position, Purpose.DRAFT, row.total, tier))
        if (scheme is Scheme.TopK && scheme.coding == Scheme.LATTICE && scheme.mass == 1.0) {
            val above = ArrayList<SparseRow>()
            for (row in Rounding.rows(q, scheme.k, scheme.total.toLong(), scheme.tiers)) {
                val index = draw(row, above.size)
                if (index < row.ids.size) return Drafted.of(row, index, above)
                above += row
            }
            return byPrior(above, q.size)
        }
        val row = when (scheme) {
            is Scheme.TopK -> if (scheme.coding == Scheme.FP16) Rounding.half(q, scheme.k)
            else Rounding.lattice(q, scheme.k, scheme.total.toLong(), scheme.mass)
            is Scheme.Split -> Rounding.lattice(q, scheme.k, scheme.total.toLong())
            else -> Rounding.half(q, q.size)
        }
        return Drafted.of(row, draw(row, 0))
    }

    /** An id that no row lists: which is drawn matters little here. */
    private fun byPrior(above: List<SparseRow>, vocabSize: Int): Drafted {
        val listed = above.flatMap { it.ids.asList() }.toSet()
        val left = (0 until vocabSize).filter { it !in listed }
        return Drafted(left.random(random), 0, 0, null, above)
    }

    @Test
    fun frames() = write("frames") { number ->
        val frame = frame(number % 10)
        val fields = when (frame) {
            is Hot -> fieldsOf(frame)
            is Control -> ControlCodec.toMap(frame)
        }
        mapOf("type" to frame::class.simpleName, "fields" to fields, "hex" to Frames.encode(frame).hex())
    }

    private fun frame(kind: Int): Frame = when (kind) {
        0 -> Draft(small(), small(), small(), some(), id(), coin(), small())
        1 -> Verdict(small(), small(), small(), id(), coin(), small(), small(), some(), some(), some())
        2 -> Tokens(small(), small(), someIds(), coin(), some())
        3 -> small().let { Propose(small(), it, it + small(), if (coin()) small() else 0, small(), some(), coin()) }
        4 -> written(someIds())
        5 -> Hello(6, "5a".repeat(32), small(), listOf("coupled"), "Gerät→".repeat(random.nextInt(40)), some(), small())
        6 -> start()
        7 -> Resume(start(), small(), small(), random.nextBytes(16).toByteString(), coin(), small())
        8 -> Replay(small(), someIds())
        else -> Finish(small(), small())
    }

    private fun written(ids: List<Int>): Written {
        val rows = if (coin()) small() else null
        return Written(
            small(), ids, random.nextInt(ids.size + 1).toLong(), coin(), small(), small(),
            some(), rows.takeIf { it != ids.size.toLong() }, some(),
        )
    }

    private fun start() = Start(
        small(), small(), someIds(), Sampling(random.nextDouble(), small(), random.nextDouble(), 0.25),
        SCHEMES[random.nextInt(SCHEMES.size)].first, "both", small(), someIds(),
        BigInteger.valueOf(random.nextLong()).takeIf { coin() }, coin(), someIds().takeIf { coin() }, 20L.takeIf { coin() },
    )

    private fun small() = random.nextLong(1L shl 1 + random.nextInt(32))

    private fun some(): ByteString = random.nextBytes(if (coin()) random.nextInt(300) else 0).toByteString()

    private fun coin() = random.nextBoolean()

    private fun id() = if (coin()) (small() shr 1).toInt() else null

    private fun someIds() = List(1 + random.nextInt(12)) { (small() shr 1).toInt() }

    @Test
    fun ids() {
        val history = ArrayList<Int>()
        val model = IdModel(VOCABULARY)
        write("ids") {
            val kept = random.nextInt(history.size + 1) / (1 + random.nextInt(2))
            history.subList(kept, history.size).clear()
            model.rollback(kept)
            val more = List(random.nextInt(40)) { if (random.nextInt(4) == 0) random.nextInt(VOCABULARY) else random.nextInt(12) }
            history += more
            model.extend(more)
            val tokens = List(1 + random.nextInt(8)) { if (coin()) random.nextInt(VOCABULARY) else random.nextInt(12) }
            val out = RangeEncoder()
            model.encode(out, tokens)
            val payload = out.finish()
            mapOf(
                "vocab_size" to VOCABULARY, "history" to history.toList(), "tokens" to tokens,
                "bits" to payload.bits, "hex" to payload.bytes.hex(),
            )
        }
    }

    private companion object {
        const val COUNT = 10_000
        const val VOCABULARY = 8192
        val SCHEMES = listOf(
            Scheme.TopK(8, 256, tiers = 7) to 2000,
            Scheme.TopK(8, 64) to 8192,
            Scheme.TopK(3, 5, tiers = 2) to 40,
            Scheme.TopK(32, 4096, tiers = 1) to 1000,
            Scheme.TopK(16, 256, mass = 0.9) to 1000,
            Scheme.TopK(4, coding = Scheme.FP16) to 300,
            Scheme.Dense to 40,
            Scheme.Split() to 1000,
        )
    }
}
