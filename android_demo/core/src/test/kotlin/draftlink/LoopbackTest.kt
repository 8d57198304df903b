package draftlink

import draftlink.device.Device
import draftlink.device.Mode
import draftlink.device.Options
import draftlink.device.Token
import draftlink.model.Bundle
import draftlink.model.DraftModel
import draftlink.model.OrtDraftModel
import draftlink.transport.Client
import draftlink.transport.Connect
import draftlink.transport.Link
import draftlink.transport.OkLink
import draftlink.wire.Sampling
import kotlinx.coroutines.runBlocking
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import okio.ByteString
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.condition.EnabledIf
import java.io.File
import java.math.BigInteger

/**
 * Texts with a real base station over loopback, where Python has started one: what it asks for is in
 * `loopback.json`, and what was sent and came is left for it in `jvm_loopback.jsonl`.
 */
@EnabledIf("asked")
class LoopbackTest {
    private val folder = File(System.getProperty("draftlink.vectors"))

    /** A link that keeps what is sent, and with [cuts] is lost once it has carried a few messages. */
    private class Recording(private val link: Link, private val sent: MutableList<ByteString>, private val cuts: Boolean) : Link by link {
        private var carried = 0

        override suspend fun send(message: ByteString) {
            cut()
            sent += message
            link.send(message)
        }

        override suspend fun receive(): ByteString {
            cut()
            return link.receive()
        }

        private fun cut() {
            if (cuts && carried++ == CARRIES) link.close()
        }
    }

    /** A draft that finds each id as likely as the true one finds another: the control. */
    private class Shuffled(private val model: DraftModel) : DraftModel by model {
        override fun forward(ids: List<Int>): FloatArray = model.forward(ids).let { row ->
            FloatArray(row.size) { row[(it * 7 + 3) % row.size] }
        }
    }

    @Test
    fun texts() {
        val asked = Json.parseToJsonElement(File(folder, "loopback.json").readText()).jsonObject
        val bundle = Bundle.load(File(asked.text("bundle")))
        val out = File(folder, "jvm_loopback.jsonl")
        out.delete()
        OrtDraftModel.load(bundle, threads = asked.int("threads")).use { model ->
            for (run in asked.objects("runs")) {
                val drafts = if (run.text("what") == "shuffled") Shuffled(model) else model
                for (line in runBlocking { texts(asked, run, drafts, bundle) }) out.appendText("${json(line)}\n")
            }
        }
        println("loopback: ${out.readLines().size} texts")
    }

    private suspend fun texts(asked: JsonObject, run: JsonObject, model: DraftModel, bundle: Bundle): List<Map<String, Any?>> {
        val sent = ArrayList<ByteString>()
        val connector = OkLink.connector()
        val connect = Connect { url -> Recording(connector.connect(url), sent, run.text("what") == "cuts") }
        val client = Client(asked.text("url"), bundle.manifest.tokenizerHash, bundle.manifest.vocabSize, connect, patienceS = 600.0)
        model.rollback(0)
        val device = Device(model, client, bundle.manifest.eosIds)
        device.open()
        val options = Options(
            run.int("max_tokens"), Sampling(temperature = run.at("temperature").double()), schemeOf(run.inner("scheme")),
            Mode.entries.first { it.said == run.text("mode") }, if (run.has("gamma")) run.int("gamma") else null, BigInteger(run.text("seed")),
        )
        sent.clear() // Hello says which program it is
        val lines = run.array("prompts").mapIndexed { i, prompt ->
            val tokens = ArrayList<Token>()
            device.generate(prompt.jsonArray.ints(), options).collect { token ->
                tokens += token
                if (run.text("what") == "kills" && tokens.size == KILLED_AT) killed()
            }
            val result = device.result!!
            assertEquals(result.tokens, tokens.map { it.id })
            val frames = sent.map { it.hex() }
            sent.clear()
            mapOf(
                "run" to run.text("name"), "prompt" to i, "tokens" to result.tokens, "rounds" to result.rounds,
                "drafted" to result.drafted, "accepted" to result.accepted, "right" to result.right, "looked" to result.looked,
                "histogram" to result.histogram, "sent" to frames, "kinds" to tokens.map { it.kind.name },
                "reconnects" to result.reconnects, "mode" to result.mode,
            )
        }
        client.close()
        return lines
    }

    /** Has the base station killed, and started again. */
    private fun killed() {
        File(folder, "kill").appendText("kill\n")
        File(folder, "killed").bufferedReader().use { it.readLine() }
    }

    companion object {
        private const val KILLED_AT = 10
        private const val CARRIES = 14 // messages, of which four make a connection

        @JvmStatic
        fun asked(): Boolean = System.getProperty("draftlink.vectors").orEmpty()
            .let { it.isNotEmpty() && File(it, "loopback.json").exists() }
    }
}
