package draftlink.model

import draftlink.text.Trees
import draftlink.wire.Fields
import draftlink.wire.MalformedException
import draftlink.wire.Sampling
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.booleanOrNull

/** The bundle cannot be used; the text says why, in one line. */
class BundleException(message: String) : Exception(message)

/** A file of a bundle: its checksum in hex, and its size in bytes. */
data class BundleFile(val sha256: String, val bytes: Long)

/**
 * What a device must know before it loads a graph, of the manifest that `draftlink export` writes.
 * A stranger's until it is checked: [of] takes no number that no model has.
 */
data class Manifest(
    val model: String,
    val graph: String,
    val precision: String,
    val vocabSize: Int,
    val context: Int,
    val layers: Int,
    val kvHeads: Int,
    val headDim: Int,
    val tokenizerHash: String,
    val eosIds: List<Int>,
    val files: Map<String, BundleFile>,
    val kernelBits: Set<Long>,
    val chatTemplate: String?,
    val sampling: Sampling?,
    val leastOnnxruntime: String?,
) {
    /** Bytes of the KV cache, in float32. */
    val cacheBytes: Long get() = 2L * layers * kvHeads * headDim * context * Float.SIZE_BYTES

    companion object {
        private const val FORMAT = 1L
        private const val MAX_VOCAB = 1L shl 20
        private const val MAX_CONTEXT = (1L shl 31) - 1
        private const val MAX_SIZE = 1L shl 16
        private const val MAX_EOS = 256
        private const val MAX_FILES = 1000
        private const val MAX_NAME = 500
        private val VERSION = Regex("[0-9]{1,4}(\\.[0-9]{1,4}){1,3}")

        /** The manifest that a [text] of JSON is. Throws [BundleException]. */
        fun of(text: String): Manifest = try {
            of(Fields(plain(Trees.of(text))))
        } catch (error: SerializationException) {
            throw BundleException("the manifest is no JSON; export the bundle again")
        } catch (error: MalformedException) {
            throw BundleException("the manifest cannot be read (${error.message}); export the bundle again")
        } catch (error: IllegalArgumentException) {
            throw BundleException("the manifest cannot be read (${error.message}); export the bundle again")
        }

        private fun of(fields: Fields): Manifest {
            val format = fields.long("format")
            if (format != FORMAT) throw BundleException("the bundle has format $format, this is $FORMAT; export it again")
            if (fields.isNil("check") || !fields.map("check").boolean("passed")) {
                throw BundleException("the bundle has no passed check against PyTorch; export it again")
            }
            val eos = fields.ids("eos_token_ids")
            require(eos.size <= MAX_EOS && eos.all { it in 0 until MAX_VOCAB }) { "EOS ids that cannot be" }
            val files = fields.map("files")
            require(files.keys.size <= MAX_FILES) { "${files.keys.size} files" }
            return Manifest(
                name(fields, "model"),
                name(fields, "graph"),
                name(fields, "precision"),
                number(fields, "vocab_size", MAX_VOCAB),
                number(fields, "context", MAX_CONTEXT),
                number(fields, "layers", MAX_SIZE),
                number(fields, "kv_heads", MAX_SIZE),
                number(fields, "head_dim", MAX_SIZE),
                name(fields, "tokenizer_hash"),
                eos,
                files.keys.associateWith { key -> files.map(key).let { BundleFile(name(it, "sha256"), it.long("bytes")) } },
                kernelBits(fields),
                if (fields.isNil("chat_template")) null else fields.string("chat_template"),
                if (fields.isNil("sampling")) null else Sampling.of(fields.map("sampling")).also { it.check() },
                if (fields.isNil("least_onnxruntime")) null else version(fields.string("least_onnxruntime")),
            )
        }

        private fun name(fields: Fields, key: String) =
            fields.string(key).also { require(it.length <= MAX_NAME) { "$key has ${it.length} characters" } }

        private fun version(text: String) = text.also { require(VERSION.matches(it)) { "least_onnxruntime is no version" } }

        private fun number(fields: Fields, key: String, most: Long): Int {
            val value = fields.long(key)
            require(value in 1..most) { "$key is $value" }
            return value.toInt()
        }

        /** Bits of a weight, of every kind of product that there is. */
        private fun kernelBits(fields: Fields): Set<Long> {
            if (fields.isNil("quantization")) return emptySet()
            return fields.map("quantization").maps("kernels").map { it.map("kernel").long("bits") }.toSet()
        }

        /** JSON as the values that [Fields] reads; an integer of more than 64 bits is a float. */
        private fun plain(value: JsonElement): Any? = when (value) {
            is JsonNull -> null
            is JsonObject -> value.mapValues { (_, each) -> plain(each) }
            is JsonArray -> value.map { plain(it) }
            is JsonPrimitive -> when {
                value.isString -> value.content
                value.booleanOrNull != null -> value.booleanOrNull
                else -> value.content.toLongOrNull() ?: value.content.toDouble()
            }
        }
    }
}
