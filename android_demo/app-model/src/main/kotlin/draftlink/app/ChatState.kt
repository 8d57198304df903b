package draftlink.app

import draftlink.transport.LinkState
import draftlink.device.Live
import draftlink.device.Who
import draftlink.text.Speaker
import draftlink.text.Turn
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive

/** A stretch of text, and who it is from; null: the user. */
data class Piece(val text: String, val who: Who?)

/** What one has said in a chat. */
data class Said(val speaker: Speaker, val pieces: List<Piece>) {
    val text: String get() = pieces.joinToString("") { it.text }

    /** With [more] at its end. */
    fun plus(more: Piece): Said {
        val last = pieces.lastOrNull()
        return when {
            more.text.isEmpty() -> this
            last != null && last.who == more.who -> copy(pieces = pieces.dropLast(1) + Piece(last.text + more.text, more.who))
            else -> copy(pieces = pieces + more)
        }
    }
}

/** What a chat is at. */
enum class Phase { RESTING, OPENING, WRITING, STOPPING }

/**
 * What a chat's screen shows. [plain]: the model has no form of chats, and goes on with plain text. [notice]:
 * what went wrong, until something is sent. [otherDraft]: that was the draft, which is not for this base station.
 */
data class ChatState(
    val lines: List<Said> = emptyList(),
    val phase: Phase = Phase.RESTING,
    val link: LinkState = LinkState.CLOSED,
    val live: Live = Live(),
    val plain: Boolean = false,
    val notice: String? = null,
    val otherDraft: Boolean = false,
) {
    /** Whether something of what is shown may be taken back. */
    val provisional: Boolean get() = lines.lastOrNull()?.pieces?.any { it.who == Who.PROVISIONAL } == true

    /** The turns that a model goes on from: without questions that got no answer, but the last. */
    fun turns(): List<Turn> {
        val found = ArrayList<Turn>()
        for (line in lines) {
            if (line.speaker == Speaker.USER && found.lastOrNull()?.speaker == Speaker.USER) found.removeAt(found.lastIndex)
            if (line.speaker == Speaker.USER || line.text.isNotBlank()) found += Turn(line.speaker, line.text)
        }
        return found
    }

    /** The lines as text that [restored] reads; what may be taken back is left out. */
    fun saved(): String = JsonArray(
        lines.map { line ->
            JsonObject(
                mapOf(
                    "speaker" to JsonPrimitive(line.speaker.name),
                    "pieces" to JsonArray(
                        line.pieces.filter { it.who != Who.PROVISIONAL }
                            .map { JsonArray(listOf(JsonPrimitive(it.text), JsonPrimitive(it.who?.name))) },
                    ),
                ),
            )
        },
    ).toString()

    companion object {
        /** The lines that [saved] wrote; none for what it did not write. */
        fun restored(text: String?): List<Said> = runCatching {
            Json.parseToJsonElement(text ?: "[]").jsonArray.map { line ->
                val fields = line.jsonObject
                val pieces = fields.getValue("pieces").jsonArray.map { it.jsonArray }
                Said(
                    Speaker.valueOf(fields.getValue("speaker").jsonPrimitive.content),
                    pieces.map { (said, who) ->
                        Piece(said.jsonPrimitive.content, Who.entries.firstOrNull { it.name == who.jsonPrimitive.content })
                    },
                )
            }
        }.getOrDefault(emptyList())
    }
}
