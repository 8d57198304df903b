package draftlink.wire

import okio.ByteString
import java.math.BigInteger

/**
 * What a map of a control message says, by key (docs/protocol.md, 3.1): unknown keys are skipped, no
 * float stands for an integer, and no bytes for a string. Every function throws
 * [MalformedException] where the key holds something else, or is missing without a default.
 */
internal class Fields(value: Any?) {
    private val map: Map<*, *>

    init {
        demand(value is Map<*, *> && value.keys.all { it is String || it is Msgpack.BrokenText }) {
            "a map with string keys is due"
        }
        map = value as Map<*, *>
    }

    /** The keys that are strings. */
    val keys: Set<String> get() = map.keys.filterIsInstance<String>().toSet()

    fun has(key: String): Boolean = key in map

    fun isNil(key: String): Boolean = map[key] == null

    fun long(key: String): Long = typed(key, map[key] as? Long)

    fun long(key: String, default: Long): Long = if (has(key)) long(key) else default

    /** An integer of up to 64 bits with a sign or without, or null. */
    fun seed(key: String): BigInteger? {
        demand(has(key)) { "$key is missing" }
        return when (val value = map[key]) {
            null -> null
            is Long -> BigInteger.valueOf(value)
            else -> typed(key, value as? BigInteger)
        }
    }

    fun boolean(key: String): Boolean = typed(key, map[key] as? Boolean)

    fun boolean(key: String, default: Boolean): Boolean = if (has(key)) boolean(key) else default

    fun double(key: String, default: Double): Double = if (has(key)) number(key, map[key]) else default

    fun string(key: String): String = typed(key, map[key] as? String)

    fun string(key: String, default: String): String = if (has(key)) string(key) else default

    fun bytes(key: String): ByteString = typed(key, map[key] as? ByteString)

    fun bytes(key: String, default: ByteString): ByteString = if (has(key)) bytes(key) else default

    fun map(key: String): Fields = Fields(map[key])

    fun maps(key: String): List<Fields> = typed(key, map[key] as? List<*>).map { Fields(it) }

    fun strings(key: String): List<String> = typed(key, map[key] as? List<*>).map { typed(key, it as? String) }

    fun strings(key: String, default: List<String>): List<String> = if (has(key)) strings(key) else default

    fun ids(key: String): List<Int> = typed(key, map[key] as? List<*>).map { id(key, it) }

    fun ids(key: String, default: List<Int>): List<Int> = if (has(key)) ids(key) else default

    /** An array of pairs of an id and a number. */
    fun pairs(key: String): List<Pair<Int, Double>> = typed(key, map[key] as? List<*>).map {
        val pair = typed(key, it as? List<*>)
        demand(pair.size == 2) { "$key has no pairs" }
        id(key, pair[0]) to number(key, pair[1])
    }

    private fun id(key: String, value: Any?): Int {
        val id = typed(key, value as? Long)
        demand(id in Int.MIN_VALUE..Int.MAX_VALUE) { "an id of $id in $key" }
        return id.toInt()
    }

    private fun number(key: String, value: Any?): Double = when (value) {
        is Double -> value
        is Long -> value.toDouble()
        is BigInteger -> value.toDouble()
        else -> throw MalformedException("$key is no number")
    }

    private fun <T : Any> typed(key: String, value: T?): T {
        demand(value != null) { if (has(key)) "$key is of another type" else "$key is missing" }
        return value!!
    }
}
