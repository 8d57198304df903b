package draftlink.app

import draftlink.device.Conversation
import draftlink.device.Options
import draftlink.device.Who
import draftlink.pull.Pull
import draftlink.pull.Station
import draftlink.text.Speaker
import draftlink.transport.LinkException
import draftlink.transport.LinkState
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.flow.flow
import kotlinx.coroutines.job
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
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
    private val joined = JoinModel(MemoryJoins()).also { it.open(asked.getValue("link")) }.also { assertTrue(it.accept()) }.joined!!
    private val engine = Engine()

    private fun atStation(what: suspend CoroutineScope.(BundleModel) -> Unit) = runBlocking {
        val scope = CoroutineScope(coroutineContext + Job())
        try {
            val bundles = BundleModel(scope, File(folder, "bundle"))
            bundles.take(Source.Of(Pull(Station(joined.url, joined.token, joined.pin))))
            val taken = bundles.state.first { it is BundleState.Ready || it is BundleState.Failed }
            assertEquals("Ready(name=${asked["name"]}, chat=true)", taken.toString())
            scope.what(bundles)
        } finally {
            scope.coroutineContext.job.cancelAndJoin() // what writes has the model
            engine.close()
        }
    }

    private suspend fun open(bundles: BundleModel, offlineAfterS: Double?): Talk {
        val settings = Settings(threads = 1, maxTokens = asked.getValue("tokens").toInt(), offlineAfterS = offlineAfterS)
        return engine.open(bundles.bundle!!, joined, settings) { Power() }
    }

    private suspend fun ChatModel.answered(said: String): String {
        assertTrue(send(asked.getValue(said)))
        state.first { it.phase == Phase.RESTING }
        assertEquals(null, state.value.notice)
        return state.value.lines.last().text
    }

    private fun tell(name: String, answers: JsonElement) = File(vectors, name).writeText(answers.toString())

    @Test
    fun `join by the code, take the draft, chat, and chat on`() = atStation { bundles ->
        val chat = ChatModel(this) { open(bundles, offlineAfterS = null) }
        tell("jvm_app.json", JsonArray(listOf("first", "second").map { JsonPrimitive(chat.answered(it)) }))
        // What the conversation says of itself comes by another way than its text.
        val state = chat.state.first { it.live.tokens > 0 && it.live.sentBytes > 0 && it.link == LinkState.OPEN }
        assertEquals(listOf(Speaker.USER, Speaker.ASSISTANT, Speaker.USER, Speaker.ASSISTANT), state.lines.map { it.speaker })
        // Who wrote which token depends on time, as both ends write.
        assertTrue(state.lines.filter { it.speaker == Speaker.ASSISTANT }.all { line -> line.pieces.all { it.who in wrote } })
        assertTrue(chat.rest())
        println("at a base station: joined, ${bundles.bundle!!.manifest.model} taken, 2 answers")
    }

    /** [talk], at whose base station a text has it killed, and started again, when [at] of its tokens have come. */
    private fun killed(talk: Talk, at: Int): Talk {
        val conversation = object : Conversation by talk.conversation {
            override fun generate(prompt: List<Int>, options: Options) = flow {
                var count = 0
                talk.conversation.generate(prompt, options).collect { token ->
                    emit(token)
                    if (++count == at) kill()
                }
            }
        }
        return Talk(conversation, talk.tokenizer, talk.form, talk.bosIds, talk.options)
    }

    private fun kill() {
        File(vectors, "app/kill").appendText("kill\n")
        File(vectors, "app/killed").bufferedReader().use { it.readLine() }
    }

    @Test
    fun `the link is lost in mid-text, and found again`() = atStation { bundles ->
        val chat = ChatModel(this) { killed(open(bundles, offlineAfterS = 0.1), at = 5) }
        val seen = ArrayList<String>()
        launch { chat.state.collect { state -> Numbers.link(state).let { if (seen.lastOrNull() != it) seen += it } } }
        tell("jvm_lost.json", JsonPrimitive(chat.answered("first")))
        val state = chat.state.first { it.link == LinkState.OPEN && it.live.reconnects > 0 }
        assertFalse(state.provisional)
        // What is pale may be shown before it is known that the link is lost, which it is until it is found.
        val told = seen.filter { "lost" in it }.toSet()
        assertTrue("connection lost; what is pale is not certain yet" in told) { "$seen" }
        assertEquals(listOf("not connected", "connected", "lost", "connected"), seen.map { if (it in told) "lost" else it }.distinctUntilChanged())
        assertTrue(state.lines.last().pieces.any { it.who == Who.DRAFTED }) { shown(state) }
        assertTrue(chat.rest())
        println("at a base station: lost and found again, ${state.live.reconnects} connections more")
    }

    private fun List<String>.distinctUntilChanged() = filterIndexed { place, it -> place == 0 || this[place - 1] != it }

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
