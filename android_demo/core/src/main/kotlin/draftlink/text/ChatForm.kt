package draftlink.text

import draftlink.wire.Fields

/** Who says a turn of a chat. */
enum class Speaker { SYSTEM, USER, ASSISTANT }

/** A turn of a chat. */
data class Turn(val speaker: Speaker, val text: String)

/**
 * How a chat is written: what stands around each turn, of a manifest of `draftlink export`, which held it
 * to the model's template. Where a bundle has none, there is none, and a client offers plain text.
 *
 * [begin], the [user]'s turns and the [assistant]'s by turns, and [answer] behind the last. A [system] turn
 * stands first, in the place of [begin] and of the prefix of the user's turn behind it.
 */
class ChatForm private constructor(
    private val begin: String,
    private val user: Part,
    private val assistant: Part,
    private val answer: String,
    private val system: Part?,
) {
    /** Whether a chat may begin with a system turn. */
    val hasSystem: Boolean get() = system != null

    private class Part(val prefix: String, val suffix: String, val trim: Boolean, val hidden: String?) {
        fun write(said: String): String {
            require(!Spaces.trim(said).isEmpty()) { "a turn says nothing" }
            val seen = if (hidden == null || hidden !in said) said else said.substringAfterLast(hidden).trimStart('\n')
            return if (trim) Spaces.trim(seen) else seen
        }
    }

    /**
     * The text that the model goes on from. The last of the [turns] is the user's. Throws
     * [IllegalArgumentException] for turns that are no such chat.
     */
    fun render(turns: List<Turn>): String {
        val first = turns.firstOrNull()?.takeIf { it.speaker == Speaker.SYSTEM }
        val rest = if (first == null) turns else turns.drop(1)
        require(rest.size % 2 == 1) { "the last turn is not the user's" }
        val text = StringBuilder(if (first == null) begin + user.prefix else opened(first))
        rest.forEachIndexed { number, turn ->
            val due = if (number % 2 == 0) Speaker.USER else Speaker.ASSISTANT
            require(turn.speaker == due) { "a turn of ${turn.speaker}, where $due is due" }
            val part = if (due == Speaker.USER) user else assistant
            text.append(if (number == 0) "" else part.prefix, part.write(turn.text), part.suffix)
        }
        return text.append(answer).toString()
    }

    private fun opened(turn: Turn): String {
        val part = requireNotNull(system) { "this model's chats have no system turn" }
        return part.prefix + part.write(turn.text) + part.suffix
    }

    internal companion object {
        /** Of a manifest's `chat`. Throws [draftlink.wire.MalformedException]. */
        fun of(fields: Fields) = ChatForm(
            fields.string("begin"), part(fields.map("user")), part(fields.map("assistant")), fields.string("answer"),
            if (fields.isNil("system")) null else part(fields.map("system")),
        )

        private fun part(fields: Fields) = Part(
            fields.string("prefix"), fields.string("suffix"), fields.boolean("trim", false),
            if (fields.isNil("hidden")) null else fields.string("hidden").also { require(it.isNotEmpty()) { "hidden is empty" } },
        )
    }
}

/** White space as Python's `str.strip` has it, which templates call; the platforms' own differ. */
internal object Spaces {
    private val SPACES = ("\t\n\u000B\u000C\r\u001C\u001D\u001E\u001F \u0085\u00A0\u1680\u2028\u2029\u202F\u205F\u3000").toSet() +
        ('\u2000'..'\u200A')

    /** A [text] without white space at both ends. */
    fun trim(text: String): String = text.trim { it in SPACES }
}
