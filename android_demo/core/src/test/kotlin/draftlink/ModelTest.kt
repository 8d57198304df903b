package draftlink

import draftlink.model.Bundle
import draftlink.model.BundleException
import draftlink.model.Manifest
import draftlink.model.OrtDraftModel
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonObject
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.condition.EnabledIf
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.nio.file.Files

/** A real bundle on ONNX Runtime's Java library, where Python has left one (`tests/jvm_texts.py`). */
@EnabledIf("given")
class ModelTest {
    private val asked = Json.parseToJsonElement(file.readText()).jsonObject
    private val bundle = Bundle.load(File(asked.text("bundle")))

    /** The same text fed in the same parts, rolled back in between, as PyTorch and Python's device see it. */
    @Test
    fun logits() = OrtDraftModel.load(bundle).use { model ->
        var furthest = 0.0
        for (step in asked.objects("steps")) {
            model.rollback(step.int("length"))
            val row = model.forward(step.ints("ids"))
            val wanted = step.doubles("logits")
            val places = step.ints("places")
            for ((i, place) in places.withIndex()) furthest = maxOf(furthest, Math.abs(wanted[i] - row[place]))
            assertEquals(step.int("best"), row.indices.maxBy { row[it] })
        }
        println("from Python: logits: ${asked.objects("steps").size} equal but for $furthest")
        assertTrue(furthest <= asked.at("tolerance").double()) { "they differ by $furthest" }
    }

    /** A rollback is a length: what lies behind it is never read, and what is fed again is the same to the bit. */
    @Test
    fun `rollback over a cache full of NaN`() = OrtDraftModel.load(bundle).use { model ->
        val ids = List(24) { (it * 37 + 11) % model.vocabSize }
        model.forward(ids.take(16))
        val first = ids.drop(16).map { model.forward(listOf(it)).copyOf() }
        assertEquals(24, model.length)
        model.rollback(16)
        val width = bundle.manifest.headDim
        for (buffer in model.buffers) {
            for (i in 0 until buffer.capacity()) if (i / width % model.context >= 16) buffer.put(i, Float.NaN)
        }
        ids.drop(16).forEachIndexed { i, id -> assertArrayEquals(first[i], model.forward(listOf(id))) }
        // The control: what lies before it is read.
        model.rollback(16)
        model.buffers.first().put(0, Float.NaN)
        assertTrue(model.forward(listOf(ids[16])).any { it.isNaN() })
    }

    @Test
    fun `what cannot be fed`() = OrtDraftModel.load(bundle).use { model ->
        assertThrows(IllegalArgumentException::class.java) { model.forward(emptyList()) }
        assertThrows(IllegalArgumentException::class.java) { model.forward(List(model.context + 1) { 1 }) }
        model.forward(listOf(1, 2))
        assertThrows(IllegalArgumentException::class.java) { model.rollback(3) }
        assertEquals(2, model.length)
    }

    @Test
    fun `versions are compared by their numbers`() {
        val older = listOf("1.9.0" to "1.29", "1.29.0" to "1.29.1", "1.29.0-dev" to "1.30", "1" to "1.0.1")
        for ((one, other) in older) assertTrue(OrtDraftModel.older(one, other) && !OrtDraftModel.older(other, one)) { "$one, $other" }
        assertTrue(!OrtDraftModel.older("1.29", "1.29.0") && !OrtDraftModel.older("1.29.0", "1.29"))
    }

    @Test
    fun `bundles that are refused`(@TempDir folder: File) {
        val whole = File(bundle.folder, "manifest.json").readText()
        fun written(change: (JsonObject) -> JsonObject): File {
            val copy = Files.createTempDirectory(folder.toPath(), "bundle").toFile()
            for (each in bundle.folder.listFiles()!!) each.copyTo(File(copy, each.name))
            File(copy, "manifest.json").writeText(change(Json.parseToJsonElement(whole).jsonObject).toString())
            return copy
        }
        fun refused(why: String, copy: File) {
            val error = assertThrows(BundleException::class.java) { OrtDraftModel.runnable(Bundle.load(copy).manifest) }
            assertTrue(why in error.message!!) { "${error.message}" }
        }
        fun JsonObject.with(key: String, value: Any?) = JsonObject(this + (key to json(value)))
        Bundle.load(written { it })
        refused("format 2", written { it.with("format", 2) })
        refused("no passed check", written { it.with("check", null) })
        refused("no passed check", written { JsonObject(it + ("check" to it.inner("check").with("passed", false))) })
        refused("portable", written { it.with("graph", "portable") })
        refused("vocab_size", written { it.with("vocab_size", 1 shl 21) })
        refused("context", written { it.with("context", "long") })
        refused("does not list", written { it.with("files", emptyMap<String, Any>()) })
        refused("lacks", written { JsonObject(it + ("files" to it.inner("files").with("../x", mapOf("sha256" to "", "bytes" to 1)))) })
        refused("corrupt", written { it }.also { File(it, "tokenizer.json").appendText(" ") })
        refused("corrupt", written { it }.also { copy ->
            val graph = File(copy, "model.onnx")
            graph.writeBytes(graph.readBytes().also { bytes -> bytes[bytes.size / 2] = (bytes[bytes.size / 2] + 1).toByte() })
        })
        refused("is a link", written { it }.also { copy ->
            File(copy, "tokenizer.json").delete()
            Files.createSymbolicLink(File(copy, "tokenizer.json").toPath(), bundle.tokenizer.toPath())
        })
        refused("lacks manifest", File(folder, "nothing"))
        refused("no JSON", written { it }.also { File(it, "manifest.json").writeText("{") })
        refused("cannot be read", written { it }.also { File(it, "manifest.json").writeText("[".repeat(50_000) + "]".repeat(50_000)) })
        refused("needs onnxruntime 99.1", written { it.with("least_onnxruntime", "99.1") })
        refused("no version", written { it.with("least_onnxruntime", "new") })
        OrtDraftModel.runnable(Bundle.load(written { it.with("least_onnxruntime", "1.20.1") }).manifest)
        val bits = mapOf("kernels" to listOf(mapOf("kernel" to mapOf("bits" to 2, "block" to 32), "count" to 1)))
        refused("bits", written { it.with("quantization", bits) })
        assertThrows(BundleException::class.java) { Manifest.of("7") }
    }

    companion object {
        private val file = File(System.getProperty("draftlink.vectors").orEmpty(), "model.json")

        @JvmStatic
        fun given(): Boolean = System.getProperty("draftlink.vectors").orEmpty().isNotEmpty() && file.exists()
    }
}
