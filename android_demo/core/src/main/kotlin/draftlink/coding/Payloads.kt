package draftlink.coding

import draftlink.distribution.Drafted
import draftlink.wire.Scheme
import okio.ByteString

/**
 * The payload of drafted tokens under a scheme (docs/protocol.md, 7 and 9), or under temperature 0,
 * [greedy], where all send ids alone. The coders are made once for a generation.
 */
class Payloads(scheme: Scheme, greedy: Boolean, vocabSize: Int) {
    private val lattice: LatticeCoder?
    private val half: Fp16Rows?
    private val total: Long? // of a count that follows each id

    init {
        val rows = scheme as? Scheme.TopK
        half = when {
            greedy -> null
            scheme is Scheme.Dense -> Fp16Rows(vocabSize, vocabSize)
            rows != null && rows.coding == Scheme.FP16 -> Fp16Rows(rows.k, vocabSize)
            else -> null
        }
        lattice = if (greedy || rows == null || half != null) null
        else LatticeCoder(Shape.of(rows.k, rows.total, rows.rows), vocabSize)
        total = if (greedy) null else (scheme as? Scheme.Split)?.total?.toLong()
    }

    /** The payload of [drafted] tokens behind the history of [ids]. */
    fun encode(drafted: List<Drafted>, ids: IdModel): Payload {
        lattice?.let { return it.encode(drafted) }
        half?.let { return it.encode(drafted) }
        val out = RangeEncoder()
        ids.encode(out, drafted.map { it.token })
        total?.let { for (token in drafted) out.uniform(token.count - 1, it) }
        return out.finish()
    }

    /** The [length] tokens of a payload. Throws MalformedException for bytes that [encode] never writes. */
    fun decode(payload: ByteString, length: Int, ids: IdModel): List<Drafted> {
        half?.let { return it.decode(payload, length) }
        val source = RangeDecoder(payload)
        lattice?.let { return it.decode(source, length) }
        val tokens = ids.decode(source, length)
        val drafted = tokens.map { token ->
            total?.let { Drafted(token, source.uniform(it) + 1, it) } ?: Drafted(token)
        }
        source.finish()
        return drafted
    }
}
