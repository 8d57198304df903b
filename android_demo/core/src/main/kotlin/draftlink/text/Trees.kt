package draftlink.text

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.booleanOrNull

/** JSON of a stranger's as a tree. The library's own reader calls itself for each level of an array. */
internal object Trees {
    private const val DEEPEST = 64

    /** The tree that [text] is. Throws [IllegalArgumentException] for what is none, or nested deeper than any file of ours. */
    fun of(text: String): JsonElement {
        var depth = 0
        var quoted = false
        var escaped = false
        for (character in text) {
            when {
                escaped -> escaped = false
                quoted && character == '\\' -> escaped = true
                character == '"' -> quoted = !quoted
                quoted -> Unit
                character == '[' || character == '{' -> require(++depth <= DEEPEST) { "it is nested too deeply" }
                character == ']' || character == '}' -> depth--
            }
        }
        return Json.parseToJsonElement(text)
    }

    /** A tree as the values that `Fields` reads; an integer of more than 64 bits is a float. */
    fun plain(value: JsonElement): Any? = when (value) {
        is JsonNull -> null
        is JsonObject -> value.mapValues { (_, each) -> plain(each) }
        is JsonArray -> value.map { plain(it) }
        is JsonPrimitive -> when {
            value.isString -> value.content
            value.booleanOrNull != null -> value.booleanOrNull
            else -> value.content.toLongOrNull() ?: value.content.toDouble()
        }
    }
}
