package draftlink

import draftlink.device.Kind
import draftlink.device.Token
import draftlink.device.texts
import draftlink.text.Pieces
import draftlink.text.Tokenizer
import draftlink.text.TokenizerException
import kotlinx.coroutines.flow.asFlow
import kotlinx.coroutines.flow.map
import kotlinx.coroutines.flow.onEach
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.condition.EnabledIfSystemProperty
import java.io.File

/** Texts to ids and back as Python's tokenizers do it, over one corpus (`tests/jvm_texts.py`). */
@EnabledIfSystemProperty(named = "draftlink.vectors", matches = ".+")
class TokenizerTest {
    private val folder = File(System.getProperty("draftlink.vectors"))
    private val tokenizers = HashMap<String, Tokenizer>()

    @Test
    fun texts() {
        var texts = 0
        File(folder, "texts.jsonl").forEachLine { line ->
            val entry = Json.parseToJsonElement(line).jsonObject
            val tokenizer = Tokenizer.load(File(folder, entry.text("tokenizer")))
            for (one in entry.objects("texts")) {
                val text = one.text("text")
                assertEquals(one.ints("ids"), tokenizer.encode(text)) { "${entry.text("tokenizer")}: ${one.at("text")}" }
                assertEquals(one.text("decoded"), tokenizer.decode(one.ints("ids")))
                texts++
            }
            for (ids in entry.array("ids").map { it.jsonArray.ints() }.zip(entry.array("decoded"))) {
                assertEquals(ids.second, json(tokenizer.decode(ids.first))) { "${entry.text("tokenizer")}: ${ids.first}" }
                texts++
            }
        }
        println("from Python: texts: $texts equal")
    }

    /** Texts token by token, behind a prompt and before a stop string: the same pieces. */
    @Test
    fun pieces() {
        var count = 0
        File(folder, "pieces.jsonl").forEachLine { line ->
            val entry = Json.parseToJsonElement(line).jsonObject
            val tokenizer = tokenizers.getOrPut(entry.text("tokenizer")) { Tokenizer.load(File(folder, entry.text("tokenizer"))) }
            val text = Pieces(tokenizer, entry.ints("prompt"), entry.array("stops").map { it.jsonPrimitive.content })
            val found = entry.ints("tokens").map { text.push(it) } + text.finish()
            assertEquals(entry.array("pieces").map { it.jsonPrimitive.content }, found) { line }
            assertEquals(entry.flag("stopped"), text.stopped)
            count++
        }
        println("from Python: pieces: $count equal")
    }

    /** As a flow: the tokens behind a stop string are never asked for. */
    @Test
    fun `a flow of texts`() = runBlocking {
        val tokenizer = Tokenizer.load(File(folder, "tinypair.json"))
        val ids = tokenizer.encode("Once upon a time there was a boat 😀, and it went down the river.")
        var asked = 0
        val tokens = ids.asFlow().onEach { asked++ }.map { Token(it, Kind.DRAFT) }
        assertEquals(tokenizer.decode(ids), tokens.texts(tokenizer, emptyList()).toList().joinToString(""))
        asked = 0
        assertEquals("Once upon a ti", tokens.texts(tokenizer, emptyList(), listOf("me there")).toList().joinToString(""))
        assertTrue(asked < ids.size)
    }

    /** What is not the same function is refused by name, and no bytes of a file are more than that. */
    @Test
    fun `tokenizers that are not known`() {
        val refused = Json.parseToJsonElement(File(folder, "refused.json").readText()).jsonObject
        for ((file, name) in refused) {
            val error = assertThrows(TokenizerException::class.java) { Tokenizer.load(File(folder, file)) }
            assertTrue(name.jsonPrimitive.content in error.message!!) { "${error.message}" }
        }
        println("from Python: refused: ${refused.size} tokenizers")
    }
}
