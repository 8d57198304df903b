package draftlink.wire

import okio.Buffer
import okio.ByteString

/** The layout of the hot frames: a byte of kind, one of flags, then varints (docs/protocol.md, 3.3 to 3.7). */
internal object Compact {
    const val DRAFT = 2
    const val VERDICT = 3
    const val TOKENS = 4
    const val PROPOSE = 5
    const val WRITTEN = 6

    private const val MOST_TOKENS = 4096L // in a Tokens or Written

    private const val HAS_FIRST = 1 // flags of a Draft
    private const val WAITS = 2
    private const val ASKS = 4

    private const val ENDED = 1 // of all that the base station writes
    private const val HAS_NEXT = 2
    private const val HAS_ROW = 4
    private const val HAS_SURPRISALS = 8
    private const val HAS_LOGPROBS = 16
    private const val STREAMED = 32 // Tokens have surprisals

    private const val GOES_ON = 1 // of a Propose
    private const val HAS_ABOVE = 2
    private const val HAS_EARLIER = 4
    private const val HAS_BESIDE = 8
    private const val HAS_BEHIND = 16

    private const val MOST_PROPOSED = 64L // tokens of a Propose,
    private const val MOST_BESIDE = 3 // candidates beside one,
    private const val BESIDE_BITS = 2 // and bits that say how many

    private const val HAS_ROWS = 2 // of a Written, whose highest bits are how many were accepted,
    private const val HAS_COUNT = 4 // or 7, and how many more stands by itself
    private const val FEW_AT = 5
    private const val FEW = 7

    fun encode(frame: Hot): ByteString {
        val out = Buffer()
        when (frame) {
            is Draft -> draft(out, frame)
            is Verdict -> verdict(out, frame)
            is Tokens -> {
                out.head(
                    TOKENS,
                    flag(ENDED, frame.ended) or flag(HAS_LOGPROBS, frame.logprobs.size > 0) or
                        flag(STREAMED, frame.surprisals.size > 0),
                )
                out.varints(frame.epoch, frame.base, frame.ids.size.toLong())
                out.ids(frame.ids).block(frame.logprobs).block(frame.surprisals)
            }
            is Propose -> propose(out, frame)
            is Written -> written(out, frame)
        }
        return out.readByteString()
    }

    /** The hot frame of [kind] whose other bytes [source] reads. Throws [MalformedException]. */
    fun decode(kind: Int, source: FrameReader): Hot = when (kind) {
        DRAFT -> readDraft(source)
        VERDICT -> readVerdict(source)
        TOKENS -> readTokens(source)
        PROPOSE -> readPropose(source)
        WRITTEN -> readWritten(source)
        else -> throw MalformedException("a message of unknown kind $kind")
    }

    private fun flag(bit: Int, given: Boolean) = if (given) bit else 0

    private fun Buffer.head(kind: Int, flags: Int) {
        writeByte(kind)
        writeByte(flags)
    }

    private fun Buffer.ids(ids: List<Int>): Buffer {
        for (id in ids) varints(id.toLong())
        return this
    }

    private fun draft(out: Buffer, frame: Draft) {
        val asks = frame.had != 0L
        out.head(DRAFT, flag(HAS_FIRST, frame.first != null) or flag(WAITS, frame.waits) or flag(ASKS, asks))
        out.varints(frame.epoch, frame.base, frame.length)
        frame.first?.let { out.varints(it.toLong()) }
        if (asks) out.varints(frame.had)
        out.write(frame.payload)
    }

    private fun readDraft(source: FrameReader): Draft {
        val flags = source.flags(HAS_FIRST or WAITS or ASKS)
        val epoch = source.varint()
        val base = source.varint()
        val length = source.varint()
        val first = if (flags and HAS_FIRST != 0) source.id() else null
        val had = if (flags and ASKS != 0) source.positive() else 0L
        return Draft(epoch, base, length, source.rest(), first, flags and WAITS != 0, had)
    }

    private fun verdict(out: Buffer, frame: Verdict) {
        out.head(
            VERDICT,
            flag(ENDED, frame.ended) or flag(HAS_NEXT, frame.next != null) or
                flag(HAS_ROW, frame.row.size > 0) or told(frame.surprisals, frame.logprobs),
        )
        out.varints(frame.epoch, frame.base, frame.accepted, frame.queueUs, frame.verifyUs)
        frame.next?.let { out.varints(it.toLong()) }
        out.block(frame.row).block(frame.surprisals).block(frame.logprobs)
    }

    private fun told(surprisals: ByteString, logprobs: ByteString) =
        flag(HAS_SURPRISALS, surprisals.size > 0) or flag(HAS_LOGPROBS, logprobs.size > 0)

    private fun readVerdict(source: FrameReader): Verdict {
        val flags = source.flags(ENDED or HAS_NEXT or HAS_ROW or HAS_SURPRISALS or HAS_LOGPROBS)
        val epoch = source.varint()
        val base = source.varint()
        val accepted = source.varint()
        val queueUs = source.varint()
        val verifyUs = source.varint()
        val next = if (flags and HAS_NEXT != 0) source.id() else null
        val row = blockIf(source, flags, HAS_ROW)
        val surprisals = blockIf(source, flags, HAS_SURPRISALS)
        val logprobs = blockIf(source, flags, HAS_LOGPROBS)
        source.finish()
        val ended = flags and ENDED != 0
        return Verdict(epoch, base, accepted, next, ended, queueUs, verifyUs, row, surprisals, logprobs)
    }

    private fun blockIf(source: FrameReader, flags: Int, bit: Int) =
        if (flags and bit != 0) source.block() else ByteString.EMPTY

    private fun readTokens(source: FrameReader): Tokens {
        val flags = source.flags(ENDED or HAS_LOGPROBS or STREAMED)
        val epoch = source.varint()
        val base = source.varint()
        val ids = readIds(source, source.varint())
        val logprobs = blockIf(source, flags, HAS_LOGPROBS)
        val surprisals = blockIf(source, flags, STREAMED)
        source.finish()
        return Tokens(epoch, base, ids, flags and ENDED != 0, logprobs, surprisals)
    }

    private fun readIds(source: FrameReader, count: Long): List<Int> {
        demand(count <= MOST_TOKENS) { "$count tokens in a frame, where $MOST_TOKENS are the most" }
        return List(count.toInt()) { source.id() }
    }

    private fun propose(out: Buffer, frame: Propose) {
        val above = frame.known - frame.base
        out.head(
            PROPOSE,
            flag(GOES_ON, frame.goesOn) or flag(HAS_ABOVE, above != 0L) or flag(HAS_EARLIER, frame.first != 0L) or
                flag(HAS_BESIDE, frame.beside.isNotEmpty()) or flag(HAS_BEHIND, frame.behind != 0L),
        )
        out.varints(frame.path, frame.base)
        if (above != 0L) out.varints(above)
        if (frame.first != 0L) out.varints(frame.first)
        if (frame.behind != 0L) out.varints(frame.behind)
        out.varints(frame.length)
        for (four in frame.beside.chunked(Byte.SIZE_BITS / BESIDE_BITS)) {
            out.writeByte(four.foldIndexed(0) { i, sum, count -> sum or (count shl BESIDE_BITS * i) })
        }
        out.write(frame.payload)
    }

    private fun beside(source: FrameReader, length: Long): List<Int> {
        demand(length <= MOST_PROPOSED) { "$length tokens in a frame, where $MOST_PROPOSED are the most" }
        val each = Byte.SIZE_BITS / BESIDE_BITS
        val bytes = List((length.toInt() + each - 1) / each) { source.byte() }
        val counts = bytes.flatMap { byte -> List(each) { byte shr BESIDE_BITS * it and MOST_BESIDE } }
        demand(counts.any { it != 0 } && counts.drop(length.toInt()).all { it == 0 }) {
            "the frame says that there are no candidates, or has some of no token"
        }
        return counts.take(length.toInt())
    }

    private fun readPropose(source: FrameReader): Propose {
        val flags = source.flags(GOES_ON or HAS_ABOVE or HAS_EARLIER or HAS_BESIDE or HAS_BEHIND)
        val path = source.varint()
        val base = source.varint()
        val above = if (flags and HAS_ABOVE != 0) source.positive() else 0L
        val first = if (flags and HAS_EARLIER != 0) source.positive() else 0L
        val behind = if (flags and HAS_BEHIND != 0) source.positive() else 0L
        val length = source.varint()
        val beside = if (flags and HAS_BESIDE != 0) beside(source, length) else emptyList()
        return Propose(path, base, base + above, first, length, source.rest(), flags and GOES_ON != 0, beside, behind)
    }

    private fun written(out: Buffer, frame: Written) {
        val count = frame.ids.size.toLong()
        val few = minOf(frame.accepted, FEW.toLong())
        val counts = count != frame.accepted + 1 // else one of the target's own stands behind
        out.head(
            WRITTEN,
            flag(ENDED, frame.ended) or flag(HAS_ROWS, frame.rows != null) or flag(HAS_COUNT, counts) or
                told(frame.surprisals, frame.logprobs) or (few.toInt() shl FEW_AT),
        )
        out.varints(frame.base)
        if (few == FEW.toLong()) out.varints(frame.accepted - few)
        out.varints(frame.queueUs, frame.stepUs)
        frame.rows?.let { out.varints(it) }
        if (counts) out.varints(count)
        out.ids(frame.ids).block(frame.surprisals).block(frame.logprobs)
    }

    private fun readWritten(source: FrameReader): Written {
        val known = ENDED or HAS_ROWS or HAS_COUNT or HAS_SURPRISALS or HAS_LOGPROBS or (FEW shl FEW_AT)
        val flags = source.flags(known)
        val base = source.varint()
        val few = flags shr FEW_AT
        val accepted = few + (if (few == FEW) source.varint() else 0L)
        val queueUs = source.varint()
        val stepUs = source.varint()
        val rows = if (flags and HAS_ROWS != 0) source.varint() else null
        val counts = flags and HAS_COUNT != 0
        val count = if (counts) source.varint() else accepted + 1
        demand(rows != count && !(counts && count == accepted + 1)) {
            "the frame says how many tokens or rows there are without need"
        }
        val ids = readIds(source, count)
        val surprisals = blockIf(source, flags, HAS_SURPRISALS)
        val logprobs = blockIf(source, flags, HAS_LOGPROBS)
        source.finish()
        val ended = flags and ENDED != 0
        return Written(base, ids, accepted, ended, queueUs, stepUs, surprisals, rows, logprobs)
    }
}
