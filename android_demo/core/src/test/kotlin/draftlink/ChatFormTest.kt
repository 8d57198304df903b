package draftlink

import draftlink.text.ChatForm
import draftlink.text.Spaces
import draftlink.text.Speaker
import draftlink.text.Trees
import draftlink.text.Turn
import draftlink.wire.Fields
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.jsonObject
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.condition.EnabledIfSystemProperty
import java.io.File

/** Chats written as Python writes them, and so as the models' templates do (`tests/jvm_chats.py`). */
class ChatFormTest {
    @Test
    @EnabledIfSystemProperty(named = "draftlink.vectors", matches = ".+")
    fun chats() {
        var equal = 0
        var refused = 0
        File(System.getProperty("draftlink.vectors"), "chats.jsonl").forEachLine { line ->
            val entry = Json.parseToJsonElement(line).jsonObject
            val form = ChatForm.of(Fields(Trees.plain(entry.at("form"))))
            val turns = entry.objects("turns").map { Turn(Speaker.valueOf(it.text("role").uppercase()), it.text("content")) }
            if (entry.has("text")) {
                assertEquals(entry.text("text"), form.render(turns))
                equal++
            } else {
                assertThrows(IllegalArgumentException::class.java) { form.render(turns) }
                refused++
            }
        }
        println("from Python: chats: $equal equal, $refused refused")
    }

    /** The platform's own takes fewer of them, and one more. */
    @Test
    fun `white space is Python's`() {
        val python = (0..0xFFFF).map { it.toChar() }.filter { Spaces.trim("$it").isEmpty() }.map { it.code }
        val expected = (0x9..0xD) + (0x1C..0x20) + 0x85 + 0xA0 + 0x1680 + (0x2000..0x200A) + 0x2028 + 0x2029 + 0x202F + 0x205F + 0x3000
        assertEquals(expected, python)
    }
}
