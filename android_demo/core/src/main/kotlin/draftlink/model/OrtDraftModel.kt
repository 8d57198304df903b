package draftlink.model

import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtLoggingLevel
import ai.onnxruntime.OrtSession
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer

/**
 * A bundle's graph on ONNX Runtime, with one KV cache: one buffer a layer is given as
 * past and as present, so that nothing is copied, and a rollback is a smaller [length].
 *
 * That the runtime does write in place is not believed but seen, when the graph is loaded.
 */
class OrtDraftModel private constructor(private val manifest: Manifest, private val session: OrtSession) : DraftModel {
    private val environment = environment()
    private val cache: List<FloatBuffer>
    private val inputs = HashMap<String, OnnxTensor>()
    private val outputs = HashMap<String, OnnxTensor>()
    private val last = direct(Int.SIZE_BYTES).asIntBuffer()
    private val total = direct(Int.SIZE_BYTES).asIntBuffer()
    private val logits = direct(manifest.vocabSize * Float.SIZE_BYTES).asFloatBuffer()
    private val row = FloatArray(manifest.vocabSize)
    private val chunks = HashMap<Int, Chunk>()

    override val vocabSize: Int get() = manifest.vocabSize
    override val context: Int get() = manifest.context
    override var length = 0
        private set

    init {
        inputs["seqlens_k"] = OnnxTensor.createTensor(environment, last, longArrayOf(1))
        inputs["total_sequence_length"] = OnnxTensor.createTensor(environment, total, longArrayOf())
        outputs["logits"] = OnnxTensor.createTensor(environment, logits, longArrayOf(1, manifest.vocabSize.toLong()))
        val shape = longArrayOf(1, manifest.kvHeads.toLong(), manifest.context.toLong(), manifest.headDim.toLong())
        val bytes = manifest.kvHeads * manifest.context * manifest.headDim * Float.SIZE_BYTES
        cache = List(2 * manifest.layers) { index ->
            val name = "${index / 2}.${if (index % 2 == 0) "key" else "value"}"
            val buffer = direct(bytes).asFloatBuffer()
            val tensor = OnnxTensor.createTensor(environment, buffer, shape)
            inputs["past.$name"] = tensor
            outputs["present.$name"] = tensor
            buffer
        }
    }

    /** The input arrays for [count] tokens. */
    private inner class Chunk(private val count: Int) {
        val ids = direct(count * Long.SIZE_BYTES).asLongBuffer()
        val positions = direct(count * Long.SIZE_BYTES).asLongBuffer()
        val tensors = listOf(ids, positions).map {
            OnnxTensor.createTensor(environment, it, longArrayOf(1, count.toLong()))
        }
    }

    override fun forward(ids: List<Int>): FloatArray {
        require(ids.isNotEmpty() && length + ids.size <= context) {
            "${ids.size} tokens after $length, where the context is $context"
        }
        // In parts, so that a long prompt takes no more memory than a short one.
        for (part in ids.chunked(PREFILL)) {
            run(part)
            length += part.size
        }
        logits.get(0, row)
        return row
    }

    private fun run(ids: List<Int>) {
        val kept = chunks[ids.size]
        val chunk = kept ?: Chunk(ids.size).also { if (ids.size <= KEPT) chunks[ids.size] = it }
        ids.forEachIndexed { i, id ->
            chunk.ids.put(i, id.toLong())
            chunk.positions.put(i, (length + i).toLong())
        }
        last.put(0, length + ids.size - 1)
        total.put(0, length + ids.size)
        inputs["input_ids"] = chunk.tensors[0]
        inputs["position_ids"] = chunk.tensors[1]
        session.run(inputs, emptySet(), outputs).close() // which does not close what is pinned
        if (ids.size > KEPT) {
            inputs.values.removeAll(chunk.tensors.toSet())
            chunk.tensors.forEach { it.close() }
        }
    }

    override fun rollback(length: Int) {
        require(length in 0..this.length) { "cannot roll ${this.length} tokens back to $length" }
        this.length = length // what lies behind it is overwritten before it is read
    }

    /**
     * Feeds a token into an empty cache whose first two rows are NaN: the first has to be written in
     * every buffer, and the second to be as it was, or past and present are not one buffer.
     */
    private fun checkInPlace() {
        val width = manifest.headDim
        for (buffer in cache) for (i in 0 until minOf(2, context) * width) buffer.put(i, Float.NaN)
        forward(listOf(0))
        rollback(0)
        for (buffer in cache) {
            val written = (0 until width).none { buffer.get(it).isNaN() }
            val left = context < 2 || (width until 2 * width).all { buffer.get(it).isNaN() }
            if (!written || !left) throw BundleException("the graph does not write its cache in place; export the bundle again")
        }
        if (row.any { it.isNaN() }) throw BundleException("the graph reads behind its cache's end; export the bundle again")
        for (buffer in cache) for (i in 0 until minOf(2, context) * width) buffer.put(i, 0f)
    }

    /** Of each layer's key and value the buffer (kv_heads, context, head_dim): for tests. */
    internal val buffers: List<FloatBuffer> get() = cache

    override fun close() {
        (inputs.values + outputs.values + chunks.values.flatMap { it.tensors }).toSet().forEach { it.close() }
        session.close()
    }

    companion object {
        private const val PREFILL = 128 // tokens fed at once
        private const val KEPT = 16 // chunks up to this length keep their arrays: drafting feeds one or two tokens
        private const val SHARED = "shared"

        private fun direct(bytes: Int): ByteBuffer = ByteBuffer.allocateDirect(bytes).order(ByteOrder.nativeOrder())

        private fun environment(): OrtEnvironment =
            OrtEnvironment.getEnvironment(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL).also { it.setTelemetry(false) }

        /**
         * The draft of a [bundle], run by so many [threads] of an execution [provider]; what that lacks, the CPU
         * computes. Throws [BundleException], for a provider that this onnxruntime does not have, too.
         */
        fun load(bundle: Bundle, threads: Int = 1, provider: Provider = Provider.CPU): OrtDraftModel {
            val manifest = bundle.manifest
            runnable(manifest)
            try {
                val options = OrtSession.SessionOptions()
                options.setIntraOpNumThreads(threads)
                provider.add(options, threads)
                // A thread that spins between two forwards burns a core while a verdict is awaited.
                options.addConfigEntry("session.intra_op.allow_spinning", if (threads > 1) "1" else "0")
                options.addConfigEntry("session.force_spinning_stop", "1")
                // All that is left to fold is the table's second shape, which would be a copy of it.
                options.addConfigEntry("optimization.disable_specified_optimizers", "ConstantFolding")
                val session = options.use { environment().createSession(bundle.graph.path, it) }
                return OrtDraftModel(manifest, session).also { it.checkInPlace() }
            } catch (error: OrtException) {
                throw BundleException("onnxruntime cannot run ${bundle.graph} (${error.message})")
            }
        }

        /** Whether one version is before another, number by number; what is behind the numbers does not count. */
        internal fun older(version: String, than: String): Boolean {
            fun numbers(text: String) = text.takeWhile { it.isDigit() || it == '.' }.split(".").map { it.toIntOrNull() ?: 0 }
            val (mine, theirs) = numbers(version) to numbers(than)
            val first = (0 until maxOf(mine.size, theirs.size)).firstOrNull { mine.getOrElse(it) { 0 } != theirs.getOrElse(it) { 0 } }
            return first != null && mine.getOrElse(first) { 0 } < theirs.getOrElse(first) { 0 }
        }

        /** Throws [BundleException] for what cannot be run here, from the manifest alone. */
        fun runnable(manifest: Manifest) {
            if (manifest.graph != SHARED) {
                throw BundleException("the bundle has a ${manifest.graph} graph, and this client runs $SHARED ones; export it so")
            }
            val least = manifest.leastOnnxruntime
            if (least != null && older(environment().version, least)) {
                // An older one loads it, too, and computes something else.
                throw BundleException("the bundle needs onnxruntime $least, and this app has ${environment().version}")
            }
            if (!manifest.kernelBits.all { it == 4L || it == 8L }) {
                throw BundleException("the bundle's products have ${manifest.kernelBits} bits; export it with 4 or 8")
            }
            if (manifest.cacheBytes / (2 * manifest.layers) > Int.MAX_VALUE) {
                throw BundleException("a layer's cache has over 2 GB; export the bundle with a smaller --context")
            }
        }
    }
}
