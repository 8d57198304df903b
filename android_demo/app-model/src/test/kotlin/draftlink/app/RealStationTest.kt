package draftlink.app

import draftlink.device.Who
import draftlink.pull.Pull
import draftlink.pull.Station
import draftlink.text.Speaker
import draftlink.transport.LinkException
import draftlink.transport.LinkState
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.cancel
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout
import org.junit.jupiter.api.condition.EnabledIfSystemProperty
import org.junit.jupiter.api.io.TempDir
import java.io.File

/** All of it at a real base station, started with `--self-signed --qr --offer` (`tests/jvm_app.py`). */
@EnabledIfSystemProperty(named = "draftlink.vectors", matches = ".+")
@Timeout(300)
class RealStationTest {
    private val wrote = setOf(Who.DRAFTED, Who.CORRECTED, Who.WRITTEN)

    @TempDir
    lateinit var folder: File
    private val vectors = File(System.getProperty("draftlink.vectors"))
    private val asked = Json.parseToJsonElement(File(vectors, "app.json").readText()).jsonObject.mapValues { it.value.jsonPrimitive.content }

    @Test
    fun `join by the code, take the draft, chat, and chat on`() = runBlocking {
        val scope = CoroutineScope(coroutineContext + Job())
        val joins = JoinModel(MemoryJoins())
        joins.open(asked.getValue("link"))
        assertTrue(joins.accept())
        val joined = joins.joined!!
        val source = Source.Of(Pull(Station(joined.url, joined.token, joined.pin)))
        val bundles = BundleModel(scope, File(folder, "bundle"))
        bundles.take(source)
        val taken = bundles.state.first { it is BundleState.Ready || it is BundleState.Failed }
        assertEquals("Ready(name=${asked["name"]}, chat=true)", taken.toString())

        val engine = Engine()
        val settings = Settings(threads = 1, maxTokens = asked.getValue("tokens").toInt(), offlineAfterS = null)
        val chat = ChatModel(scope) { engine.open(bundles.bundle!!, joined, settings) { Power() } }
        for (said in listOf("first", "second")) {
            assertTrue(chat.send(asked.getValue(said)))
            chat.state.first { it.phase == Phase.RESTING }
            assertEquals(null, chat.state.value.notice)
        }
        // What the conversation says of itself comes by another way than its text.
        val state = chat.state.first { it.live.tokens > 0 && it.live.sentBytes > 0 && it.link == LinkState.OPEN }
        assertEquals(listOf(Speaker.USER, Speaker.ASSISTANT, Speaker.USER, Speaker.ASSISTANT), state.lines.map { it.speaker })
        // Who wrote which token depends on time, as both ends write.
        assertTrue(state.lines.filter { it.speaker == Speaker.ASSISTANT }.all { line -> line.pieces.all { it.who in wrote } })
        val told = mapOf("answers" to state.lines.filter { it.speaker == Speaker.ASSISTANT }.joinToString("\u0000") { it.text })
        File(vectors, "jvm_app.json").writeText(Json.encodeToString(kotlinx.serialization.json.JsonObject.serializer(), kotlinx.serialization.json.JsonObject(told.mapValues { JsonPrimitive(it.value) })))
        assertTrue(chat.rest())
        engine.close()
        scope.cancel()
        println("at a base station: joined, ${bundles.bundle!!.manifest.model} taken, 2 answers")
    }

    @Test
    fun `who answers with another key hears no token`() = runBlocking {
        val right = Invitation.of(asked.getValue("link"))
        val wrong = right.copy(pin = "A".repeat(43))
        assertTrue("is not trusted" in assertThrows(LinkException::class.java) { runBlocking { Pull(Station(wrong.url, wrong.token, wrong.pin)).offer() } }.message!!)
        assertTrue("is not trusted" in assertThrows(LinkException::class.java) { runBlocking { Pull(Station(right.url, right.token)).offer() } }.message!!)
        // And who has no token gets nothing.
        assertTrue("wants another token" in assertThrows(LinkException::class.java) { runBlocking { Pull(Station(right.url, null, right.pin)).offer() } }.message!!)
    }
}
