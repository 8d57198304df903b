package draftlink

import draftlink.device.Device
import draftlink.device.Kind
import draftlink.device.Mode
import draftlink.device.Options
import draftlink.session.Features
import draftlink.session.State
import draftlink.transport.Client
import draftlink.transport.Connect
import draftlink.transport.Deadlines
import draftlink.transport.LinkException
import draftlink.transport.LinkState
import draftlink.transport.LostException
import draftlink.wire.Frames
import draftlink.wire.MalformedException
import draftlink.wire.Sampling
import draftlink.wire.Scheme
import kotlin.random.Random
import kotlinx.coroutines.CompletableDeferred
import kotlinx.coroutines.awaitCancellation
import kotlinx.coroutines.cancelAndJoin
import kotlinx.coroutines.flow.take
import kotlinx.coroutines.flow.toList
import kotlinx.coroutines.launch
import kotlinx.coroutines.runBlocking
import okio.ByteString
import okio.ByteString.Companion.toByteString
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** The device's client against a base station in this process: texts, cuts, and what no base station says. */
class ClientTest {
    private val prompt = listOf(3, 1, 4, 1, 5)
    private val options = Options(
        60, Sampling(temperature = 0.0), Scheme.Coupled, Mode.STOP_AND_WAIT, gamma = 4, seed = 7.toBigInteger(),
    )

    private fun text(tokens: Int, behind: List<Int> = prompt): List<Int> {
        val history = behind.toMutableList()
        repeat(tokens) { history += nextOf(history) }
        return history.drop(behind.size)
    }

    private suspend fun device(station: FakeStation, draft: FakeDraft = FakeDraft()): Device {
        val device = Device(draft, Client("ws://here", "5a".repeat(32), VOCABULARY, station))
        device.open()
        return device
    }

    @Test
    fun `a text, and a turn behind it`() = runBlocking {
        val device = device(FakeStation())
        val tokens = device.generate(prompt, options).toList()
        assertEquals(text(60), tokens.map { it.id })
        val result = device.result!!
        assertEquals(tokens.count { it.kind == Kind.DRAFT }, result.accepted)
        assertEquals(60, result.accepted + tokens.count { it.kind != Kind.DRAFT })
        assertTrue(result.alpha in 0.4..0.9 && result.rounds < 40) { "$result" }
        val more = device.tokens + listOf(9, 9)
        assertEquals(text(60, more), device.generate(more, options).toList().map { it.id })
    }

    /** Whoever writes, the text is the same; and where the device drafts, much of it is the draft's. */
    @Test
    fun `every mode`() {
        for (mode in Mode.entries) {
            for (both in listOf(true, false)) {
                if (mode == Mode.BOTH && !both) continue
                val station = FakeStation(features = { told -> told.filter { both || it != Features.BOTH } })
                runBlocking {
                    val device = device(station)
                    val tokens = device.generate(prompt, options.copy(mode = mode, gamma = null)).toList()
                    assertEquals(text(60), tokens.map { it.id }) { "$mode" }
                    val result = device.result!!
                    println("$mode, both ends ${if (both) "may" else "may not"}: ${result.mode}, ${result.accepted} accepted, alpha ${result.alpha}")
                    assertEquals(result.tokens, tokens.map { it.id })
                    assertEquals(result.accepted, tokens.count { it.kind == Kind.DRAFT })
                    if (mode != Mode.STREAM && (both || mode != Mode.AUTO)) assertTrue(result.accepted > 5) { "$result" }
                    assertEquals(device.live.value.tokens, 60)
                    assertEquals(LinkState.OPEN, device.link.value)
                }
            }
        }
    }

    @Test
    fun `the draft's context is full`() = runBlocking {
        val tokens = device(FakeStation(), FakeDraft(context = 30)).generate(prompt, options).toList()
        assertEquals(text(60), tokens.map { it.id })
        assertTrue(tokens.any { it.kind == Kind.STREAM } && tokens.any { it.kind == Kind.DRAFT })
    }

    @Test
    fun `a text that is left ends where it was left`() = runBlocking {
        val device = device(FakeStation())
        val some = device.generate(prompt, options).take(7).toList()
        assertEquals(text(7), some.map { it.id })
        val other = listOf(8, 8)
        assertEquals(text(60, other), device.generate(other, options).toList().map { it.id })
    }

    /** Nothing of it is left: neither the generation that was to be resumed, nor half a greeting. */
    @Test
    fun `a text that is left while a connection is looked for`() = runBlocking {
        val asked = CompletableDeferred<Unit>()
        var away = false
        val station = FakeStation(cuts = { away })
        val connect = Connect { url ->
            if (away) {
                asked.complete(Unit)
                awaitCancellation()
            }
            station.connect(url)
        }
        val client = Client("ws://here", "5a".repeat(32), VOCABULARY, connect)
        val device = Device(FakeDraft(), client)
        device.open()
        val writing = launch { device.generate(prompt, options).collect { away = true } }
        asked.await()
        writing.cancelAndJoin()
        away = false
        val other = listOf(8, 8)
        assertEquals(text(60, other), device.generate(other, options).toList().map { it.id })
    }

    /** While nothing is heard the draft goes on in provisional tokens; what stands is the text without them. */
    @Test
    fun `provisional tokens`() {
        for (mode in listOf(Mode.STOP_AND_WAIT, Mode.RUN_AHEAD, Mode.STREAM, Mode.BOTH)) {
            var away = false
            val station = FakeStation(cuts = { away })
            runBlocking {
                val connect = Connect { url -> if (away) throw LostException("away") else station.connect(url) }
                val device = Device(FakeDraft(), Client("ws://here", "5a".repeat(32), VOCABULARY, connect))
                device.open()
                val shown = ArrayList<Int>() // as an app shows it
                var alone = 0
                device.generate(prompt, options.copy(mode = mode, offlineAfterS = 0.02)).collect { token ->
                    if (token.kind == Kind.PROVISIONAL) {
                        if (away && ++alone >= 4) away = false
                    } else {
                        repeat(token.takesBack) { shown.removeAt(shown.lastIndex) }
                        val confirmed = device.tokens.size - prompt.size - 1
                        if (token.confirms) assertEquals(shown[confirmed], token.id)
                        if (device.tokens.size == prompt.size + 6) away = true
                    }
                    if (!token.confirms) shown += token.id
                }
                val result = device.result!!
                println("provisional, $mode: ${result.provisional} shown, ${result.takenBack} taken back")
                assertEquals(text(60), result.tokens) { "$mode" }
                assertEquals(text(60), shown) { "$mode" }
                assertTrue(result.provisional >= 4 && result.reconnects > 0) { "$result" }
            }
        }
    }

    /** Cut at any message, on its way up or down, kept and forgotten by turns: the text is the one without it. */
    @Test
    fun cuts() {
        var reconnects = 0
        for (seed in 0 until 60) {
            val random = Random(seed)
            val context = if (seed % 3 == 0) 40 else 1000
            var armed = false // one that is not there at first is another matter
            val station = FakeStation(remembers = { random.nextBoolean() }, cuts = { armed && random.nextInt(12) == 0 })
            runBlocking {
                val device = device(station, FakeDraft(context))
                armed = true
                val asked = options.copy(mode = Mode.entries[seed % Mode.entries.size])
                assertEquals(text(60), device.generate(prompt, asked).toList().map { it.id }) { "seed $seed" }
                reconnects += device.result!!.reconnects
            }
        }
        println("cuts: $reconnects new connections")
        assertTrue(reconnects > 100)
    }

    /** What comes is one bit, byte or message other than what was said: a typed error or the same text, and no hang. */
    @Test
    fun `what no base station says`() {
        var refused = 0
        for (seed in 0 until 1000) {
            val random = Random(seed)
            var left = random.nextInt(30)
            val station = FakeStation(spoils = { data -> if (left-- == 0) spoilt(data, random) else data })
            runBlocking {
                val client = Client("ws://here", "5a".repeat(32), VOCABULARY, station, 0.0, Deadlines(0.5, 0.5))
                try {
                    val device = Device(FakeDraft(), client)
                    device.open()
                    device.generate(prompt, options.copy(mode = Mode.entries[seed % Mode.entries.size])).toList()
                } catch (_: LinkException) {
                    refused++
                    // It stays refused, and says so again at once.
                    assertThrows(LinkException::class.java) { runBlocking { client.receive() } }
                }
            }
        }
        println("hostile: $refused of 1000 base stations refused")
        assertTrue(refused > 500)
    }

    private fun spoilt(data: ByteString, random: Random): ByteString {
        val bytes = data.toByteArray()
        return when (random.nextInt(4)) {
            0 -> bytes.also { it[random.nextInt(it.size)] = random.nextInt(256).toByte() }.toByteString()
            1 -> bytes.copyOf(random.nextInt(bytes.size)).toByteString()
            2 -> (bytes + random.nextBytes(3)).toByteString()
            else -> random.nextBytes(random.nextInt(1, 40)).toByteString()
        }
    }

    /** Each malformed message of the golden files, in the place of Welcome and of a verdict. */
    @Test
    fun `malformed messages`() {
        for (name in listOf("hot", "both", "logprobs", "recovery")) {
            Golden.all(name, "malformed") { entry ->
                for (place in listOf(0, 2)) {
                    var left = place
                    val station = FakeStation(spoils = { if (left-- == 0) entry.bytes("hex") else it })
                    assertThrows(MalformedException::class.java) { Frames.decode(entry.bytes("hex")) }
                    assertThrows(LinkException::class.java) {
                        runBlocking { device(station).generate(prompt, options).toList() }
                    }
                }
            }
        }
    }

    @Test
    fun `nothing can be asked that cannot work`() = runBlocking {
        val device = device(FakeStation())
        for (wrong in listOf(emptyList(), listOf(-1), listOf(VOCABULARY), List(2000) { 1 })) {
            assertThrows(IllegalArgumentException::class.java) { runBlocking { device.generate(wrong, options).toList() } }
        }
        for (wrong in listOf(options.copy(gamma = 0), options.copy(gamma = 65), options.copy(maxTokens = 0),
            options.copy(sampling = Sampling(temperature = -1.0)), options.copy(offlineAfterS = -1.0),
            options.copy(mode = Mode.BOTH, scheme = Scheme.TopK(), sampling = Sampling()))) {
            assertThrows(IllegalArgumentException::class.java) { runBlocking { device.generate(prompt, wrong).toList() } }
        }
        assertEquals(State.READY, device.client.session.state)
        assertEquals(text(60), device.generate(prompt, options).toList().map { it.id })
    }
}
