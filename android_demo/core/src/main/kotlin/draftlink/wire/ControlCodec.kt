package draftlink.wire

import okio.ByteString

/** Control messages to the maps that they are sent as, and back (docs/protocol.md, 3.1). */
internal object ControlCodec {
    private val REFUSALS = setOf("version", "tokenizer", "request", "protocol", "internal", "busy")
    private const val MOST_RETRY_S = 3600L

    /** The map of a message: `type` first, then the keys in the order of the page's tables. */
    fun toMap(message: Control): Map<String, Any?> = when (message) {
        is Hello -> hello(message)
        is Welcome -> welcome(message)
        is Refused -> buildMap {
            put("type", "refused")
            put("code", message.code)
            put("reason", message.reason)
            message.retryAfterS?.let { put("retry_after_s", it) }
        }
        is Start -> mapOf("type" to "start") + start(message)
        is Finish -> mapOf("type" to "finish", "generation" to message.generation, "keep" to message.keep)
        is Done -> mapOf(
            "type" to "done", "generation" to message.generation, "length" to message.length, "epoch" to message.epoch,
        )
        is Switch -> mapOf("type" to "switch", "generation" to message.generation, "mode" to message.mode)
        is Switched -> mapOf(
            "type" to "switched", "generation" to message.generation, "epoch" to message.epoch, "base" to message.base,
        )
        is Resume -> mapOf(
            "type" to "resume", "start" to mapOf("type" to "start") + start(message.start), "epoch" to message.epoch,
            "length" to message.length, "digest" to message.digest, "owes" to message.owes, "seen" to message.seen,
        )
        is Resumed -> mapOf(
            "type" to "resumed", "generation" to message.generation,
            "handled" to message.handled, "replay" to message.replay,
        )
        is Replay -> mapOf("type" to "replay", "generation" to message.generation, "ids" to message.ids)
        is Progress -> mapOf(
            "type" to "progress", "generation" to message.generation,
            "fed" to message.fed, "total" to message.total, "ahead" to message.ahead,
        )
    }

    private fun hello(message: Hello) = buildMap<String, Any?> {
        put("type", "hello")
        put("version", message.version)
        put("tokenizer_hash", message.tokenizerHash)
        put("vocab_size", message.vocabSize)
        put("schemes", message.schemes)
        put("agent", message.agent)
        if (message.ticket.size > 0) put("ticket", message.ticket)
        if (message.lowest != 0L) put("lowest", message.lowest)
        if (message.features.isNotEmpty()) put("features", message.features)
    }

    private fun welcome(message: Welcome) = buildMap<String, Any?> {
        put("type", "welcome")
        put("version", message.version)
        put("tokenizer_hash", message.tokenizerHash)
        put("vocab_size", message.vocabSize)
        put("context", message.context)
        put("schemes", message.schemes)
        put("model", message.model)
        put("dtype", message.dtype)
        if (message.ticket.size > 0) put("ticket", message.ticket)
        if (message.features.isNotEmpty()) put("features", message.features)
        if (message.frameEntries != Welcome.FRAME_ENTRIES) put("frame_entries", message.frameEntries)
        if (message.flightEntries != Welcome.FLIGHT_ENTRIES) put("flight_entries", message.flightEntries)
        if (message.eosIds.isNotEmpty()) put("eos_ids", message.eosIds)
        if (message.bosIds.isNotEmpty()) put("bos_ids", message.bosIds)
        if (message.suppressedIds.isNotEmpty()) put("suppressed_ids", message.suppressedIds)
        message.sampling?.let { put("sampling", it.toMap()) }
        if (message.unapplied.isNotEmpty()) put("unapplied", message.unapplied)
        if (message.stepUs != 0L) put("step_us", message.stepUs)
        if (message.rowUs != 0L) put("row_us", message.rowUs)
    }

    private fun start(message: Start) = buildMap<String, Any?> {
        put("generation", message.generation)
        put("base", message.base)
        put("ids", message.ids)
        put("sampling", message.sampling.toMap())
        put("scheme", Scheme.toMap(message.scheme))
        put("mode", message.mode)
        put("max_tokens", message.maxTokens)
        put("eos_ids", message.eosIds)
        put("seed", message.seed)
        put("surprisals", message.surprisals)
        message.suppressedIds?.let { put("suppressed_ids", it) }
        message.logprobs?.let { put("logprobs", it) }
        message.turns?.let { put("turns", it) }
        message.streamedSurprisals?.let { put("streamed_surprisals", it) }
    }

    /** The message that a map [value] is. Throws [MalformedException]. */
    fun of(value: Any?): Control {
        val fields = Fields(value)
        return when (val type = fields.string("type")) {
            "hello" -> readHello(fields)
            "welcome" -> readWelcome(fields)
            "refused" -> readRefused(fields)
            "start" -> readStart(fields)
            "finish" -> Finish(fields.long("generation"), fields.long("keep"))
            "done" -> Done(fields.long("generation"), fields.long("length"), fields.long("epoch"))
            "switch" -> Switch(fields.long("generation"), mode(fields, false))
            "switched" -> Switched(fields.long("generation"), fields.long("epoch"), fields.long("base"))
            "resume" -> Resume(
                readStart(fields.map("start")), fields.long("epoch"), fields.long("length"),
                fields.bytes("digest"), fields.boolean("owes"), fields.long("seen"),
            )
            "resumed" -> Resumed(fields.long("generation"), fields.long("handled"), fields.boolean("replay"))
            "replay" -> Replay(fields.long("generation"), fields.ids("ids"))
            "progress" -> Progress(
                fields.long("generation"), fields.long("fed"), fields.long("total"), fields.long("ahead"),
            )
            else -> throw MalformedException("no message ${type.take(64)}")
        }
    }

    private fun readHello(fields: Fields) = Hello(
        fields.long("version"),
        fields.string("tokenizer_hash"),
        fields.long("vocab_size"),
        fields.strings("schemes"),
        fields.string("agent"),
        fields.bytes("ticket", ByteString.EMPTY),
        fields.long("lowest", 0),
        fields.strings("features", emptyList()),
    )

    private fun readWelcome(fields: Fields) = Welcome(
        fields.long("version"),
        fields.string("tokenizer_hash"),
        fields.long("vocab_size"),
        fields.long("context"),
        fields.strings("schemes"),
        fields.string("model"),
        fields.string("dtype"),
        fields.bytes("ticket", ByteString.EMPTY),
        fields.strings("features", emptyList()),
        fields.long("frame_entries", Welcome.FRAME_ENTRIES),
        fields.long("flight_entries", Welcome.FLIGHT_ENTRIES),
        fields.ids("eos_ids", emptyList()),
        fields.ids("bos_ids", emptyList()),
        fields.ids("suppressed_ids", emptyList()),
        if (fields.isNil("sampling")) null else Sampling.of(fields.map("sampling")),
        fields.strings("unapplied", emptyList()),
        microseconds(fields, "step_us"),
        microseconds(fields, "row_us"),
    )

    private fun microseconds(fields: Fields, key: String): Long =
        fields.long(key, 0).also { demand(it in 0..MOST_VARINT) { "$key is $it" } }

    private fun readRefused(fields: Fields): Refused {
        val code = fields.string("code")
        val retry = if (fields.isNil("retry_after_s")) null else fields.long("retry_after_s")
        demand(code in REFUSALS && (retry == null || retry in 0..MOST_RETRY_S)) { "a refusal that cannot be" }
        return Refused(code, fields.string("reason"), retry)
    }

    private fun readStart(fields: Fields) = Start(
        fields.long("generation"),
        fields.long("base"),
        fields.ids("ids"),
        Sampling.of(fields.map("sampling")),
        Scheme.of(fields.map("scheme")),
        mode(fields, true),
        fields.long("max_tokens"),
        fields.ids("eos_ids"),
        fields.seed("seed"),
        fields.boolean("surprisals", false),
        if (fields.has("suppressed_ids")) fields.ids("suppressed_ids") else null,
        if (fields.has("logprobs")) fields.long("logprobs") else null,
        if (fields.has("turns")) fields.boolean("turns") else null,
        if (fields.has("streamed_surprisals")) fields.boolean("streamed_surprisals") else null,
    )

    private fun mode(fields: Fields, both: Boolean): String =
        fields.string("mode").also {
            demand(it == "draft" || it == "stream" || (both && it == "both")) { "no mode ${it.take(64)}" }
        }
}
