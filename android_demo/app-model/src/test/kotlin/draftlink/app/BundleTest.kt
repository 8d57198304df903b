package draftlink.app

import draftlink.app.FakeOffer.Spoilt
import draftlink.pull.Offer
import draftlink.pull.Pull
import draftlink.pull.Station
import draftlink.transport.LinkException
import kotlinx.coroutines.CoroutineScope
import kotlinx.coroutines.Job
import kotlinx.coroutines.cancel
import kotlinx.coroutines.flow.first
import kotlinx.coroutines.runBlocking
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertSame
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.Timeout
import org.junit.jupiter.api.io.TempDir
import java.io.File

/** A draft is fetched: cut, changed, refused and hostile. */
@Timeout(30)
class BundleTest {
    @TempDir
    lateinit var folder: File
    private val files = FakeOffer.bundle()
    private val pauses = ArrayList<Long>()

    private fun fetch(
        spoil: (String, Int) -> Spoilt? = { _, _ -> null }, files: Map<String, ByteArray> = this.files, what: suspend (BundleModel, FakeOffer, Source) -> Unit,
    ) = runBlocking {
        val scope = CoroutineScope(coroutineContext + Job())
        FakeOffer(files, spoil).use { offer ->
            try {
                what(BundleModel(scope, File(folder, "bundle")), offer, Source.Of(Pull(Station(offer.url)) { pauses += it }))
            } finally {
                scope.cancel()
            }
        }
    }

    /** The state that something ends in. */
    private suspend fun BundleModel.ends(): String =
        state.first { it is BundleState.Ready || it is BundleState.Failed || it is BundleState.Offered }.toString()

    @Test
    fun `it is asked for, shown, fetched, and there`() = fetch { model, offer, source ->
        model.look()
        model.ask(source)
        assertEquals("Offered(name=small, bytes=${files.values.sumOf { it.size }})", model.ends())
        val seen = ArrayList<BundleState>()
        model.take(source)
        model.state.first { seen += it; it is BundleState.Ready }
        assertEquals("Ready(name=small, chat=false)", model.state.value.toString())
        assertEquals(listOf("offer", "manifest.json", "model.onnx", "tokenizer.json"), offer.asked)
        val whole = model.bundle!!
        for ((name, data) in files) assertArrayEquals(data, File(whole.folder, name).readBytes())
        assertEquals(listOf("bundle"), folder.list()!!.toList())
        // The process ends, and another begins.
        model.look()
        model.state.first { it is BundleState.Ready && it.name == "bundle" }
    }

    @Test
    fun `it goes on where it broke off`() = fetch({ name, time -> if (name == "model.onnx" && time < 4) Spoilt(after = 70_000) else null }) { model, offer, source ->
        model.take(source)
        assertEquals("Ready(name=small, chat=false)", model.ends())
        val ranges = offer.asked.filter { it.startsWith("model.onnx ") }.map { it.removePrefix("model.onnx bytes=").removeSuffix("-").toInt() }
        assertEquals(3, ranges.size)
        assertEquals(ranges.sorted().distinct(), ranges) // each from where the last had come to
        assertArrayEquals(files["model.onnx"], model.bundle!!.graph.readBytes())
        assertEquals(listOf(100L, 100L, 100L), pauses)
    }

    @Test
    fun `a base station that is busy is waited for, one that stays away is not`() {
        fetch({ name, time -> if (name == "model.onnx" && time == 1) Spoilt(status = 503, retryAfter = "7") else null }) { model, _, source ->
            model.take(source)
            assertEquals("Ready(name=small, chat=false)", model.ends())
            assertEquals(listOf(7000L), pauses)
        }
        pauses.clear()
        File(folder, "bundle").deleteRecursively()
        fetch({ name, _ -> if (name == "model.onnx") Spoilt(after = 0) else null }) { model, _, source ->
            model.take(source)
            assertTrue(Regex("Failed\\(why=.* does not go on with model.onnx .*; what has come is kept, again=true\\)").matches(model.ends()))
            assertEquals(8, pauses.size)
            assertEquals(5000L, pauses.last())
        }
    }

    @Test
    fun `a base station without parts sends all of it again`() =
        fetch({ name, time -> if (name == "model.onnx") Spoilt(after = if (time == 1) 70_000 else null, parts = false) else null }) { model, _, source ->
            model.take(source)
            assertEquals("Ready(name=small, chat=false)", model.ends())
            assertArrayEquals(files["model.onnx"], model.bundle!!.graph.readBytes())
        }

    @Test
    fun `what is not what was offered is thrown away`() {
        val changed = files.getValue("model.onnx").clone().also { it[5]++ }
        fetch({ name, _ -> if (name == "model.onnx") Spoilt(bytes = changed) else null }) { model, _, source ->
            model.take(source)
            assertTrue("its checksum differs" in model.ends())
            assertFalse(File(folder, "bundle").exists())
            assertEquals(listOf("manifest.json"), folder.walk().filter { it.isFile }.map { it.name }.toList())
        }
        for ((bytes, why) in listOf(changed + 1 to "in another size", changed.copyOf(9) to "in another size")) {
            fetch({ name, _ -> if (name == "model.onnx") Spoilt(bytes = bytes) else null }) { model, _, source ->
                model.take(source)
                assertTrue(why in model.ends())
            }
        }
    }

    @Test
    fun `a bundle that may not be used leaves nothing`() {
        fetch(files = FakeOffer.bundle(passed = false)) { model, _, source ->
            model.take(source)
            assertEquals("Failed(why=the bundle has no passed check against PyTorch; export it again, again=false)", model.ends())
            assertEquals(0, folder.walk().count { it.isFile })
        }
        val other = FakeOffer.bundle(size = 10) + ("manifest.json" to files.getValue("manifest.json"))
        fetch(files = other) { model, _, source ->
            model.take(source)
            assertTrue("tells of other files than are offered" in model.ends())
            assertEquals(0, folder.walk().count { it.isFile })
        }
    }

    @Test
    fun `it can be stopped, and what has come is kept`() =
        fetch({ name, time -> if (name == "model.onnx" && time == 1) Spoilt(after = 70_000) else null }) { model, offer, source ->
            var stopped = false
            val stopping = Source.Of(Pull(Station(offer.url)) { model.stop().also { stopped = true }; kotlinx.coroutines.awaitCancellation() })
            model.take(stopping)
            assertEquals("Failed(why=stopped; what has come is kept, again=true)", model.ends())
            assertTrue(stopped)
            model.take(source)
            model.state.first { it is BundleState.Ready }
            assertTrue(offer.asked.any { it.startsWith("model.onnx bytes=") })
            assertEquals(1, offer.asked.count { it == "manifest.json" })
        }

    @Test
    fun `what is here is usable until another one is whole`() {
        fetch { model, _, source ->
            model.take(source)
            assertEquals("Ready(name=small, chat=false)", model.ends())
        }
        val other = FakeOffer.bundle(size = 200_000)
        fetch({ name, _ -> if (name == "model.onnx") Spoilt(after = 0) else null }, other) { model, _, source ->
            model.look()
            model.ask(source) // which waits for what is looked for, however long that takes
            model.state.first { it is BundleState.Offered }
            val here = model.bundle!!
            model.take(source)
            model.state.first { it is BundleState.Coming }
            assertSame(here, model.bundle)
            assertTrue("does not go on with model.onnx" in model.ends())
            assertSame(here, model.bundle)
            assertArrayEquals(files["model.onnx"], here.graph.readBytes())
        }
        fetch(files = other) { model, _, source ->
            model.take(source)
            assertEquals("Ready(name=small, chat=false)", model.ends())
            assertArrayEquals(other["model.onnx"], model.bundle!!.graph.readBytes())
        }
    }

    @Test
    fun `a folder on the phone is taken, if it is one`() = fetch { model, _, _ ->
        val given = File(folder, "given").apply { mkdirs() }
        model.copy(given)
        assertTrue("is no draft bundle" in model.ends())
        for ((name, data) in files) File(given, name).writeBytes(data)
        model.copy(given)
        assertEquals("Ready(name=given, chat=false)", model.state.first { it is BundleState.Ready }.toString())
    }

    @Test
    fun `offers of strangers are refused`() {
        val right = FakeOffer(files).use { it.offer() }
        assertEquals(files.keys, Offer.of(right).files.keys)
        val digest = Regex("[0-9a-f]{64}").find(right)!!.value
        val wrong = listOf(
            "", "[]", "{}", "null", right.replace("\"format\":1", "\"format\":2"), right.replace("small", ".."), right.replace("small", "a/b"),
            right.replace("model.onnx", "../model.onnx"), right.replace("model.onnx", "con"), right.replace("model.onnx", "a."),
            right.replace("model.onnx", "MANIFEST.json"), right.replace("manifest.json", "x.json"), right.replace(digest, digest.uppercase()),
            right.replace(digest, "x"), right.replace("\"bytes\":300000", "\"bytes\":-1"), right.replace("\"bytes\":300000", "\"bytes\":1.5"),
            right.replace("\"bytes\":300000", "\"bytes\":99999999999999"), "[".repeat(100_000),
            right.replace("\"files\":{", "\"files\":{" + (0..200).joinToString("") { "\"f$it\":{\"sha256\":\"$digest\",\"bytes\":1}," }),
        )
        for (text in wrong) assertThrows(LinkException::class.java, { Offer.of(text) }) { text.take(200) }
    }

    @Test
    fun `a token goes over no network in clear, and a pin to nobody without TLS`() {
        assertThrows(LinkException::class.java) { Station("ws://192.168.1.20:1", "secret") }
        Station("ws://192.168.1.20:1", "secret", clear = true)
        assertThrows(LinkException::class.java) { Station("ws://127.0.0.1:1", "secret", "A".repeat(43)) }
        assertThrows(LinkException::class.java) { Station("http://127.0.0.1:1") }
        for ((status, why) in listOf(401 to "another token", 302 to "redirects", 404 to "offers no draft: start it with --offer", 418 to "HTTP 418")) {
            fetch({ _, _ -> Spoilt(status = status) }) { model, _, source ->
                model.ask(source)
                assertTrue(Regex("Failed\\(.*$why.*, again=true\\)").matches(model.ends()))
            }
        }
    }
}
