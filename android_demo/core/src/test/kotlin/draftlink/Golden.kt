package draftlink

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import okio.ByteString
import okio.ByteString.Companion.decodeHex
import org.junit.jupiter.api.Assertions.assertEquals
import java.io.File

/** The golden files of the repository, and a count of the entries that passed: it is printed. */
object Golden {
    private val folder = File(requireNotNull(System.getProperty("draftlink.golden")) { "draftlink.golden is not set" })
    private val files = HashMap<String, JsonObject>()

    private fun file(name: String): JsonObject = files.getOrPut(name) {
        Json.parseToJsonElement(File(folder, "$name.json").readText()).jsonObject.also {
            assertEquals(6, it.int("version"), "$name.json is of another version")
        }
    }

    /** What the entries of a file have in common. */
    fun head(name: String): JsonObject = file(name)

    /** Calls [check] with each entry of a [list] of a file, says which one fails, and prints how many there were. */
    fun each(name: String, list: String, check: (JsonObject) -> Unit) {
        println("golden: $name.json $list: ${all(name, list, check)} passed")
    }

    /** As [each], and prints nothing: for tests that take the entries for something else. How many there were. */
    fun all(name: String, list: String, check: (JsonObject) -> Unit): Int {
        val entries = file(name).objects(list)
        assert(entries.isNotEmpty())
        entries.forEachIndexed { i, entry ->
            try {
                check(entry)
            } catch (error: Throwable) {
                throw AssertionError("$name.json, $list $i (${entry["name"] ?: entry["why"]}): $error", error)
            }
        }
        return entries.size
    }
}

fun JsonObject.at(key: String): JsonElement = getValue(key)

fun JsonObject.has(key: String): Boolean = key in this && this[key] != JsonNull

fun JsonObject.text(key: String): String = at(key).jsonPrimitive.content

fun JsonObject.int(key: String): Int = text(key).toInt()

fun JsonObject.long(key: String): Long = text(key).toLong()

fun JsonObject.flag(key: String): Boolean = at(key).jsonPrimitive.boolean

fun JsonObject.array(key: String): JsonArray = at(key).jsonArray

fun JsonObject.objects(key: String): List<JsonObject> = array(key).map { it.jsonObject }

fun JsonObject.inner(key: String): JsonObject = at(key).jsonObject

fun JsonObject.ints(key: String): List<Int> = array(key).ints()

fun JsonObject.longs(key: String): List<Long> = array(key).longs()

fun JsonArray.ints(): List<Int> = map { it.jsonPrimitive.content.toInt() }

fun JsonArray.longs(): List<Long> = map { it.jsonPrimitive.content.toLong() }

/** A float, as digits or as Python's `float.hex`. */
fun JsonElement.double(): Double = when (val digits = jsonPrimitive.content) {
    "inf" -> Double.POSITIVE_INFINITY
    "-inf" -> Double.NEGATIVE_INFINITY
    else -> digits.toDouble()
}

fun JsonObject.doubles(key: String): DoubleArray = array(key).map { it.double() }.toDoubleArray()

fun JsonObject.bytes(key: String): ByteString = text(key).decodeHex()
