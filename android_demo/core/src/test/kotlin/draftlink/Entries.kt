package draftlink

import draftlink.coding.IdPrior
import draftlink.coding.Payloads
import draftlink.distribution.Drafted
import draftlink.distribution.SparseRow
import draftlink.wire.Draft
import draftlink.wire.Fields
import draftlink.wire.Hot
import draftlink.wire.Propose
import draftlink.wire.Scheme
import draftlink.wire.Tokens
import draftlink.wire.Verdict
import draftlink.wire.Written
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.booleanOrNull
import okio.ByteString
import okio.ByteString.Companion.decodeBase64
import okio.ByteString.Companion.decodeHex
import java.math.BigInteger

/** Entries of the golden files, and of those that Python makes for these tests, as values; and the reverse. */

/** A hot frame from its [fields], whose bytes are in hex. */
fun hotOf(type: String, fields: JsonObject): Hot = when (type) {
    "Draft" -> Draft(
        fields.long("epoch"), fields.long("base"), fields.long("length"), fields.bytes("payload"),
        fields.intOrNull("first"), fields.flag("waits"), fields.long("had"),
    )
    "Verdict" -> Verdict(
        fields.long("epoch"), fields.long("base"), fields.long("accepted"), fields.intOrNull("next"),
        fields.flag("ended"), fields.long("queue_us"), fields.long("verify_us"),
        fields.bytes("row"), fields.bytes("surprisals"), told(fields),
    )
    "Tokens" -> Tokens(
        fields.long("epoch"), fields.long("base"), fields.ints("ids"), fields.flag("ended"), told(fields),
        if (fields.has("surprisals")) fields.bytes("surprisals") else "".decodeHex(),
    )
    "Propose" -> Propose(
        fields.long("path"), fields.long("base"), fields.long("known"), fields.long("first"),
        fields.long("length"), fields.bytes("payload"), fields.flag("goes_on"),
        if (fields.has("beside")) fields.ints("beside") else emptyList(),
        if (fields.has("behind")) fields.long("behind") else 0L,
    )
    "Written" -> Written(
        fields.long("base"), fields.ints("ids"), fields.long("accepted"), fields.flag("ended"),
        fields.long("queue_us"), fields.long("step_us"), fields.bytes("surprisals"),
        if (fields.has("rows")) fields.long("rows") else null, told(fields),
    )
    else -> error("no hot frame $type")
}

private fun told(fields: JsonObject) = if (fields.has("logprobs")) fields.bytes("logprobs") else "".decodeHex()

private fun JsonObject.intOrNull(key: String) = if (has(key)) int(key) else null

/** A hot frame's fields, as [hotOf] reads them. */
fun fieldsOf(frame: Hot): Map<String, Any?> = when (frame) {
    is Draft -> mapOf(
        "epoch" to frame.epoch, "base" to frame.base, "length" to frame.length, "payload" to frame.payload.hex(),
        "first" to frame.first, "waits" to frame.waits, "had" to frame.had,
    )
    is Verdict -> mapOf(
        "epoch" to frame.epoch, "base" to frame.base, "accepted" to frame.accepted, "next" to frame.next,
        "ended" to frame.ended, "queue_us" to frame.queueUs, "verify_us" to frame.verifyUs,
        "row" to frame.row.hex(), "surprisals" to frame.surprisals.hex(), "logprobs" to frame.logprobs.hex(),
    )
    is Tokens -> mapOf(
        "epoch" to frame.epoch, "base" to frame.base, "ids" to frame.ids, "ended" to frame.ended,
        "logprobs" to frame.logprobs.hex(), "surprisals" to frame.surprisals.hex(),
    )
    is Propose -> mapOf(
        "path" to frame.path, "base" to frame.base, "known" to frame.known, "first" to frame.first,
        "length" to frame.length, "payload" to frame.payload.hex(), "goes_on" to frame.goesOn,
        "beside" to frame.beside, "behind" to frame.behind,
    )
    is Written -> mapOf(
        "base" to frame.base, "ids" to frame.ids, "accepted" to frame.accepted, "ended" to frame.ended,
        "queue_us" to frame.queueUs, "step_us" to frame.stepUs, "surprisals" to frame.surprisals.hex(),
        "rows" to frame.rows, "logprobs" to frame.logprobs.hex(),
    )
}

/** JSON as the values of msgpack; under the keys that have bytes they are in base 64. */
fun plain(value: JsonElement, key: String = ""): Any? = when (value) {
    is JsonNull -> null
    is JsonObject -> value.mapValues { (name, each) -> plain(each, name) }
    is JsonArray -> value.map { plain(it) }
    is JsonPrimitive -> when {
        value.isString && key in setOf("ticket", "digest") -> value.content.decodeBase64()
        value.isString -> value.content
        value.booleanOrNull != null -> value.booleanOrNull
        value.content.any { it in ".eE" } -> value.content.toDouble()
        else -> BigInteger(value.content).let { if (it.bitLength() < 64) it.toLong() else it }
    }
}

/** The reverse of [plain]. */
fun json(value: Any?): JsonElement = when (value) {
    null -> JsonNull
    is Boolean -> JsonPrimitive(value)
    is Number -> JsonPrimitive(value)
    is String -> JsonPrimitive(value)
    is ByteString -> JsonPrimitive(value.base64())
    is List<*> -> JsonArray(value.map { json(it) })
    is Map<*, *> -> JsonObject(value.entries.associate { (key, each) -> key as String to json(each) })
    else -> error("no JSON of ${value::class}")
}

/** A scheme. */
fun schemeOf(entry: JsonObject): Scheme = Scheme.of(Fields(plain(entry)))

/** What codes an entry's payloads: "greedy" is no scheme of the wire. */
fun payloadsOf(scheme: JsonObject, vocabSize: Int): Payloads {
    val greedy = scheme.text("type") == "greedy"
    return Payloads(if (greedy) Scheme.Coupled else schemeOf(scheme), greedy, vocabSize)
}

/** A drafted token: an [item] of an [entry] that has the scheme and the size of the vocabulary. */
fun draftedOf(item: JsonObject, entry: JsonObject): Drafted {
    val token = item.int("token")
    val scheme = entry.inner("scheme")
    if ("rows" in item) {
        val rows = item.objects("rows").mapIndexed { j, row -> rowOf(row, scheme.long("total") shl j) }
        val index = rows.last().ids.binarySearch(token)
        if (index >= 0) return Drafted.of(rows.last(), index, rows.dropLast(1))
        val prior = IdPrior(entry.int("vocab_size"))
        val listed = rows.sumOf { row -> row.ids.sumOf { prior.share(it).weight } }
        return Drafted(token, prior.share(token).weight, prior.total - listed, null, rows)
    }
    if ("ids" in item) {
        val row = rowOf(item, null)
        return Drafted.of(row, row.ids.binarySearch(token))
    }
    return if ("count" in item) Drafted(token, item.long("count"), scheme.long("total")) else Drafted(token)
}

private fun rowOf(item: JsonObject, total: Long?): SparseRow {
    val counts = item.longs("counts").toLongArray()
    val rest = if (item.has("rest")) item.long("rest") else 0L
    return SparseRow(item.ints("ids").toIntArray(), counts, total ?: (counts.sum() + rest), rest)
}

/** The reverse of [draftedOf]; [nested]: the scheme may have several rows for a token. */
fun itemOf(drafted: Drafted, scheme: Scheme, nested: Boolean): Map<String, Any?> {
    val rows = (drafted.above + listOfNotNull(drafted.row)).map {
        mapOf("ids" to it.ids.toList(), "counts" to it.counts.toList(), "rest" to it.rest)
    }
    return mapOf("token" to drafted.token) + when {
        scheme is Scheme.Split -> mapOf("count" to drafted.count)
        nested -> mapOf("rows" to rows)
        else -> rows.single()
    }
}
